"""Values and colours of label pictures: packed into numbers, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.labels import RGB
from medseg.volume import Array

NEAR = 32.0
"""How far a colour may be from a label's to count as that colour."""

SURE = 12.0
"""How far off JPEG leaves whole areas; within it, no neighbour is asked."""

SMALLEST_GAP = 16.0
"""Labels whose values or colours are closer than this are told apart exactly."""

Points = npt.NDArray[np.float32]
"""Colours or grey levels as points, shape ``(n, 3)`` or ``(n, 1)``."""

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
    indices: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.float32]

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
    def near_limits(self) -> npt.NDArray[np.float32]:
        """How far off a colour may be to be each of these."""
        return self._limit(NEAR, self.gaps / 2)

    @property
    def sure_limits(self) -> npt.NDArray[np.float32]:
        """How far off it may be so that no neighbour is asked."""
        return self._limit(SURE, self.gaps / 4)

    def _limit(self, most: float, share: Array) -> npt.NDArray[np.float32]:
        limits = np.minimum(most, share)
        limits[self.gaps < SMALLEST_GAP] = 0
        return limits.astype(np.float32)


def pack(colour: Any) -> Any:
    """Make one number of a colour, or of each colour in an array ``(3, …)`` of 4-byte integers."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def unpack(code: int) -> RGB:
    """Return the colour that a number stands for."""
    return code >> 16, code >> 8 & 255, code & 255


def to_points(codes: Array, channels: int) -> Points:
    """Return packed colours as ``(n, 3)``, or values as ``(n, 1)``."""
    if channels == 1:
        return codes[:, None].astype(np.float32)
    parts = [codes >> 16, codes >> 8 & 255, codes & 255]
    return np.stack(parts, axis=1).astype(np.float32)


def measure_distances(
    points: Points, others: Points
) -> npt.NDArray[np.float32]:
    """Return Euclidean distances, shape ``(points, others)``."""
    squares = np.zeros((len(points), len(others)), np.float32)
    for channel in range(points.shape[1]):
        difference = points[:, channel, None] - others[:, channel]
        squares += difference**2
    return np.sqrt(squares)


def find_solid(codes: Array) -> Mask:
    """Tell which voxels have the same code as the eight around them in their plane.

    Args:
        codes: Shape ``(i, j, k)``.
    """
    solid = np.zeros(codes.shape, np.bool_)
    if min(codes.shape[:2]) < 3:
        return solid
    same_as_next = codes[1:] == codes[:-1]
    in_columns = same_as_next[1:] & same_as_next[:-1]
    middle = codes[1:-1]
    beside = middle[:, 1:] == middle[:, :-1]
    in_rows = beside[:, 1:] & beside[:, :-1]
    around = in_columns[:, 1:-1] & in_columns[:, :-2] & in_columns[:, 2:]
    solid[1:-1, 1:-1] = in_rows & around
    return solid


def is_between(point: Points, ends: Points) -> bool:
    """Tell whether a colour may be a mixture of two others: within ``NEAR`` of the line between."""
    to_point = point - ends
    for start, offset in zip(ends, to_point, strict=True):
        along = ends - start
        lengths = np.maximum((along**2).sum(axis=1), 1)
        share = np.clip(along @ offset / lengths, 0, 1)
        off = offset - share[:, None] * along
        is_inside = (share > 0) & (share < 1)
        if np.any(is_inside & ((off**2).sum(axis=1) <= NEAR**2)):
            return True
    return False
