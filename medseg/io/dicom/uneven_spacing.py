"""Slices at uneven distances → a regular grid, where the user asked for it.

Between two slices an intensity is interpolated linearly. The grid begins at the first slice, ends
at the last, and is as fine as the nearest two slices are, unless that would make it far larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.io.dicom.frames import Frames, Vector
from medseg.io.dicom.geometry import compute_uneven_affine
from medseg.io.voxels import empty_image
from medseg.volume import Affine

_MOST_PLANES_PER_SLICE = 4


@dataclass(frozen=True, slots=True, eq=False)
class UnevenGrid:
    """A regular grid, and where uneven slices lie on it.

    Attributes:
        affine: Voxel of the grid → RAS mm.
        slice_positions: Where each slice lies along ``k``; no whole numbers.
        planes: How many planes the grid has.
    """

    affine: Affine
    slice_positions: Vector
    planes: int

    @classmethod
    def fit(cls, frames: Frames) -> UnevenGrid:
        """Choose the grid for frames in order, one per position.

        Raises:
            GeometryError: If they are not parallel or not in a straight line.
        """
        affine_per_mm, distances = compute_uneven_affine(frames)
        length = float(distances[-1])
        smallest_gap = float(np.diff(distances).min())
        planes = round(length / smallest_gap) + 1
        planes = min(planes, _MOST_PLANES_PER_SLICE * len(frames))
        step = length / (planes - 1)
        scale = np.diag([1.0, 1.0, step, 1.0])
        return cls(affine_per_mm @ scale, distances / step, planes)

    @property
    def nearest_planes(self) -> tuple[int, ...]:
        """The plane of the grid that each slice is nearest to."""
        planes = np.rint(self.slice_positions).astype(int)
        return tuple(planes.tolist())

    def resample(self, image: npt.NDArray[np.float32], source: Path) -> npt.NDArray[np.float32]:
        """Return slices interpolated linearly onto the grid.

        Args:
            image: Shape ``(i, j, slices)``.
            source: The series' file or folder, for errors.

        Returns:
            Shape ``(i, j, k)``.

        Raises:
            ScanError: If there is no memory for it.
        """
        rows_and_columns = image.shape[:2]
        resampled = empty_image((*rows_and_columns, self.planes), source)
        positions = self.slice_positions
        planes = np.arange(self.planes)
        slices_below = np.searchsorted(positions, planes, side="right") - 1
        slices_below = slices_below.clip(0, len(positions) - 2)
        for k, below in enumerate(slices_below.tolist()):
            above = below + 1
            gap = positions[above] - positions[below]
            weight = (k - positions[below]) / gap
            weight = np.float32(min(max(weight, 0.0), 1.0))
            resampled[:, :, k] = image[:, :, below] * (1 - weight) + image[:, :, above] * weight
        return resampled

    def describe(self) -> str:
        """Say in words what was done, for a warning."""
        spacing = np.linalg.norm(self.affine[:3, 2])
        return (
            f"the {len(self.slice_positions)} slices lie at uneven distances; they were "
            f"interpolated onto {self.planes} planes, {spacing:.2f} mm apart"
        )
