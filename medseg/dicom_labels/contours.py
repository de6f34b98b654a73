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
        # Far quicker than np.roll.
        ends = np.concatenate([polygon[1:], polygon[:1]])
        i, j = polygon.T
        next_i, next_j = ends.T
        return cls(i, j, next_i, next_j)

    def take(self, selected: Any) -> _Edges:
        """Return some of the edges, by their indices, a mask or a slice."""
        i = self.i[selected]
        j = self.j[selected]
        next_i = self.next_i[selected]
        next_j = self.next_j[selected]
        return _Edges(i, j, next_i, next_j)

    def point_up(self) -> _Edges:
        """Return the edges turned so that ``j`` never falls along them."""
        is_falling = self.j > self.next_j
        low_i = np.where(is_falling, self.next_i, self.i)
        low_j = np.where(is_falling, self.next_j, self.j)
        high_i = np.where(is_falling, self.i, self.next_i)
        high_j = np.where(is_falling, self.j, self.next_j)
        return _Edges(low_i, low_j, high_i, high_j)


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
    i_low = i.min()
    i_high = i.max() + 1
    j_low = j.min()
    j_high = j.max() + 1
    box = mask[i_low:i_high, j_low:j_high]
    padded = np.pad(box, 1).astype(np.float64)
    # Padding shifts the pixels by one.
    corner = np.array([i_low, j_low]) - 1
    outlines = []
    holes = []
    closed_loops = find_contours(padded, 0.5, fully_connected="low")
    for closed_loop in closed_loops:
        loop = closed_loop[:-1]  # without the first point's repetition
        polygon = _drop_straight_points(loop + corner)
        # scikit-image walks with the mask on its left, so outlines and holes turn opposite ways.
        area = _compute_signed_area(polygon)
        if area < 0:
            outlines.append(polygon)
        elif area > 0:
            holes.append(polygon)
    # From the top down, so that an upper hole that is met has been joined already.
    holes.sort(key=_get_top)
    for hole in holes:
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
    i_low, j_low = low.tolist()
    i_high, j_high = high.tolist()
    i_size = i_high - i_low
    j_size = j_high - j_low
    # Each edge turns over all pixels behind it: one mark where it crosses a line of pixels, and
    # a running sum along the line.
    marks = np.zeros((i_size + 1, j_size), np.int32)
    for polygon in rounded:
        in_box = polygon - low
        for edges in _iterate_edges(in_box):
            crossings = _find_crossings(edges, (i_size, j_size))
            np.add.at(marks, crossings, 1)
    edges_before = np.cumsum(marks[:-1], axis=0)
    is_inside = edges_before % 2 == 1
    mask[i_low:i_high, j_low:j_high] = is_inside
    return mask


def _find_box(
    polygons: list[Points], shape: Shape
) -> tuple[_Indices, _Indices]:
    """Return the pixels, from and to before, that polygons can reach."""
    points = np.concatenate(polygons)
    lowest = points.min(axis=0)
    highest = points.max(axis=0)
    first = np.floor(lowest)
    last = np.ceil(highest)
    low = np.clip(first, 0, shape)
    high = np.clip(last + 1, low, shape)
    low_indices = low.astype(np.int64)
    high_indices = high.astype(np.int64)
    return low_indices, high_indices


def _iterate_edges(polygon: Points) -> Iterator[_Edges]:
    """Give a polygon's edges, not too many at once."""
    edges = _Edges.of_polygon(polygon)
    count = len(polygon)
    for start in range(0, count, _EDGES_AT_ONCE):
        end = start + _EDGES_AT_ONCE
        part = slice(start, end)
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
    lines_from = np.ceil(edges.j)
    lines_to = np.ceil(edges.next_j)
    lines_from = lines_from.clip(0, j_size)
    lines_to = lines_to.clip(0, j_size)
    owners, lines = _expand_ranges(lines_from, lines_to)
    i, j, next_i, next_j = edges.take(owners)
    i_step = next_i - i
    j_step = next_j - j
    # Multiplied before divided: that decides the last digit.
    offset = (lines - j) * i_step / j_step
    crossing = np.round(i + offset, _DIGITS)
    first_behind = np.ceil(crossing)
    pixels = np.clip(first_behind, 0, i_size)
    return pixels.astype(np.int64), lines


