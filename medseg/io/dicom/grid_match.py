"""Where the pixels of a frame lie among the voxels of a volume: exactly on some, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame, Frames, Vector
from medseg.io.dicom.geometry import (
    SAME_POSITION_MM,
    are_parallel,
    fit_affine,
    fit_step,
    get_positions,
)
from medseg.io.dicom.volume import Slices
from medseg.io.voxels import check_size
from medseg.volume import Affine, Volume

Indices = npt.NDArray[np.intp]

TOLERANCE = 0.1
"""How far a pixel may lie from the centre of its voxel, in voxels."""

_DIRECTION_TOLERANCE = 1e-3
_MULTIPLE_TOLERANCE = 0.05
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class VoxelMatch:
    """Which voxel each pixel of a frame is.

    Attributes:
        start: The first pixel's voxel; may lie outside the volume.
        column_step: From a pixel to the next one in its row, in voxels: one axis, forwards or
            backwards.
        row_step: From a pixel to the next one in its column.
    """

    start: Indices
    column_step: Indices
    row_step: Indices

    @classmethod
    def find(cls, frame: Frame, like: Volume) -> VoxelMatch:
        """Find the voxels that a frame's pixels are, however it is flipped, cropped or turned.

        Raises:
            GeometryError: If the pixels are no voxels of ``like``.
        """
        exact = _locate_frame(frame, like.affine)
        nearest = np.rint(exact)
        offsets = exact - nearest
        error = _measure_error(frame, offsets)
        _, column_step, row_step = nearest
        if error > TOLERANCE or not _are_axes(column_step, row_step):
            raise GeometryError(
                f"the pixels are not voxels of the scan (the grids differ by up to {error:.2g} "
                "voxels); resample it to the scan's grid first"
            )
        indices = nearest.astype(np.intp)
        return cls(*indices)

    def locate(self, rows: Indices, columns: Indices) -> Indices:
        """Return the indices of some pixels' voxels, shape ``(3, pixels)``."""
        start = self.start[:, None]
        column_step = self.column_step[:, None]
        row_step = self.row_step[:, None]
        along_rows = column_step * columns
        along_columns = row_step * rows
        voxels: Indices = start + (along_rows + along_columns)
        return voxels


def build_grid(frames: Frames, gap: float | None, source: Path) -> Volume:
    """Return the grid that frames lie on, slices between them included; its voxels are 0.

    Args:
        frames: Parallel frames of one size, several may share a position.
        gap: Distance between slices in mm, if the header states it.
        source: The file, for errors and as the volume's source.

    Raises:
        GeometryError: If the frames differ in size or direction.
        ScanError: If the grid is larger than any scan.
    """
    first = frames[0]
    for frame in frames:
        if not are_parallel(first, frame, _DIRECTION_TOLERANCE):
            raise GeometryError(
                "the frames differ in size or direction; give the scan as well"
            )
    affine, planes = _fit_grid(frames, gap)
    shape = (first.columns, first.rows, planes)
    check_size(shape, source)
    # One 0 in memory stands for every voxel.
    background = np.zeros(1, np.uint8)
    voxels = np.broadcast_to(background, (1, *shape))
    return Volume(voxels, affine, source.name)


def require_same_frame_of_reference(uid: str, like: Volume) -> None:
    """Refuse an object drawn in another frame of reference than its scan's, where both say.

    Raises:
        GeometryError: If they differ.
    """
    if not isinstance(like.header, Slices):
        return
    scan_uid = like.header.frame_of_reference
    if uid and scan_uid and uid != scan_uid:
        raise GeometryError(
            "it was drawn in another frame of reference than the scan's, so positions in them "
            "cannot be compared; give the scan it was drawn on"
        )


def _fit_grid(frames: Frames, gap: float | None) -> tuple[Affine, int]:
    """Return voxel → RAS mm of the grid that frames lie on, and how many planes it has."""
    first = frames[0]
    positions = get_positions(frames)
    offsets = positions - first.position
    distances = offsets @ first.normal
    numbers, gap = _number_slices(distances, gap, first.thickness)
    if numbers.any():
        step = fit_step(positions, numbers)
    else:
        step = first.normal * gap
    affine = fit_affine(frames, numbers, step)
    planes = int(numbers.max()) + 1
    return affine, planes


def _locate_frame(frame: Frame, affine: Affine) -> Vector:
    """Return a frame's first pixel, its column step and its row step in voxels, shape (3, 3)."""
    rotation = affine[:3, :3]
    translation = affine[:3, 3]
    to_voxels = np.linalg.inv(rotation)
    position = _LPS_TO_RAS @ frame.position
    origin = position - translation
    column_step = _LPS_TO_RAS @ frame.column_step
    row_step = _LPS_TO_RAS @ frame.row_step
    in_mm = np.array([origin, column_step, row_step])
    in_voxels: Vector = in_mm @ to_voxels.T
    return in_voxels


def _measure_error(frame: Frame, offsets: Vector) -> float:
    """Return how far the frame's corners lie from voxel centres, in voxels.

    Args:
        frame: The frame.
        offsets: Of its start, its column step and its row step, from whole voxels.
    """
    last_i = frame.columns - 1
    last_j = frame.rows - 1
    # How often each corner takes the start, the column step and the row step.
    first = (1, 0, 0)
    last_column = (1, last_i, 0)
    last_row = (1, 0, last_j)
    corners = np.array([first, last_column, last_row])
    errors = np.abs(corners @ offsets)
    return float(errors.max())


def _are_axes(column_step: Vector, row_step: Vector) -> bool:
    """Tell whether two steps are one voxel each, along different axes."""
    # In whole voxels a vector of length 1 lies along an axis.
    if column_step @ column_step != 1:
        return False
    if row_step @ row_step != 1:
        return False
    return bool(column_step @ row_step == 0)


def _number_slices(
    distances: Vector, stated_gap: float | None, thickness: float | None
) -> tuple[Vector, float]:
    """Return the slice number of each frame, from 0, and the gap between slices in mm.

    Args:
        distances: Of each frame, along the normal, in mm.
        stated_gap: What the header says; used if it fits the distances.
        thickness: Slice thickness, used if there is one slice and no gap is stated.
    """
    if not _is_valid_gap(stated_gap):
        stated_gap = None
    sorted_distances = np.unique(distances)
    gaps = np.diff(sorted_distances)
    gaps = gaps[gaps > SAME_POSITION_MM]
    if not gaps.size:
        numbers = np.zeros(len(distances))
        return numbers, stated_gap or thickness or 1.0
    gap = stated_gap
    if gap is None or not _are_multiples(gaps, gap):
        gap = float(gaps.min())
    heights = distances - distances.min()
    numbers = np.rint(heights / gap)
    return numbers, gap


def _is_valid_gap(gap: float | None) -> bool:
    if gap is None or not np.isfinite(gap):
        return False
    return gap > 0


def _are_multiples(gaps: Vector, gap: float) -> bool:
    """Tell whether gaps are whole numbers of another, at least one."""
    ratios = gaps / gap
    smallest = ratios.min()
    if smallest <= 1 - TOLERANCE:
        return False
    errors = np.abs(ratios - np.rint(ratios))
    return bool(errors.max() < _MULTIPLE_TOLERANCE)
