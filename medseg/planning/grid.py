"""The grid the network works on: 2D or 3D, and the voxel size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medseg.planning.constraints import Constraints, Notes
from medseg.planning.fingerprint import Fingerprint

ANISOTROPIC = 3.0
"""From this ratio of spacings on, the coarse axis is treated on its own, as in nnU-Net."""

_FEW_SLICES = 8
"""Fewer slices than this leave nothing to learn along them."""
_COARSE_QUANTILE = 0.1
_ENOUGH = 1 / 8
"""Share of a typical image that a patch should see, where time is short."""
_ACROSS = 10.0
"""Voxels that must be left across the smallest label."""
_COARSER = 1.15


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the network works.

    Attributes:
        dims: 2 or 3.
        spacing: Voxel size in mm, or in pixels for pictures.
        shape: A typical image's size in such voxels, ``dims`` numbers.
        pictures: Whether there is no space in mm.
    """

    dims: int
    spacing: tuple[float, float, float]
    shape: tuple[float, ...]
    pictures: bool

    @property
    def field(self) -> list[float | None] | None:
        """What ``preprocessing.spacing_mm`` says."""
        if self.pictures:
            return None
        x, y, z = (float(f"{mm:.4g}") for mm in self.spacing)
        return [x, y, z if self.dims == 3 else None]


def choose_grid(
    survey: Fingerprint, wishes: Constraints, pictures: bool, patch_voxels: float, notes: Notes
) -> Grid:
    """Choose dimensions and voxel size.

    Args:
        survey: What the cases look like.
        wishes: What the plan has to fit.
        pictures: Whether the cases are pictures.
        patch_voxels: How large a patch can be.
        notes: Takes the reasons.
    """
    if pictures:
        shape = np.median([case.shape for case in survey.cases], axis=0)
        notes["network.dims"] = "Pictures have two dimensions"
        return Grid(2, (1.0, 1.0, 1.0), tuple(shape[:2].tolist()), True)
    spacing = _usual(survey, notes)
    dims = _dims(survey, spacing, wishes, notes)
    grid = _at(survey, dims, spacing)
    return grid if wishes.on_gpu else _coarser(survey, grid, patch_voxels, notes)


def _at(survey: Fingerprint, dims: int, spacing: npt.NDArray[np.float64]) -> Grid:
    x, y, z = spacing.tolist()
    shape = np.median(survey.shapes_at((x, y, z)), axis=0)
    return Grid(dims, (x, y, z), tuple(shape[:dims].tolist()), False)


def _usual(survey: Fingerprint, notes: Notes) -> npt.NDArray[np.float64]:
    """Return the median spacing, finer along an axis that is coarse in most scans."""
    spacings = survey.spacings
    usual: npt.NDArray[np.float64] = np.median(spacings, axis=0)
    field = "preprocessing.spacing_mm"
    if np.allclose(spacings, usual, rtol=0.01):
        notes[field] = f"Every scan has {_mm(usual)}"
        return usual
    coarse = int(np.argmax(usual))
    others = [axis for axis in range(3) if axis != coarse]
    shape = np.median(survey.shapes_at(usual.tolist()), axis=0)
    notes[field] = f"The median of {len(spacings)} scans, {_mm(usual)}"
    if (
        usual[coarse] > ANISOTROPIC * usual[others].max()
        and shape[coarse] * ANISOTROPIC < shape[others].max()
    ):
        finer = max(np.quantile(spacings[:, coarse], _COARSE_QUANTILE), usual[others].max())
        notes[field] += (
            f"; along the coarse axis the finest tenth's {finer:.3g} mm, so that those scans lose "
            "little"
        )
        usual[coarse] = finer
    return usual


def _dims(
    survey: Fingerprint, spacing: npt.NDArray[np.float64], wishes: Constraints, notes: Notes
) -> int:
    slices = float(np.median([case.shape[2] for case in survey.cases]))
    if wishes.dims is not None:
        notes["network.dims"] = "As asked for"
        return wishes.dims
    if slices < _FEW_SLICES:
        notes["network.dims"] = f"A typical scan has {slices:.0f} slices, too few to learn across"
        return 2
    notes["network.dims"] = f"A typical scan has {slices:.0f} slices to learn across"
    return 3


def _coarser(survey: Fingerprint, grid: Grid, patch_voxels: float, notes: Notes) -> Grid:
    """Coarsen the grid until a patch sees enough of an image, or small labels would be lost."""
    largest = _smallest_label(survey) / _ACROSS
    first = grid
    while patch_voxels < _ENOUGH * np.prod(grid.shape):
        spacing = np.array(grid.spacing)
        # The fine axes first, until all are alike.
        fine = spacing[: grid.dims] < spacing[: grid.dims].min() * _COARSER
        spacing[: grid.dims][fine] *= _COARSER
        if (spacing[: grid.dims][fine] > largest).any():
            break
        grid = _at(survey, grid.dims, spacing)
    if grid is not first:
        notes["preprocessing.spacing_mm"] += (
            f"; coarsened to {_mm(np.array(grid.spacing))}, because on a CPU a patch of the full "
            "resolution would see too little of a scan. Labels keep "
            f"{_smallest_label(survey) / max(grid.spacing[: grid.dims]):.0f} or more voxels across"
        )
        rounded = tuple(float(f"{mm:.3g}") for mm in grid.spacing)
        grid = replace(grid, spacing=rounded)  # type: ignore[arg-type]
    return grid


def _smallest_label(survey: Fingerprint) -> float:
    """Return the diameter in mm of a ball as large as the smallest label typically is."""
    volumes: dict[int, list[float]] = {}
    for case in survey.cases:
        for label in case.labels:
            volumes.setdefault(label.value, []).append(label.voxels * float(np.prod(case.spacing)))
    smallest = min(float(np.median(found)) for found in volumes.values())
    return float((6 * smallest / np.pi) ** (1 / 3))


def _mm(spacing: npt.NDArray[np.float64]) -> str:
    return " × ".join(f"{mm:.3g}" for mm in spacing) + " mm"
