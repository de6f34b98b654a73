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
from medseg.padding import Padding
from medseg.volume import Affine

Image = npt.NDArray[np.float32]

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
        gaps = np.diff(distances)
        smallest_gap = float(gaps.min())
        planes = round(length / smallest_gap) + 1
        most_planes = _MOST_PLANES_PER_SLICE * len(frames)
        planes = min(planes, most_planes)
        step = length / (planes - 1)
        scale = np.diag([1.0, 1.0, step, 1.0])
        affine = affine_per_mm @ scale
        slice_positions = distances / step
        return cls(affine, slice_positions, planes)

    @property
    def nearest_planes(self) -> tuple[int, ...]:
        """The plane of the grid that each slice is nearest to."""
        planes = np.rint(self.slice_positions).astype(int)
        return tuple(planes.tolist())

    def resample(self, image: Image, source: Path) -> Image:
        """Return slices interpolated linearly onto the grid.

        Args:
            image: Shape ``(i, j, slices)``.
            source: The series' file or folder, for errors.

        Returns:
            Shape ``(i, j, k)``.

        Raises:
            ScanError: If there is no memory for it.
        """
        i_size, j_size, _ = image.shape
        shape = (i_size, j_size, self.planes)
        resampled = empty_image(shape, source)
        for k in range(self.planes):
            below, weight = self._locate_plane(k)
            above = below + 1
            lower = image[:, :, below]
            upper = image[:, :, above]
            resampled[:, :, k] = lower * (1 - weight) + upper * weight
        return resampled

    def resample_padding(
        self, padding: Padding | None, source: Path
    ) -> Padding | None:
        """Return the voxels of the grid that padding has a part in.

        Args:
            padding: Of the slices.
            source: As for ``resample``.
        """
        if not padding:
            return None
        share = padding.get_channel(0).astype(np.float32)
        resampled = self.resample(share, source)
        return Padding.from_mask(resampled[None] > 0)

    def _locate_plane(self, k: int) -> tuple[int, np.float32]:
        """Return the slice below a plane of the grid, and the weight of the slice above."""
        positions = self.slice_positions
        slices_up_to_k = int(np.searchsorted(positions, k, side="right"))
        below = max(slices_up_to_k - 1, 0)
        # The last plane lies between the last two slices.
        last_but_one = len(positions) - 2
        below = min(below, last_but_one)
        start = positions[below]
        end = positions[below + 1]
        weight = (k - start) / (end - start)
        weight = max(weight, 0.0)
        weight = min(weight, 1.0)
        return below, np.float32(weight)

    def describe(self) -> str:
        """Say in words what was done, for a warning."""
        slices = len(self.slice_positions)
        slice_step = self.affine[:3, 2]
        spacing = np.linalg.norm(slice_step)
        return (
            f"the {slices} slices lie at uneven distances; they were interpolated onto "
            f"{self.planes} planes, {spacing:.2f} mm apart"
        )
