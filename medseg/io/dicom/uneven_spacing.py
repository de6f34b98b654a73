"""Slices at uneven distances → a regular grid, where the user asked for it.

Between two slices an intensity is interpolated linearly. The grid begins at the first slice, ends
at the last, and is as fine as the nearest two slices are, unless that would make it far larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.io.dicom.frames import Frame, Vector
from medseg.io.dicom.geometry import compute_uneven_affine
from medseg.io.voxels import empty_image
from medseg.volume import Affine

_MOST_PLANES_PER_SLICE = 4


@dataclass(frozen=True, slots=True, eq=False)
class UnevenGrid:
    """Where uneven slices lie on a regular grid.

    Attributes:
        affine: Voxel of the grid → RAS mm.
        places: Where each slice lies along ``k``; no whole numbers.
        count: How many planes the grid has.
    """

    affine: Affine
    places: Vector
    count: int

    @classmethod
    def of(cls, frames: Sequence[Frame], name: str) -> UnevenGrid:
        """Choose the grid for frames in order, one per place.

        Raises:
            GeometryError: If they are not parallel or not in a straight line.
        """
        along, distances = compute_uneven_affine(frames, name)
        length, nearest = float(distances[-1]), float(np.diff(distances).min())
        count = min(round(length / nearest) + 1, _MOST_PLANES_PER_SLICE * len(frames))
        step = length / (count - 1)
        return cls(along @ np.diag([1.0, 1.0, step, 1.0]), distances / step, count)

    @property
    def nearest_planes(self) -> tuple[int, ...]:
        """The plane of the grid that each slice is nearest to."""
        return tuple(np.rint(self.places).astype(int).tolist())

    def resample(self, image: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
        """Return slices ``(i, j, slices)`` interpolated onto the grid, ``(i, j, k)``."""
        resampled = empty_image((*image.shape[:2], self.count), name)
        below = np.searchsorted(self.places, np.arange(self.count), side="right") - 1
        below = below.clip(0, len(self.places) - 2)
        for k, low in enumerate(below.tolist()):
            start, end = self.places[low : low + 2]
            share = np.float32(min(max((k - start) / (end - start), 0.0), 1.0))
            resampled[:, :, k] = image[:, :, low] * (1 - share) + image[:, :, low + 1] * share
        return resampled

    def said(self) -> str:
        """Say in words what was done."""
        return (
            f"the {len(self.places)} slices lie at uneven distances; they were interpolated onto "
            f"{self.count} planes, {np.linalg.norm(self.affine[:3, 2]):.2f} mm apart"
        )
