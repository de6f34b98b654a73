"""Where the pixels of a segmentation lie among the voxels of a scan."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import generate_uid
from support import dicom as made
from support.studies import edited, labels_in, scan, write_seg

from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.errors import GeometryError
from medseg.io import read_image


def test_without_its_scan_a_segmentation_has_its_own_grid(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    # Nothing on slices 0 and 2: their frames are left out.
    labels[2, 1, 1], labels[3, 3, 3] = (
        1,
        2,
    )
    back = read_dicom_seg(write_seg(tmp_path / "seg.dcm", labels, like))
    assert np.array_equal(back.array[0], labels[:, :, 1:])
    expected = like.affine.copy()
    expected[:3, 3] += like.affine[:3, 2]
    assert np.allclose(back.affine, expected, atol=1e-4)


def test_a_segmentation_may_lie_flipped_or_turned_on_its_scan(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    flips = like.affine.copy()
    flips[:3, 3] += like.affine[:3, 0] * (like.shape[0] - 1)
    flips[:3, 0] *= -1
    turned = type(like)(
        like.array[:, ::-1].transpose(0, 3, 1, 2), flips[:, [2, 0, 1, 3]]
    )
    back = read_dicom_seg(path, turned)
    assert np.array_equal(back.array[0], labels[::-1].transpose(2, 0, 1))


def test_what_lies_outside_the_scan_is_counted(tmp_path):
    like = scan(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", np.ones(like.shape, np.uint8), like)
    smaller = type(like)(like.array[:, :4, :, :2], like.affine)
    back = read_dicom_seg(path, smaller)
    assert back.array.all()
    outside = np.prod(like.shape) - np.prod(smaller.shape)
    assert back.warnings == (
        f"{outside} labelled pixels lie outside the scan and were left out",
    )
    away = like.affine.copy()
    away[:3, 3] += like.affine[:3, 2] * 10
    with pytest.raises(GeometryError, match="all segments lie outside"):
        read_dicom_seg(path, type(like)(like.array, away))


def test_another_grid_or_frame_of_reference_is_refused(tmp_path):
    like = scan(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    moved = like.affine.copy()
    moved[:3, 3] += like.affine[:3, 0] * 0.4
    with pytest.raises(GeometryError, match="not voxels of the scan"):
        read_dicom_seg(path, type(like)(like.array, moved))
    other = made.series(FrameOfReferenceUID=generate_uid())
    with pytest.raises(GeometryError, match="another frame of reference"):
        read_dicom_seg(path, read_image(made.save(tmp_path / "other", other)))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [1, -1])
def test_what_lies_outside_the_scan_is_counted_on_every_side(
    tmp_path, axis, side
):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    edge = [slice(None)] * 3
    edge[axis] = slice(0, 1) if side > 0 else slice(-1, None)
    labels[tuple(edge)] = 1
    labels[2, 2, 1:3] = 2
    path = write_seg(tmp_path / "seg.dcm", labels, like)
    moved = like.affine.copy()
    moved[:3, 3] += side * like.affine[:3, axis]
    back = read_dicom_seg(path, type(like)(like.array, moved))
    expected = np.roll(labels, -side, axis)
    expected[expected == 1] = 0
    assert np.array_equal(back.array[0], expected)
    outside = np.count_nonzero(labels == 1)
    assert back.warnings == (
        f"{outside} labelled pixels lie outside the scan and were left out",
    )


def test_pixels_twice_as_large_as_voxels_are_refused(tmp_path):
    like = scan(tmp_path)
    path = write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    for scales in ((0.5, 1, 1), (1, 0.5, 1)):
        finer = like.affine @ np.diag([*scales, 1])
        with pytest.raises(GeometryError, match="not voxels of the scan"):
            read_dicom_seg(path, type(like)(like.array, finer))


def test_a_stated_gap_that_does_not_fit_the_frames_is_not_used(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    path = write_seg(tmp_path / "seg.dcm", labels, like)

    def lie(ds):
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = 0.7 * made.GAP

    back = read_dicom_seg(edited(path, lie))
    assert np.array_equal(back.array[0], labels)
    assert np.allclose(back.affine, like.affine, atol=1e-4)


def test_empty_slices_between_frames_are_kept_by_the_stated_gap(tmp_path):
    like = scan(tmp_path)
    labels = np.zeros(like.shape, np.uint8)
    labels[2, 2, 0] = labels[3, 3, 2] = 1
    back = read_dicom_seg(write_seg(tmp_path / "seg.dcm", labels, like))
    assert np.array_equal(back.array[0], labels[:, :, :3])
