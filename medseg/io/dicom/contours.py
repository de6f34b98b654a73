"""Masks of one slice ↔ closed polygons around them, exact by the pixel-centre rule.

A polygon runs half-way between the centres of pixels inside and outside, so whoever fills it by
asking which pixel centres lie inside gets the same pixels back. Coordinates are ``(i, j)`` in
pixels; pixel ``(0, 0)`` has its centre at the origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_KEYHOLE_OFFSET = 0.25
"""How far beside pixel centres a keyhole to a hole runs, so that it never touches one."""
_DIGITS = 6
_EDGES_AT_ONCE = 4096
"""Bounds the memory for polygons that someone made of millions of points."""


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
    corner = np.array([i.min(), j.min()])
    box = mask[i.min() : i.max() + 1, j.min() : j.max() + 1]
    padded = np.pad(box, 1).astype(np.float64)
    outlines = []
    holes = []
    for loop in find_contours(padded, 0.5, fully_connected="low"):
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
    low, high = _find_box(rounded, shape)
    i_size, j_size = (high - low).tolist()
    # Each edge turns over all pixels behind it: one mark where it crosses a line of pixels, and
    # a running sum along the line.
    marks = np.zeros((i_size + 1, j_size), np.int32)
    for polygon in rounded:
        for starts, ends in _iterate_edges(polygon - low):
            i, j = _find_crossings(starts, ends, (i_size, j_size))
            np.add.at(marks, (i, j), 1)
    crossings = np.cumsum(marks[:-1], axis=0)
    mask[low[0] : high[0], low[1] : high[1]] = crossings % 2 == 1
    return mask


def _find_box(polygons: list[Points], shape: tuple[int, int]) -> tuple[Indices, Indices]:
    """Return the pixels, from and to before, that polygons can reach."""
    points = np.concatenate(polygons)
    low = np.floor(points.min(axis=0))
    low = np.clip(low, 0, shape)
    high = np.ceil(points.max(axis=0)) + 1
    high = np.clip(high, low, shape)
    return low.astype(np.int64), high.astype(np.int64)


def _iterate_edges(polygon: Points) -> Iterator[tuple[Points, Points]]:
    """Give where edges start and end, not too many at once."""
    ends = np.roll(polygon, -1, axis=0)
    for first in range(0, len(polygon), _EDGES_AT_ONCE):
        last = first + _EDGES_AT_ONCE
        yield polygon[first:last], ends[first:last]


def _find_crossings(
    starts: Points, ends: Points, shape: tuple[int, int]
) -> tuple[Indices, Indices]:
    """Return, for each edge and line of pixels it crosses, the first pixel behind it.

    Args:
        starts: Of the edges, shape ``(edges, 2)``.
        ends: Of the edges.
        shape: Pixels along i and j; a line of pixels has one ``j``.
    """
    # From the lower end up, so that a keyhole walked both ways crosses at equal places.
    is_swapped = starts[:, 1] > ends[:, 1]
    lower = np.where(is_swapped[:, None], ends, starts)
    upper = np.where(is_swapped[:, None], starts, ends)
    first_lines = _clip_to_line(lower[:, 1], shape[1])
    last_lines = _clip_to_line(upper[:, 1], shape[1])
    edges, lines = _expand_ranges(first_lines, last_lines)
    i_start, j_start = lower[edges].T
    i_end, j_end = upper[edges].T
    # Multiplied before divided: the order decides the last digit, which rounding then cuts.
    i = i_start + (lines - j_start) * (i_end - i_start) / (j_end - j_start)
    behind = np.ceil(np.round(i, _DIGITS))
    return np.clip(behind, 0, shape[0]).astype(np.int64), lines


def _clip_to_line(j: npt.NDArray[np.float64], lines: int) -> Indices:
    """Return the first line of pixels at or behind each coordinate."""
    first = np.clip(np.ceil(j), 0, lines)
    return first.astype(np.int64)


def _expand_ranges(first: Indices, last: Indices) -> tuple[Indices, Indices]:
    """Write out ranges of whole numbers.

    Args:
        first: Where each range begins.
        last: Where it ends; not part of it.

    Returns:
        For each number of each range, which range it is of, and the number.
    """
    counts = last - first
    ranges = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    nth = np.arange(counts.sum()) - starts[ranges]
    return ranges, first[ranges] + nth


def _drop_straight_points(loop: Points) -> Points:
    """Leave out points on straight lines; coordinates are halves, so the test is exact."""
    before = loop - np.roll(loop, 1, axis=0)
    behind = np.roll(loop, -1, axis=0) - loop
    turns = _cross(before, behind)
    corners: Points = loop[turns != 0]
    return corners


def _cross(first: Points, second: Points) -> npt.NDArray[np.float64]:
    product: npt.NDArray[np.float64] = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return product


def _compute_signed_area(loop: Points) -> float:
    """Return the signed area: positive if it runs from the first axis towards the second."""
    i, j = loop.T
    twice_the_area = i @ np.roll(j, -1) - j @ np.roll(i, -1)
    return float(twice_the_area) / 2


def _get_top(polygon: Points) -> float:
    return float(polygon[:, 1].min())


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
    outline = outlines[number]
    end = np.array([start[0], height])
    keyhole = [end, start, hole_points, start, end]
    outlines[number] = np.vstack([outline[: edge + 1], *keyhole, outline[edge + 1 :]])


def _start_keyhole(hole: Points) -> tuple[Points, Points]:
    """Return a point on a hole's top edge, and the hole's points from behind it, in order."""
    i, j = hole.T
    top = int(np.lexsort((i, j))[0])
    before = (top - 1) % len(hole)
    behind = (top + 1) % len(hole)
    # One of the two neighbours lies towards larger i; the start lies on the edge to it.
    if i[behind] > i[top]:
        neighbour = behind
        first_point = behind
    else:
        neighbour = before
        first_point = top
    share = _KEYHOLE_OFFSET / (i[neighbour] - i[top])
    start = hole[top] + share * (hole[neighbour] - hole[top])
    return start, np.roll(hole, -first_point, axis=0)


def _find_edge_above(polygon: Points, start: Points) -> tuple[float, int]:
    """Return where going up from ``start`` first meets a polygon: ``j``, and after which point."""
    ends = np.roll(polygon, -1, axis=0)
    starts_before = polygon[:, 0] <= start[0]
    ends_before = ends[:, 0] <= start[0]
    edges = np.flatnonzero(starts_before != ends_before)
    i_start, j_start = polygon[edges].T
    i_end, j_end = ends[edges].T
    j = j_start + (start[0] - i_start) / (i_end - i_start) * (j_end - j_start)
    is_above = j < start[1]
    if not is_above.any():
        return -np.inf, 0
    nearest = int(np.argmax(np.where(is_above, j, -np.inf)))
    return float(j[nearest]), int(edges[nearest])
