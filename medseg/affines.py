"""Affines: where voxels lie in the patient, and how the axes of two grids run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

Affine = npt.NDArray[np.float64]
"""4×4, voxel index → patient position in mm, RAS+ (NIfTI convention)."""


def largest_corner_distance(
    affine: Affine, other: Affine, shape: Sequence[int]
) -> float:
    """Return how far apart two affines put a corner voxel, in mm along one axis of the patient.

    Two affine maps differ most at a corner, so no other voxel needs a look.

    Args:
        affine: 4×4, voxel index → mm.
        other: The affine to compare with.
        shape: Voxels along i, j and k.
    """
    i, j, k = shape
    grid = np.meshgrid((0, i - 1), (0, j - 1), (0, k - 1))
    corners = np.array(grid).reshape(3, -1)
    homogeneous = np.vstack([corners, np.ones(8)])
    apart = (affine - other) @ homogeneous
    return float(np.abs(apart[:3]).max())


def find_turn(own: Affine, wanted: Affine) -> Affine | None:
    """Return how axes are reordered to run along those of another affine.

    Args:
        own: 4×4, voxel index → mm.
        wanted: The affine whose axes they should run along.

    Returns:
        Shape ``(3, 3)``; each row tells which own axis runs along one wanted axis: 1, or −1 from
        its other end. ``None`` where no order of the axes does.
    """
    turn = np.rint(
        np.linalg.solve(_get_directions(wanted), _get_directions(own))
    )
    is_reordering = np.array_equal(turn @ turn.T, np.eye(3))
    return turn if is_reordering else None


def _get_directions(affine: Affine) -> Affine:
    """Return the unit vectors along which the axes run, as columns."""
    steps = affine[:3, :3]
    directions: Affine = steps / np.linalg.norm(steps, axis=0)
    return directions


def make_affine(spacing: Sequence[float], slices: int, name: str) -> Affine:
    """Return the affine of voxels of a size, whose axes run to the right, the front and the head.

    Args:
        spacing: mm along i, j and k; two are enough for one slice.
        slices: Voxels along k.
        name: What people call the volume.

    Raises:
        GeometryError: If they are no lengths.
    """
    sizes = parse_numbers(spacing, name)
    if sizes.shape == (2,) and slices == 1:
        sizes = np.append(sizes, 1.0)
    if (
        sizes.shape != (3,)
        or not np.isfinite(sizes).all()
        or not (sizes > 0).all()
    ):
        raise GeometryError(
            f"a spacing is three lengths in mm above 0, got {sizes.tolist()}",
            source=name,
        )
    return np.diag([*sizes, 1.0])


def parse_numbers(given: npt.ArrayLike | None, name: str) -> Affine:
    """Return what was given as an affine or a spacing as numbers.

    Raises:
        GeometryError: If it is none.
    """
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(
            "an affine is 4×4 numbers and a spacing three, got a "
            f"{type(given).__name__} that is neither",
            source=name,
        ) from error
