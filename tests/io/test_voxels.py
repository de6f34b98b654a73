"""Sizes that no scan has, numbers that are none, and label maps in the smallest integers."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import ScanError
from medseg.io import voxels
from medseg.io.formats import MAX_VOXELS
from medseg.io.voxels import (
    as_labels,
    check_size,
    empty_image,
    format_size,
    limit_voxels,
)


def test_sizes_are_refused_from_the_first_voxel_too_many(monkeypatch):
    monkeypatch.setattr(voxels, "MAX_VOXELS", 60)
    check_size((3, 4, 5), "a.nii")
    with pytest.raises(
        ScanError, match="3×4×6 voxels; at most 60 are read"
    ) as caught:
        check_size((3, 4, 6), "a.nii")
    assert caught.value.source == "a.nii"
    with pytest.raises(ScanError, match="at most 60"):
        check_size(tuple(np.array([2**16, 2**16, 1], np.int32)), "a.nii")
    for empty in ((3, 0, 5), (3, 4, -1)):
        with pytest.raises(ScanError, match="each axis needs at least one"):
            check_size(empty, "a.nii")
    assert MAX_VOXELS > 512 * 512 * 10_000


def test_images_run_fastest_along_the_first_axis():
    image = empty_image((3, 4, 5, 2), "a.nii")
    assert image.dtype == np.float32
    assert image.flags.f_contiguous


def test_memory_that_is_not_free_is_said(monkeypatch):
    monkeypatch.setattr(voxels, "MAX_VOXELS", 1 << 62)
    with pytest.raises(
        ScanError,
        match=r"need 4,?\d*\.\d GB of memory|need \d+\.\d GB of memory",
    ):
        empty_image((1 << 15, 1 << 15, 1 << 15), "a.nii")


@pytest.mark.parametrize(
    ("most", "dtype"),
    [(0, "u1"), (255, "u1"), (256, "u2"), (65_536, "u4"), (2**32 - 1, "u4")],
)
def test_labels_take_the_smallest_integers(most, dtype):
    for source in (np.int64, np.float64):
        labels = as_labels(np.array([[[0, most]]], source), "a.nii")
        assert labels.dtype == dtype
        assert labels.max() == most


def test_labels_that_fit_are_not_copied():
    labels = np.ones((2, 2, 2), np.uint8)
    assert as_labels(labels, "a.nii") is labels


def test_booleans_are_labels():
    assert as_labels(np.array([[[True, False]]]), "a.nii").tolist() == [
        [[1, 0]]
    ]


@pytest.mark.parametrize(
    ("value", "label"), [(2.996, 3), (3.004, 3), (-0.004, 0), (3.0099, 3)]
)
def test_labels_are_rounded_where_a_scale_factor_blurred_them(value, label):
    assert as_labels(np.array([[[value]]]), "a.nii").tolist() == [[[label]]]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0, -1], "lowest value is -1"),
        ([0.0, 2.5], "this one holds 2.5"),
        ([0.0, 3.02], "this one holds 3.02"),
        ([0.0, np.nan], "not numbers"),
        ([0, 2**32], "at most 4294967295"),
        ([0, 1j], "these voxels are complex"),
    ],
)
def test_values_that_are_no_labels_are_refused(values, why):
    with pytest.raises(ScanError, match=why) as caught:
        as_labels(np.array([[values]]), "mueller.nii")
    assert caught.value.source == "mueller.nii"
    assert "mueller" not in caught.value.message


def test_sizes_are_written_as_people_do():
    assert format_size((512, 512, 300)) == "512×512×300"


def test_fewer_voxels_can_be_asked_for_and_only_for_a_while() -> None:
    check_size((10, 10, 10), "scan")
    with limit_voxels(999), pytest.raises(ScanError, match="at most 999 are"):
        check_size((10, 10, 10), "scan")
    with limit_voxels(1000):
        check_size((10, 10, 10), "scan")
    check_size((10, 10, 10), "scan")
    with limit_voxels(10**12), pytest.raises(ScanError, match="at most"):
        check_size((10**4, 10**4, 10**3), "scan")
