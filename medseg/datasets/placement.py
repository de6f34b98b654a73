"""A label map that was cropped or turned around, voxel on voxel on the grid of its scan.

Viewers crop a label map to what is painted, and store its axes in their own order. What cannot be
placed voxel on voxel is refused, not resampled.
"""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError
from medseg.volume import Array, Volume

_MAX_OFFSET_VOXELS = 0.02
"""How far a grid may be off: viewers store few digits."""


def place_on_grid(label: Volume, like: Volume) -> Array:
    """Place a label map voxel on voxel into the grid of a scan.

    Args:
        label: One channel; its grid may be a part of the scan's, with axes turned around.
        like: The scan.

    Returns:
        The label map's values, shape ``(i, j, k)`` of the scan; 0 where it does not reach.

    Raises:
        GeometryError: If its voxels do not coincide with the scan's.
    """
    values: Array = label.array[0]
    if like.on_same_grid(label):
        return values
    turn, start = _find_placement(label, like)
    labelled = np.argwhere(values)
    positions = labelled @ turn.T + start
    is_outside = (positions < 0) | (positions >= like.shape)
    if is_outside.any():
        raise GeometryError(
            "parts of the label lie outside the scan; check that it belongs to this scan"
        )
    source = tuple(labelled.T)
    target = tuple(positions.T)
    placed = np.zeros(like.shape, values.dtype, order="F")
    placed[target] = values[source]
    return placed


def _find_placement(label: Volume, like: Volume) -> tuple[Array, Array]:
    """Return the turn (3×3) and start (3) in whole voxels from a label's indices to a scan's."""
    to_scan = np.linalg.solve(like.affine, label.affine)
    exact_turn = to_scan[:3, :3]
    exact_start = to_scan[:3, 3]
    turn = np.rint(exact_turn)
    start = np.rint(exact_start)
    # A wrong turn moves far voxels most, so it counts times the label's size.
    turn_offset = np.abs(exact_turn - turn) @ np.array(label.shape)
    start_offset = np.abs(exact_start - start)
    offset = float(np.max(turn_offset + start_offset))
    volume_ratio = abs(np.linalg.det(turn))
    keeps_every_voxel = round(volume_ratio) == 1
    if offset > _MAX_OFFSET_VOXELS or not keeps_every_voxel:
        raise GeometryError(
            f"the label's voxels are not the scan's (they are up to {offset:.2f} voxels off); "
            "export the label on the scan's own grid: in 3D Slicer, with the scan as source volume"
        )
    return turn.astype(int), start.astype(int)
