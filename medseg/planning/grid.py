"""Chooses the grid that the network works on: 2D or 3D, and the voxel size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint

ANISOTROPIC = 3.0
"""An axis whose spacing is over this many times the next coarser one's is treated on its own, as
in nnU-Net."""

_MIN_SLICES_3D = 8
"""Fewer slices than this leave nothing to learn along them."""
_COARSE_AXIS_QUANTILE = 0.1
_MIN_PATCH_SHARE = 1 / 8
"""Share of a typical image that a patch should cover, where time is short."""
_MIN_LABEL_VOXELS = 10.0
"""Voxels that must be left across the smallest label."""
_COARSENING = 1.15
"""Factor of one step towards a coarser grid."""

_SPACING = "preprocessing.spacing_mm"
_DIMS = "network.dims"

Spacing = npt.NDArray[np.float64]
"""Voxel size in mm along right, anterior and superior."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid that the network works on.

    Attributes:
        dims: 2 or 3.
        spacing: Voxel size in mm, or in pixels for pictures.
        shape: A typical image's size in such voxels, ``dims`` numbers.
        pictures: Whether the images are pictures, which have no size in mm.
    """

    dims: int
    spacing: tuple[float, float, float]
    shape: tuple[float, ...]
    pictures: bool

    @property
    def axis_spacing(self) -> tuple[float, ...]:
        """The voxel size along the network's axes, ``dims`` numbers."""
        return self.spacing[: self.dims]

    @property
    def spacing_mm(self) -> list[float | None] | None:
        """What ``preprocessing.spacing_mm`` says: 4 digits; ``null`` across slices in 2D."""
        if self.pictures:
            return None
        spacing = [float(f"{mm:.4g}") for mm in self.axis_spacing]
        return [*spacing, None] if self.dims == 2 else [*spacing]


def choose_grid(
    fingerprint: Fingerprint,
    constraints: Constraints,
    pictures: bool,
    patch_voxels: float,
    notes: Notes,
) -> Grid:
    """Choose dimensions and voxel size.

    Args:
        fingerprint: Of the data set.
        constraints: What the plan has to fit.
        pictures: Whether the cases are pictures, not scans.
        patch_voxels: How many voxels a patch can have.
        notes: Takes the reasons.
    """
    if pictures:
        shape = np.median([case.shape for case in fingerprint.typical], axis=0)
        notes[_DIMS] = "Pictures have two dimensions"
        return Grid(
            2, (1.0, 1.0, 1.0), tuple(shape[:2].tolist()), pictures=True
        )
    spacing = _choose_spacing(fingerprint, notes)
    dims = _choose_dims(fingerprint, constraints, notes)
    grid = _make_grid(fingerprint, dims, spacing)
    if constraints.on_gpu:
        return grid
    return _coarsen(fingerprint, grid, patch_voxels, notes)


def _make_grid(fingerprint: Fingerprint, dims: int, spacing: Spacing) -> Grid:
    x, y, z = spacing.tolist()
    shapes = fingerprint.compute_shapes_at((x, y, z))
    typical = np.median(shapes, axis=0).tolist()
    return Grid(dims, (x, y, z), tuple(typical[:dims]), pictures=False)


def _choose_spacing(fingerprint: Fingerprint, notes: Notes) -> Spacing:
    """Return the median spacing, finer along an axis that is coarse in most scans."""
    spacings = fingerprint.spacings
    median: Spacing = np.median(spacings, axis=0)
    if np.allclose(spacings, median, rtol=0.01):
        notes[_SPACING] = f"Every scan has {_format_mm(median)}"
        return median
    notes[_SPACING] = (
        f"The median of {len(spacings)} scans, {_format_mm(median)}"
    )
    coarse = int(np.argmax(median))
    if not _is_anisotropic(fingerprint, median, coarse):
        return median
    next_coarser = np.delete(median, coarse).max()
    finest_tenth = np.quantile(spacings[:, coarse], _COARSE_AXIS_QUANTILE)
    median[coarse] = max(finest_tenth, next_coarser)
    notes[_SPACING] += (
        f"; along the coarse axis {median[coarse]:.3g} mm, from the finest tenth of the scans, "
        "so that those lose little"
    )
    return median


def _is_anisotropic(
    fingerprint: Fingerprint, spacing: Spacing, coarse: int
) -> bool:
    """Tell whether an axis is far coarser than the next one, and has far fewer voxels."""
    shapes = fingerprint.compute_shapes_at(spacing.tolist())
    shape = np.median(shapes, axis=0)
    next_coarser = np.delete(spacing, coarse).max()
    longest = np.delete(shape, coarse).max()
    if spacing[coarse] <= ANISOTROPIC * next_coarser:
        return False
    return bool(shape[coarse] * ANISOTROPIC < longest)


def _choose_dims(
    fingerprint: Fingerprint, constraints: Constraints, notes: Notes
) -> int:
    if constraints.dims is not None:
        notes[_DIMS] = "As requested"
        return constraints.dims
    slices = float(np.median([case.shape[2] for case in fingerprint.typical]))
    if slices < _MIN_SLICES_3D:
        notes[_DIMS] = (
            f"A typical scan has {slices:.0f} slices, too few to learn across them"
        )
        return 2
    notes[_DIMS] = (
        f"A typical scan has {slices:.0f} slices, enough to learn across them"
    )
    return 3


def _coarsen(
    fingerprint: Fingerprint, grid: Grid, patch_voxels: float, notes: Notes
) -> Grid:
    """Coarsen a grid until a patch covers enough of an image, or small labels would be lost."""
    diameter = _measure_smallest_label(fingerprint)
    coarsest = diameter / _MIN_LABEL_VOXELS
    full = grid
    while patch_voxels < _MIN_PATCH_SHARE * np.prod(grid.shape):
        spacing = _coarsen_finest_axes(grid)
        changed = spacing[spacing != grid.spacing]
        if changed.max() > coarsest:
            break
        grid = _make_grid(fingerprint, grid.dims, spacing)
    if grid is full:
        return full
    label_voxels = diameter / max(grid.axis_spacing)
    notes[_SPACING] += (
        f"; coarsened to {_format_mm(np.array(grid.spacing))}, because on a CPU a patch at full "
        f"resolution would cover too little of a scan. Labels keep {label_voxels:.0f} or more "
        "voxels across"
    )
    x, y, z = (float(f"{mm:.3g}") for mm in grid.spacing)
    return replace(grid, spacing=(x, y, z))


def _coarsen_finest_axes(grid: Grid) -> Spacing:
    """Return a grid's spacing, one step coarser along the fine axes: until all are alike."""
    spacing = np.array(grid.spacing)
    # A view: what changes here changes in `spacing`.
    axes = spacing[: grid.dims]
    fine = axes < axes.min() * _COARSENING
    axes[fine] *= _COARSENING
    return spacing


def _measure_smallest_label(fingerprint: Fingerprint) -> float:
    """Return the diameter in mm of a ball as large as the smallest label typically is."""
    typical = []
    for value in fingerprint.label_values:
        volumes = fingerprint.list_label_volumes_mm3(value)
        typical.append(float(np.median(volumes)))
    smallest = min(typical)
    return float((6 * smallest / np.pi) ** (1 / 3))


def _format_mm(spacing: Spacing) -> str:
    return " × ".join(f"{mm:.3g}" for mm in spacing) + " mm"
