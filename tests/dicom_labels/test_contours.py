"""Contours and back must be the same pixels, whoever fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path

from medseg.dicom_labels.contours import fill_polygons, trace_outlines

RING = np.ones((5, 5), bool)
RING[2, 2] = False
NESTED = np.zeros((9, 9), bool)
for margin, value in enumerate((True, False, True, False)):
    NESTED[margin : 9 - margin, margin : 9 - margin] = value
STACKED = np.ones((5, 9), bool)
STACKED[2, 1::2] = False
CHECKS = np.indices((6, 6)).sum(axis=0) % 2 == 0
masks = arrays(
    bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
)


def filled_by_matplotlib(
    polygon: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    centres = np.indices(shape).reshape(2, -1).T
    closed = np.vstack([polygon, polygon[:1]])
    return Path(closed, closed=True).contains_points(centres).reshape(shape)


@settings(max_examples=300, deadline=None)
@given(mask=masks)
@example(mask=RING)
@example(mask=NESTED)
@example(mask=STACKED)
@example(mask=STACKED.T.copy())
@example(mask=CHECKS)
@example(mask=~CHECKS)
def test_any_mask_comes_back_from_its_outlines(mask):
    polygons = trace_outlines(mask)
    assert np.array_equal(fill_polygons(polygons, mask.shape), mask)
    # Each polygon stands alone: no reader needs to subtract one from another.
    times = sum(
        (
            filled_by_matplotlib(polygon, mask.shape).astype(int)
            for polygon in polygons
        ),
        np.zeros(mask.shape, int),
    )
    assert np.array_equal(times, mask)


def test_outlines_run_half_way_between_centres():
    mask = np.zeros((6, 7), bool)
    mask[2:4, 3:6] = True
    (polygon,) = trace_outlines(mask)
    assert np.allclose(polygon.min(axis=0), (1.5, 2.5))
    assert np.allclose(polygon.max(axis=0), (3.5, 5.5))
    assert len(polygon) == 8  # corners only, each cut


def test_a_hole_hangs_on_a_channel_that_touches_no_centre():
    (polygon,) = trace_outlines(RING)
    steps = np.diff(np.vstack([polygon, polygon[:1]]), axis=0)
    channel = polygon[
        np.flatnonzero((steps[:, 0] == 0) & (polygon[:, 0] % 0.5 != 0))
    ]
    assert len(channel) == 2  # there and back
    assert np.allclose(channel[:, 0] % 1, 0.25)


def test_pixels_that_touch_by_a_corner_are_apart():
    assert len(trace_outlines(np.eye(3, dtype=bool))) == 3
    assert len(trace_outlines(~np.eye(3, dtype=bool))) == 2


def test_nothing_has_no_outline():
    assert trace_outlines(np.zeros((3, 3), bool)) == []
    assert not fill_polygons([], (3, 3)).any()


@pytest.mark.parametrize("turn", [1, -1])
def test_neighbours_that_share_an_edge_through_centres_share_no_pixel(turn):
    left = np.array([(0, 0), (3, 0), (3, 5), (0, 5)], float)[::turn]
    right = left + np.array([3, 0])
    both = fill_polygons([left], (8, 8)).astype(int) + fill_polygons(
        [right], (8, 8)
    )
    assert both.max() == 1
    assert both.sum() == 6 * 5


def test_polygons_may_lie_partly_or_wholly_outside():
    square = np.array([(-5, -5), (2.5, -5), (2.5, 2.5), (-5, 2.5)])
    expected = np.zeros((6, 6), bool)
    expected[:3, :3] = True
    assert np.array_equal(fill_polygons([square], (6, 6)), expected)
    assert np.array_equal(
        fill_polygons([7.5 - square], (8, 8))[5:, 5:], np.ones((3, 3), bool)
    )
    assert not fill_polygons([square + 100], (6, 6)).any()
    assert not fill_polygons([square - 100], (6, 6)).any()
    assert fill_polygons([square * 1e6], (6, 6))[:3, :3].all()


def test_a_polygon_inside_another_is_a_hole():
    outer = np.array([(0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5)])
    inner = (outer - 4.5) / 2 + 4.5
    mask = fill_polygons([outer, inner], (10, 10))
    assert mask.sum() == 64 - 16
    assert not mask[4, 4]
