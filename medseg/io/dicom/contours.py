"""Masks of one slice ↔ closed polygons around them, exact by the pixel-centre rule.

A polygon runs half-way between the centres of pixels inside and outside, so whoever fills it by
asking which pixel centres lie inside gets the same pixels back. Coordinates are ``(i, j)`` in
pixels; pixel ``(0, 0)`` has its centre at the origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Shape = tuple[int, int]

_Numbers = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]

_KEYHOLE_OFFSET = 0.25
"""How far beside pixel centres a keyhole to a hole runs, so that it never touches one."""
_DIGITS = 6
_EDGES_AT_ONCE = 4096
"""Bounds the memory for polygons that someone made of millions of points."""


class _Edges(NamedTuple):
    """Edges of a polygon, from point to point; each array has shape ``(edges,)``.

    Attributes:
        i: Where they start.
        j: Where they start.
        next_i: Where they end.
        next_j: Where they end.
    """

    i: _Numbers
    j: _Numbers
    next_i: _Numbers
    next_j: _Numbers

    @classmethod
    def of_polygon(cls, polygon: Points) -> _Edges:
        """Return a polygon's edges, the last one back to its first point."""
        ends = np.concatenate([polygon[1:], polygon[:1]])  # far quicker than np.roll
        return cls(*polygon.T, *ends.T)

    def take(self, selected: Any) -> _Edges:
        """Return some of the edges, by their indices, a mask or a slice."""
        return _Edges(*(values[selected] for values in self))

    def point_up(self) -> _Edges:
        """Return the edges turned so that ``j`` never falls along them."""
        is_falling = self.j > self.next_j
        return _Edges(
            np.where(is_falling, self.next_i, self.i),
            np.where(is_falling, self.next_j, self.j),
            np.where(is_falling, self.i, self.next_i),
            np.where(is_falling, self.j, self.next_j),
        )


def trace_outlines(mask: Mask) -> list[Points]:
    """Return polygons around the pixels of a mask, holes joined to their outline by a keyhole.

    The keyhole has no width and is walked twice (DICOM PS3.3 C.8.8.6.3), so that polygons never
    need to be subtracted from each other.

    Args:
        mask: Shape ``(i, j)``.

    Returns:
        Each of shape ``(points, 2)``, not closed by a repeated point. Pixels that touch by a
        corner only are apart. Filled by the pixel-centre rule, they give ``mask``.
    """
    from skimage.measure import find_contours

    i, j = np.nonzero(mask)
    if not i.size:
        return []
    i_low, i_high = i.min(), i.max() + 1
    j_low, j_high = j.min(), j.max() + 1
    box = mask[i_low:i_high, j_low:j_high]
    padded = np.pad(box, 1).astype(np.float64)
    corner = np.array([i_low, j_low])
    outlines = []
    holes = []
    for loop in find_contours(padded, 0.5, fully_connected="low"):
        # Closed by a repeated point, which goes; and padded by one pixel.
        polygon = _drop_straight_points(loop[:-1] + corner - 1)
        # scikit-image walks with the mask on its left, so outlines and holes turn opposite ways.
        area = _compute_signed_area(polygon)
        if area < 0:
            outlines.append(polygon)
        elif area > 0:
            holes.append(polygon)
    # From the top down, so that an upper hole that is met has been joined already.
    for hole in sorted(holes, key=_get_top):
        _join_hole(outlines, hole)
    return outlines


def fill_polygons(polygons: Iterable[Points], shape: Shape) -> Mask:
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
    low, high = _find_box(rounded, shape)
    i_size, j_size = (high - low).tolist()
    # Each edge turns over all pixels behind it: one mark where it crosses a line of pixels, and
    # a running sum along the line.
    marks = np.zeros((i_size + 1, j_size), np.int32)
    for polygon in rounded:
        for edges in _iterate_edges(polygon - low):
            crossings = _find_crossings(edges, (i_size, j_size))
            np.add.at(marks, crossings, 1)
    edges_before = np.cumsum(marks[:-1], axis=0)
    i_low, j_low = low
    i_high, j_high = high
    mask[i_low:i_high, j_low:j_high] = edges_before % 2 == 1
    return mask


def _find_box(polygons: list[Points], shape: Shape) -> tuple[_Indices, _Indices]:
    """Return the pixels, from and to before, that polygons can reach."""
    points = np.concatenate(polygons)
    lowest = np.floor(points.min(axis=0))
    highest = np.ceil(points.max(axis=0))
    low = np.clip(lowest, 0, shape)
    high = np.clip(highest + 1, low, shape)
    return low.astype(np.int64), high.astype(np.int64)


