"""Masks of one slice ↔ closed polygons around them, exact by the pixel-centre rule.

A polygon runs half-way between the centres of pixels inside and outside, so whoever fills it by
asking which pixel centres lie inside gets the same pixels back. Coordinates are ``(i, j)`` in
pixels; pixel ``(0, 0)`` has its centre at the origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_CHANNEL = 0.25
"""How far beside pixel centres a channel to a hole runs, so that it never touches one."""
_DIGITS = 6
_EDGES_AT_ONCE = 4096
"""Bounds the memory for polygons that someone made of millions of points."""


def trace_outlines(mask: Mask) -> list[Points]:
    """Return polygons around the pixels of a mask, holes joined to their outline by a channel.

    The channel has no width and is walked twice (DICOM PS3.3 C.8.8.6.3 calls it a keyhole), so
    that polygons never need to be subtracted from each other.

    Args:
        mask: Shape ``(i, j)``.

    Returns:
        Each of shape ``(points, 2)``, not closed by a repeated point. Pixels that touch by a
        corner only are apart. Filled by the pixel-centre rule, they give ``mask``.
    """
    from skimage.measure import find_contours

    found = np.nonzero(mask)
    if not found[0].size:
        return []
    low = np.array([axis.min() for axis in found])
    high = np.array([axis.max() for axis in found])
    box = np.pad(mask[low[0] : high[0] + 1, low[1] : high[1] + 1], 1)
    loops = find_contours(box.astype(np.float64), 0.5, fully_connected="low")
    corners = [_corners(loop[:-1] + low - 1) for loop in loops]
    # scikit-image walks with the mask on its left, so outlines and holes turn opposite ways.
    outer = [loop for loop in corners if _area(loop) < 0]
    holes = [loop for loop in corners if _area(loop) > 0]
    for hole in sorted(holes, key=lambda hole: float(hole[:, 1].min())):
        _join(outer, hole)
    return outer


def fill_polygons(polygons: Iterable[Points], shape: tuple[int, int]) -> Mask:
    """Return the pixels whose centres lie inside, by the even-odd rule over all polygons.

    A centre exactly on a polygon's edge belongs to the side of larger ``i``, then ``j``, so that
    neighbours that share an edge share no pixel.

    Args:
        polygons: Each of shape ``(points, 2)``, closed or not.
        shape: Pixels along i and j.

    Returns:
        The mask, shape ``shape``.
    """
    mask = np.zeros(shape, np.bool_)
    rounded = [np.round(polygon, _DIGITS) for polygon in polygons]
    if not rounded:
        return mask
    low, high = _box(rounded, shape)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    # Each edge turns over all pixels behind it: one mark where it crosses a line of pixels, and
    # a running sum along the line.
    marks = np.zeros((size[0] + 1, size[1]), np.int32)
    for polygon in rounded:
        starts = polygon - low
        ends = np.roll(starts, -1, axis=0)
        for first in range(0, len(starts), _EDGES_AT_ONCE):
            part = slice(first, first + _EDGES_AT_ONCE)
            i, j = _crossings(starts[part], ends[part], size)
            np.add.at(marks, (i, j), 1)
    mask[low[0] : high[0], low[1] : high[1]] = np.cumsum(marks[:-1], axis=0) % 2 == 1
    return mask


def _box(polygons: list[Points], shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return the pixels, from and to before, that polygons can reach."""
    points = np.concatenate(polygons)
    low = np.clip(np.floor(points.min(axis=0)), 0, shape).astype(np.int64)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, low, shape).astype(np.int64)
    return low, high


def _crossings(starts: Points, ends: Points, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return, for each edge and line of pixels it crosses, the first pixel behind it."""
    # From the lower end up, so that a channel walked both ways crosses at equal places.
    both = np.stack([starts, ends])
    order = np.argsort(both[:, :, 1], axis=0, kind="stable")
    (i0, j0), (i1, j1) = np.take_along_axis(both, order[:, :, None], axis=0).transpose(0, 2, 1)
    first = np.clip(np.ceil(j0), 0, shape[1]).astype(np.int64)
    last = np.clip(np.ceil(j1), 0, shape[1]).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    j = first[edge] + nth
    i = i0[edge] + (j - j0[edge]) * (i1 - i0)[edge] / (j1 - j0)[edge]
    return np.clip(np.ceil(np.round(i, _DIGITS)), 0, shape[0]).astype(np.int64), j


def _corners(loop: Points) -> Points:
    """Leave out points on straight lines; coordinates are halves, so the test is exact."""
    before = loop - np.roll(loop, 1, axis=0)
    behind = np.roll(loop, -1, axis=0) - loop
    turns = before[:, 0] * behind[:, 1] - before[:, 1] * behind[:, 0]
    corners: Points = loop[turns != 0]
    return corners


def _area(loop: Points) -> float:
    """Return the signed area: positive if it runs from the first axis towards the second."""
    i, j = loop.T
    return float(i @ np.roll(j, -1) - j @ np.roll(i, -1)) / 2


def _join(outer: list[Points], hole: Points) -> None:
    """Join a hole to the polygon around it, in place: up from its top to the first edge met.

    All between the top and that edge is inside the same polygon. Holes come from the top down, so
    an upper hole that is met has been joined already.
    """
    start, rotated = _channel_start(hole)
    hits = [(_edge_above(polygon, start), number) for number, polygon in enumerate(outer)]
    (height, edge), number = max(hits)
    polygon = outer[number]
    end = np.array([start[0], height])
    outer[number] = np.vstack(
        [polygon[: edge + 1], end, start, rotated, start, end, polygon[edge + 1 :]]
    )


def _channel_start(hole: Points) -> tuple[Points, Points]:
    """Return a point on a hole's top edge, and the hole's points from behind it, in order."""
    top = int(np.lexsort((hole[:, 0], hole[:, 1]))[0])
    behind = (top + 1) % len(hole)
    # One of the two neighbours lies towards larger i; the start lies on the edge to it.
    if hole[behind, 0] > hole[top, 0]:
        edge, other = top, behind
    else:
        edge, other = (top - 1) % len(hole), (top - 1) % len(hole)
    along = _CHANNEL / (hole[other, 0] - hole[top, 0])
    start = hole[top] + along * (hole[other] - hole[top])
    return start, np.roll(hole, -(edge + 1), axis=0)


def _edge_above(polygon: Points, start: Points) -> tuple[float, int]:
    """Return where going up from ``start`` first meets a polygon: ``j``, and after which point."""
    i0, j0 = polygon.T
    i1, j1 = np.roll(polygon, -1, axis=0).T
    crossing = (i0 <= start[0]) != (i1 <= start[0])
    edges = np.flatnonzero(crossing)
    j = j0[edges] + (start[0] - i0[edges]) / (i1 - i0)[edges] * (j1 - j0)[edges]
    above = j < start[1]
    if not above.any():
        return -np.inf, 0
    nearest = int(np.argmax(np.where(above, j, -np.inf)))
    return float(j[nearest]), int(edges[nearest])
