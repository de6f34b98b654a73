"""Values and colours of label pictures: packed into numbers, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.volume import Array

NEAR = 32.0
"""How far a colour may be from a label's to count as that colour."""

SURE = 12.0
"""How far off JPEG leaves whole areas; within it, no neighbour is asked."""

SMALLEST_GAP = 16.0
"""Labels whose values or colours are closer than this are told apart exactly."""

_MOST_UNEVEN = 8
"""How much an area of one colour may vary in a channel from voxel to voxel."""

Points = npt.NDArray[np.float32]
"""Colours or grey levels as points, shape ``(n, 3)`` or ``(n, 1)``."""

Distances = npt.NDArray[np.float32]
"""Euclidean, in RGB or grey levels."""

Counts = npt.NDArray[np.int64]
"""Whole numbers: how many, or which."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KnownCodes:
    """The values or packed colours that mean something, as points.

    Attributes:
        points: Shape ``(n, channels)``.
        indices: Label index of each, shape ``(n,)``.
        gaps: Distance from each to the nearest one of another label, shape ``(n,)``.
    """

    points: Points
    indices: Counts
    gaps: Distances

    @classmethod
    def from_mapping(
        cls, index_of: Mapping[int, int], channels: int
    ) -> KnownCodes:
        """Make points of codes.

        Args:
            index_of: Value or packed colour → label index.
            channels: 3 where codes are packed colours, else 1.
        """
        points = to_points(np.array(list(index_of)), channels)
        indices = np.array(list(index_of.values()))
        distances = measure_distances(points, points)
        is_same = indices[:, None] == indices
        distances[is_same] = np.inf
        return cls(points, indices, distances.min(axis=1, initial=np.inf))

    @property
    def near_limits(self) -> Distances:
        """How far off a colour may be to be each of these."""
        return self._limit(NEAR, self.gaps / 2)

    @property
    def sure_limits(self) -> Distances:
        """How far off it may be so that no neighbour is asked."""
        return self._limit(SURE, self.gaps / 4)

    def _limit(self, most: float, share: Array) -> Distances:
        limits = np.minimum(most, share)
        limits[self.gaps < SMALLEST_GAP] = 0
        return limits.astype(np.float32)


def pack(colour: Any) -> Any:
    """Make one number of a colour, or of each colour in an array ``(3, …)`` of 4-byte integers."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def unpack(code: Any) -> Any:
    """Return the colour that a number stands for, or red, green and blue of each in an array."""
    return code >> 16, code >> 8 & 255, code & 255


def to_points(codes: Array, channels: int) -> Points:
    """Return packed colours as ``(n, 3)``, or values as ``(n, 1)``."""
    if channels == 1:
        column = codes[:, None]
        return column.astype(np.float32)
    colours = np.stack(unpack(codes), axis=1)
    return colours.astype(np.float32)


def measure_distances(points: Points, others: Points) -> Distances:
    """Return Euclidean distances, shape ``(points, others)``."""
    shape = (len(points), len(others))
    squares = np.zeros(shape, np.float32)
    for own, other in zip(points.T, others.T, strict=True):
        difference = own[:, None] - other
        squares += difference**2
    return np.sqrt(squares)


def find_solid(codes: Array) -> Mask:
    """Tell which voxels have the same code as the eight around them in their plane.

    Args:
        codes: Shape ``(i, j, k)``.
    """
    along_i = _find_runs(codes, axis=0)
    along_j = _find_runs(codes, axis=1)
    solid = along_i & along_j
    # With the neighbours along i in a run along j, the corners are the same, too.
    solid &= np.roll(along_j, 1, axis=0)
    solid &= np.roll(along_j, -1, axis=0)
    solid[[0, -1]] = False
    solid[:, [0, -1]] = False
    return solid


def _find_runs(codes: Array, axis: int) -> Mask:
    """Tell which voxels have the same code as those before and after; ends count as neighbours."""
    before = np.roll(codes, 1, axis)
    after = np.roll(codes, -1, axis)
    runs: Mask = before == codes
    runs &= after == codes
    return runs


def find_level(codes: Array, channels: int) -> Mask:
    """Tell which voxels differ little from the eight around them, as JPEG leaves areas.

    Args:
        codes: Values or packed colours, shape ``(i, j, k)``.
        channels: 3 where codes are packed colours, else 1.
    """
    level = np.ones(codes.shape, np.bool_)
    if channels == 3:
        parts = [part.astype(np.uint8) for part in unpack(codes)]
    else:
        parts = [codes]
    for part in parts:
        highest = _spread(part, np.maximum)
        lowest = _spread(part, np.minimum)
        level &= highest - lowest <= _MOST_UNEVEN
    level[[0, -1]] = False
    level[:, [0, -1]] = False
    return level


def _spread(part: Array, choose: np.ufunc) -> Array:
    """Return the highest or lowest number around each voxel in its plane."""
    for axis in (0, 1):
        before = np.roll(part, 1, axis)
        after = np.roll(part, -1, axis)
        part = choose(choose(before, after), part)
    return part


def is_between(point: Points, ends: Points) -> bool:
    """Tell whether a colour may be a mixture of two: within ``NEAR`` of the line between."""
    offsets = point - ends
    for start, offset in zip(ends, offsets, strict=True):
        lines = ends - start
        lengths = np.sum(lines**2, axis=1)
        lengths = np.maximum(lengths, 1)
        share = lines @ offset / lengths
        is_inside = (share > 0) & (share < 1)
        nearest = share[:, None] * lines
        distance = np.linalg.norm(offset - nearest, axis=1)
        is_close = distance <= NEAR
        if np.any(is_inside & is_close):
            return True
    return False
