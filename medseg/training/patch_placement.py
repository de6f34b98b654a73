"""Where in a case a training patch comes from, and how it is turned, zoomed and mirrored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.bundle.spec import AugmentationSpec
from medseg.datasets.cache import CachedCase

ANISOTROPIC = 3.0
"""From this ratio of spacings on, patches are turned and zoomed in the fine plane only."""

Patch = tuple[int, int, int]
"""Size of a patch in voxels along x, y and z; in 2D z is 1."""

Matrix = npt.NDArray[np.float64]
"""3×3, patch voxels → volume voxels."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a patch's voxels come from: ``x_volume = centre + matrix @ (x_patch - middle)``.

    Attributes:
        centre: Position in the volume, in voxels, of the patch's middle.
        matrix: 3×3, patch voxels → volume voxels.
    """

    centre: npt.NDArray[np.float64]
    matrix: Matrix

    @property
    def is_crop(self) -> bool:
        """Whether the patch is a crop, perhaps mirrored, that needs no interpolation."""
        return bool(np.array_equal(np.abs(self.matrix), np.eye(3)))


def draw_placement(
    case: CachedCase,
    patch: Patch,
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    *,
    foreground: bool,
    dims: int,
) -> Placement:
    """Choose where in a case a patch comes from, and how it is turned, zoomed and mirrored.

    Args:
        case: The case.
        patch: Its size in voxels.
        augmentation: How often and how much.
        rng: Source of chance.
        foreground: Whether to centre on a labelled voxel, if the case has one; else on any voxel
            that is not ignored.
        dims: 2 leaves the third axis alone.
    """
    matrix = _draw_matrix(case.spacing, augmentation, rng, dims)
    voxel = _draw_voxel(case, rng, foreground=foreground)
    centre = []
    for position, length, size in zip(voxel, case.shape, patch, strict=True):
        centre.append(_snap(_keep_inside(float(position), length, size), size))
    return Placement(np.array(centre), matrix)


def _draw_voxel(
    case: CachedCase, rng: np.random.Generator, *, foreground: bool
) -> Sequence[int]:
    """Draw the voxel that a patch is centred on, if it can be."""
    if foreground and case.foreground:
        labels = sorted(case.foreground)
        voxels = case.foreground[labels[rng.integers(len(labels))]]
    elif case.annotated is not None and len(case.annotated):
        # Where most voxels are ignored, patches from anywhere would teach nothing.
        voxels = case.annotated
    else:
        return [int(rng.integers(length)) for length in case.shape]
    voxel = voxels[rng.integers(len(voxels))]
    return [int(position) for position in np.unravel_index(voxel, case.shape)]


def _keep_inside(position: float, length: int, size: int) -> float:
    """Move the middle of a patch until the patch lies inside, if the case is not smaller."""
    if length <= size:
        return (length - 1) / 2
    half = (size - 1) / 2
    return min(max(position, half), length - 1 - half)


def _snap(position: float, size: int) -> float:
    """Move the middle of a patch until its first voxel lies on a voxel of the case.

    A plain crop must hit voxels, and the middle of an even number lies between two of them.
    """
    half = (size - 1) / 2
    return math.floor(position - half + 0.5) + half


def _draw_matrix(
    spacing: tuple[float, float, float],
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    dims: int,
) -> Matrix:
    """Draw how a patch is turned, zoomed and mirrored."""
    # Chance is drawn whether used or not, so that one setting does not shift another's draws.
    is_turned = rng.random() < augmentation.rotation
    is_zoomed = rng.random() < augmentation.scaling
    angles = np.radians(rng.uniform(-1, 1, 3) * augmentation.rotation_degrees)
    zoom = rng.uniform(*augmentation.scaling_range)
    is_mirrored = rng.random(3) < 0.5
    through_plane = _through_plane_axis(spacing, dims)
    matrix = np.eye(3)
    if is_turned:
        matrix = _rotate(angles, spacing, through_plane)
    if is_zoomed:
        factors = np.full(3, 1 / zoom)
        if through_plane is not None:
            factors[through_plane] = 1.0
        matrix = matrix @ np.diag(factors)
    signs = np.ones(3)
    for axis in augmentation.mirror_axes:
        if axis < dims and is_mirrored[axis]:
            signs[axis] = -1.0
    return matrix @ np.diag(signs)


def _through_plane_axis(
    spacing: tuple[float, float, float], dims: int
) -> int | None:
    """Return the axis that patches are not turned or zoomed along; ``None`` in isotropic 3D."""
    if dims == 2:
        return 2
    if max(spacing) / min(spacing) >= ANISOTROPIC:
        return int(np.argmax(spacing))
    return None


def _rotate(
    angles: npt.NDArray[np.float64],
    spacing: tuple[float, float, float],
    through_plane: int | None,
) -> Matrix:
    """Return a rotation in mm as a matrix of voxels.

    Args:
        angles: About each axis, in radians.
        spacing: Of the voxels, in mm.
        through_plane: The only axis to rotate about; ``None`` for all.
    """
    matrix = np.eye(3)
    for axis in range(3):
        if through_plane is None or axis == through_plane:
            matrix = matrix @ _rotation_about(axis, angles[axis])
    in_mm = np.diag(spacing)
    return np.linalg.inv(in_mm) @ matrix @ in_mm


def _rotation_about(axis: int, angle: float) -> Matrix:
    first, second = [other for other in range(3) if other != axis]
    cosine = math.cos(angle)
    sine = math.sin(angle)
    matrix = np.eye(3)
    matrix[first, first] = cosine
    matrix[second, second] = cosine
    matrix[first, second] = -sine
    matrix[second, first] = sine
    return matrix