def _iterate_edges(polygon: Points) -> Iterator[_Edges]:
    """Give a polygon's edges, not too many at once."""
    edges = _Edges.of_polygon(polygon)
    for first in range(0, len(polygon), _EDGES_AT_ONCE):
        part = slice(first, first + _EDGES_AT_ONCE)
        yield edges.take(part)


def _find_crossings(edges: _Edges, shape: Shape) -> tuple[_Indices, _Indices]:
    """Find where edges cross lines of pixels; a line of pixels has one ``j``.

    Returns:
        For each edge and line that it crosses, the ``i`` of the first pixel behind it, and the
        line.
    """
    i_size, j_size = shape
    # From the lower end up, so that a keyhole walked both ways crosses at equal places.
    edges = edges.point_up()
    first = np.ceil(edges.j).clip(0, j_size)
    last = np.ceil(edges.next_j).clip(0, j_size)
    owners, lines = _expand_ranges(first, last)
    i, j, next_i, next_j = edges.take(owners)
    # Multiplied before divided: that decides the last digit.
    rise = (lines - j) * (next_i - i) / (next_j - j)
    behind = np.ceil(np.round(i + rise, _DIGITS))
    pixels = np.clip(behind, 0, i_size)
    return pixels.astype(np.int64), lines


def _expand_ranges(first: _Numbers, last: _Numbers) -> tuple[_Indices, _Indices]:
    """Write out ranges of whole numbers.

    Args:
        first: Where each range begins.
        last: Where it ends; not part of it.

    Returns:
        For each number of each range, which range it is of, and the number.
    """
    counts = (last - first).astype(np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    nth = np.arange(len(owners)) - starts[owners]
    numbers = first.astype(np.int64)[owners] + nth
    return owners, numbers


def _drop_straight_points(loop: Points) -> Points:
    """Leave out points on straight lines; coordinates are halves, so the test is exact."""
    i, j, next_i, next_j = _Edges.of_polygon(loop)
    i_step = next_i - i
    j_step = next_j - j
    last_i_step = np.roll(i_step, 1)
    last_j_step = np.roll(j_step, 1)
    turns = last_i_step * j_step - last_j_step * i_step
    corners: Points = loop[turns != 0]
    return corners


def _compute_signed_area(loop: Points) -> float:
    """Return the signed area: positive if it runs from the first axis towards the second."""
    i, j, next_i, next_j = _Edges.of_polygon(loop)
    twice_the_area = i @ next_j - j @ next_i
    return float(twice_the_area) / 2


def _get_top(polygon: Points) -> float:
    _, j = polygon.T
    return float(j.min())


def _join_hole(outlines: list[Points], hole: Points) -> None:
    """Join a hole to the polygon around it, in place: up from its top to the first edge met.

    All between the top and that edge is inside the same polygon.
    """
    start, hole_points = _start_keyhole(hole)
    crossings = []
    for number, outline in enumerate(outlines):
        height, edge = _find_edge_above(outline, start)
        crossings.append((height, edge, number))
    height, edge, number = max(crossings)
    end = np.array([start[0], height])
    before = outlines[number][: edge + 1]
    behind = outlines[number][edge + 1 :]
    outlines[number] = np.vstack([before, end, start, hole_points, start, end, behind])


def _start_keyhole(hole: Points) -> tuple[Points, Points]:
    """Return a point on a hole's top edge, and the hole's points from behind it, in order."""
    i, j = hole.T
    top = int(np.lexsort((i, j))[0])
    neighbour = (top + 1) % len(hole)
    first_point = neighbour
    # One of the two neighbours lies towards larger i; the start lies on the edge to it.
    if i[neighbour] <= i[top]:
        neighbour = (top - 1) % len(hole)
        first_point = top
    edge = hole[neighbour] - hole[top]
    start = hole[top] + edge * (_KEYHOLE_OFFSET / edge[0])
    return start, np.roll(hole, -first_point, axis=0)


def _find_edge_above(polygon: Points, start: Points) -> tuple[float, int]:
    """Find where going up from ``start`` first meets a polygon.

    Returns:
        The ``j`` of the meeting, -∞ if there is none, and the index of the point before it.
    """
    start_i, start_j = start
    edges = _Edges.of_polygon(polygon)
    is_crossing = (edges.i <= start_i) != (edges.next_i <= start_i)
    indices = np.flatnonzero(is_crossing)
    i, j, next_i, next_j = edges.take(indices)
    shares = (start_i - i) / (next_i - i)
    heights = j + shares * (next_j - j)
    is_above = heights < start_j
    if not is_above.any():
        return -np.inf, 0
    heights = np.where(is_above, heights, -np.inf)
    nearest = int(heights.argmax())
    return float(heights[nearest]), int(indices[nearest])