def _expand_ranges(
    first: _Numbers, last: _Numbers
) -> tuple[_Indices, _Indices]:
    """Write out ranges of whole numbers.

    Args:
        first: Where each range begins.
        last: Where it ends; not part of it.

    Returns:
        For each number of each range, which range it is of, and the number.
    """
    counts = (last - first).astype(np.int64)
    ranges = np.arange(len(counts))
    owners = np.repeat(ranges, counts)
    # Where the numbers of each range begin among all that are written out.
    starts = np.cumsum(counts) - counts
    places = np.arange(len(owners))
    ranks = places - starts[owners]
    first_numbers = first.astype(np.int64)
    own_first_numbers = first_numbers[owners]
    numbers = own_first_numbers + ranks
    return owners, numbers


def _drop_straight_points(loop: Points) -> Points:
    """Leave out points on straight lines; coordinates are halves, so the test is exact."""
    i, j, next_i, next_j = _Edges.of_polygon(loop)
    i_step = next_i - i
    j_step = next_j - j
    last_i_step = np.roll(i_step, 1)
    last_j_step = np.roll(j_step, 1)
    # The cross product of two steps is 0 where the second goes straight on.
    turns = last_i_step * j_step - last_j_step * i_step
    is_corner = turns != 0
    corners: Points = loop[is_corner]
    return corners


def _compute_signed_area(loop: Points) -> float:
    """Return the signed area: positive if it runs from the first axis towards the second.

    By the shoelace formula: the sum of the edges' cross products is twice the area.
    """
    i, j, next_i, next_j = _Edges.of_polygon(loop)
    forwards = i @ next_j
    backwards = j @ next_i
    twice_the_area = float(forwards - backwards)
    return twice_the_area / 2


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
    start_i, _ = start
    end = np.array([start_i, height])
    outline = outlines[number]
    next_point = edge + 1
    before = outline[:next_point]
    behind = outline[next_point:]
    # Along the outline, down the keyhole, around the hole, up the keyhole, and on.
    joined = [before, end, start, hole_points, start, end, behind]
    outlines[number] = np.vstack(joined)


def _start_keyhole(hole: Points) -> tuple[Points, Points]:
    """Return a point on a hole's top edge, and the hole's points from behind it, in order."""
    i, j = hole.T
    from_top = np.lexsort((i, j))
    top = int(from_top[0])
    neighbour = (top + 1) % len(hole)
    first_point = neighbour
    # One of the two neighbours lies towards larger i; the start lies on the edge to it.
    if i[neighbour] <= i[top]:
        neighbour = (top - 1) % len(hole)
        first_point = top
    corner = hole[top]
    edge = hole[neighbour] - corner
    edge_length, _ = edge  # it runs along i
    share = _KEYHOLE_OFFSET / edge_length
    start = corner + edge * share
    hole_points = np.roll(hole, -first_point, axis=0)
    return start, hole_points


def _find_edge_above(polygon: Points, start: Points) -> tuple[float, int]:
    """Find where going up from ``start`` first meets a polygon.

    Returns:
        The ``j`` of the meeting, -∞ if there is none, and the index of the point before it.
    """
    start_i, start_j = start
    edges = _Edges.of_polygon(polygon)
    begins_before = edges.i <= start_i
    ends_before = edges.next_i <= start_i
    is_crossing = begins_before != ends_before
    indices = np.flatnonzero(is_crossing)
    i, j, next_i, next_j = edges.take(indices)
    i_step = next_i - i
    j_step = next_j - j
    shares = (start_i - i) / i_step
    heights = j + shares * j_step
    is_above = heights < start_j
    if not is_above.any():
        return -np.inf, 0
    heights_above = np.where(is_above, heights, -np.inf)
    nearest = int(heights_above.argmax())
    height = float(heights_above[nearest])
    edge = int(indices[nearest])
    return height, edge
