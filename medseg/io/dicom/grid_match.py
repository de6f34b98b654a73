"""Where the pixels of a frame lie among the voxels of a volume: exactly on some, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame, Vector
from medseg.io.dicom.volume import Slices
from medseg.io.voxels import check_size
from medseg.volume import Affine, Volume

Indices = npt.NDArray[np.intp]

TOLERANCE = 0.1
"""How far a pixel may lie from the centre of its voxel, in voxels."""

_SAME_PLACE_MM = 0.01
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class VoxelMatch:
    """Which voxel each pixel of a frame is.

    Attributes:
        start: The first pixel's voxel; may lie outside the volume.
        right: From one pixel of a row to the next, in voxels: one axis, forwards or backwards.
        down: From one row to the next.
    """

    start: Indices
    right: Indices
    down: Indices

    @classmethod
    def of(cls, frame: Frame, like: Volume, name: str) -> VoxelMatch:
        """Find the voxels that a frame's pixels are, however it is flipped, cropped or turned.

        Raises:
            GeometryError: If the pixels are no voxels of ``like``.
        """
        exact = np.array(_in_voxels(frame, like.affine))
        nearest = np.rint(exact)
        corners = np.array(
            [(1, 0, 0), (1, frame.columns - 1, 0), (1, 0, frame.rows - 1)]  # start, right, down
        )
        away = float(np.abs(corners @ (exact - nearest)).max())
        _, right, down = nearest
        if away > TOLERANCE or not right @ right == down @ down == 1 or right @ down:
            raise GeometryError(
                f"{name}: its pixels are not voxels of the scan (the grids differ by up to "
                f"{away:.2g} voxels); resample it to the scan's grid first"
            )
        return cls(*nearest.astype(np.intp))

    def voxels(self, rows: Indices, columns: Indices) -> Indices:
        """Return the indices of some pixels' voxels, shape ``(3, pixels)``."""
        steps = self.right[:, None] * columns + self.down[:, None] * rows
        found: Indices = self.start[:, None] + steps
        return found


def build_grid(frames: Sequence[Frame], gap: float | None, name: str) -> Volume:
    """Return the grid that frames lie on, slices between them included; its voxels are 0.

    Args:
        frames: Parallel frames of one size, several may share a place.
        gap: Distance between slices, if the header states it.
        name: What errors call the file.

    Raises:
        GeometryError: If the frames differ in size or direction, or their distances are no
            multiples of one gap.
    """
    first = frames[0]
    if any(not _alike(first, frame) for frame in frames):
        raise GeometryError(f"{name}: its frames differ in size or direction; give its scan too")
    positions = np.array([frame.position for frame in frames])
    distances = (positions - first.position) @ first.normal
    numbers, gap = _numbered(distances, gap, first.thickness)
    step = _step(positions, numbers, first.normal * gap)
    ras = np.eye(4)
    ras[:3, 0] = _LPS_TO_RAS @ first.orientation[0] * first.spacing[1]
    ras[:3, 1] = _LPS_TO_RAS @ first.orientation[1] * first.spacing[0]
    ras[:3, 2] = _LPS_TO_RAS @ step
    ras[:3, 3] = _LPS_TO_RAS @ (positions - numbers[:, None] * step).mean(axis=0)
    shape = (first.columns, first.rows, int(numbers.max()) + 1)
    check_size(shape, name)
    return Volume(np.broadcast_to(np.zeros(1, np.uint8), (1, *shape)), ras, name)


def require_same_frame_of_reference(uid: str, like: Volume, name: str) -> None:
    """Refuse an object drawn in another frame of reference than its scan's, where both say.

    Raises:
        GeometryError: If they differ.
    """
    own = like.header.frame_of_reference if isinstance(like.header, Slices) else ""
    if uid and own and uid != own:
        raise GeometryError(
            f"{name}: was drawn in another frame of reference than the scan's, so their places "
            "cannot be compared; give the scan it was drawn on"
        )


def _in_voxels(frame: Frame, affine: Affine) -> tuple[Vector, Vector, Vector]:
    """Return a frame's first pixel and its steps along a row and a column, in voxels."""
    to_voxels = np.linalg.inv(affine[:3, :3])
    start: Vector = to_voxels @ (_LPS_TO_RAS @ frame.position - affine[:3, 3])
    along_row: Vector = to_voxels @ (_LPS_TO_RAS @ frame.orientation[0]) * frame.spacing[1]
    along_column: Vector = to_voxels @ (_LPS_TO_RAS @ frame.orientation[1]) * frame.spacing[0]
    return start, along_row, along_column


def _alike(one: Frame, other: Frame) -> bool:
    return (
        (one.rows, one.columns) == (other.rows, other.columns)
        and np.allclose(one.spacing, other.spacing, rtol=1e-3)
        and np.allclose(one.orientation, other.orientation, atol=1e-3)
    )


def _numbered(
    distances: Vector, gap: float | None, thickness: float | None
) -> tuple[Vector, float]:
    """Return the slice number of each frame, from 0, and the gap between slices."""
    places = np.unique(distances)
    gaps = np.diff(places)
    gaps = gaps[gaps > _SAME_PLACE_MM]
    stated = gap if gap and np.isfinite(gap) and gap > 0 else None
    if not gaps.size:
        return np.zeros(len(distances)), stated or thickness or 1.0
    if stated is None or not _multiples(gaps, stated):
        stated = float(gaps.min())
    return np.rint((distances - places[0]) / stated), stated


def _multiples(gaps: Vector, gap: float) -> bool:
    counts = gaps / gap
    return bool((counts > 1 - TOLERANCE).all() and np.abs(counts - np.rint(counts)).max() < 0.05)


def _step(positions: Vector, numbers: Vector, straight: Vector) -> Vector:
    """Return the vector between slices by least squares; ``straight`` if there is but one."""
    centred = numbers - numbers.mean()
    if not centred.any():
        return straight
    step: Vector = centred @ positions / (centred @ centred)
    return step
