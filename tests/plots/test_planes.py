"""Volumes are shown as radiologists see them, pictures as people do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.pictures import marked_volume

from medseg.plots.planes import (
    DisplayOrientation,
    compute_intensity_window,
    select_display_channels,
)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SRA", "AIL"])
def test_volumes_are_shown_as_radiologists_see_them(codes):
    array, affine = marked_volume(codes)
    view = DisplayOrientation.from_grid(affine, array.shape)
    turned = view.orient(array)
    axial, coronal, sagittal = view.planes(turned)
    assert [plane.name for plane in (axial, coronal, sagittal)] == [
        "axial",
        "coronal",
        "sagittal",
    ]
    assert [plane.size for plane in (axial, coronal, sagittal)] == [
        (8, 20),
        (8, 36),
        (20, 36),
    ]
    for plane in (axial, coronal, sagittal):
        shown = plane.extract(turned)
        # The mark is right, anterior and superior: on the left, and up, in each of them.
        assert shown[0, 0] == 1
        assert shown[-1, 0] == shown[0, -1] == shown[-1, -1] == 0


def test_an_oblique_volume_is_shown_in_its_own_planes():
    turn = np.eye(4)
    turn[:2, :2] = [
        [math.cos(0.4), -math.sin(0.4)],
        [math.sin(0.4), math.cos(0.4)],
    ]
    array, affine = marked_volume("LPS")
    view = DisplayOrientation.from_grid(turn @ affine, array.shape)
    assert view.spacing == pytest.approx((1, 2, 3))
    assert (
        view.planes(view.orient(array))[0].extract(view.orient(array))[0, 0]
        == 1
    )


def test_a_picture_is_shown_as_people_see_it():
    array = np.zeros((6, 4, 1), np.uint8)
    array[5, 0] = 1
    view = DisplayOrientation.from_grid(np.eye(4), array.shape)
    (plane,) = view.planes(array)
    shown = plane.extract(view.orient(array))
    assert shown.shape == (4, 6)
    assert shown[0, 5] == 1
    assert plane.name == ""


def test_the_slice_with_most_reference_is_shown():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:4, 2:4, 1] = 1
    labels[4:8, 3:8, 6] = 1
    view = DisplayOrientation.from_grid(np.eye(4), labels.shape)
    assert view.planes(labels)[0].index == 6
    assert [plane.index for plane in view.planes(labels * 0)] == [4, 4, 4]


def test_window_holds_out_against_outliers_and_nothing():
    image = np.random.default_rng(0).normal(100, 10, (30, 30, 30))
    image[0, 0, 0] = 1e9
    image[1, 1, 1] = np.nan
    low, high = compute_intensity_window(image)
    assert 60 < low < 100 < high < 140
    for flat in (
        np.zeros((4, 4, 4)),
        np.full((4, 4, 4), np.nan),
        np.full((4, 4, 4), np.inf),
    ):
        low, high = compute_intensity_window(flat)
        assert low < high


def test_colour_pictures_keep_their_colours():
    assert select_display_channels(np.zeros((3, 5, 4, 1))).shape == (5, 4, 1, 3)
    assert select_display_channels(np.zeros((3, 5, 4, 2))).shape == (5, 4, 2)


def test_window_is_that_of_the_percentiles():
    image = np.arange(1000.0).reshape(10, 10, 10)
    assert compute_intensity_window(image) == pytest.approx((9.99, 989.01))
    assert compute_intensity_window(np.full((3, 3, 3), 7.0)) == (6.5, 7.5)
    mostly_air = np.zeros((10, 10, 10))
    mostly_air[0, 0, 0] = 5
    assert compute_intensity_window(mostly_air) == (0, 5)
