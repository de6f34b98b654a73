"""The grid that cuts a scan's extent into equal voxels, as nnU-Net and skimage's ``resize`` do.

Voxels are counted first, round(count × spacing / wanted), and then the extent, from the first
voxel's outer edge to the last one's, is shared out among them. So the voxel size is nearly what is
wanted, and grids map onto each other axis by axis, edge on edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import ResamplingSpec
from medseg.preprocessing.grid_map import GridMap, Shape, Taps, compute_taps
from medseg.preprocessing.sending import send

_DIGITS = 6
_ROUNDING = 3e-7
"""How far, relative to it, a voxel size computed from an affine lies from the header's."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class ExtentMap(GridMap):
    """Where voxels lie that share out the extent of a source grid.

    Attributes:
        nearest_axis: The axis along which the nearest voxel is taken; others are interpolated.
    """

    nearest_axis: int | None = None

    def axis_taps(self, axis: int, device: torch.device | str = "cpu") -> Taps:
        """Return the taps along an axis, one for each index of the target."""
        position = send(torch.from_numpy(self.axis_positions(axis)), device)
        length = self.source[axis]
        if axis != self.nearest_axis:
            return compute_taps(position, length)
        # Halves go up, as in scipy.ndimage.
        nearest = (position + 0.5).floor()
        return compute_taps(nearest, length)

    def axis_positions(self, axis: int) -> npt.NDArray[np.float64]:
        """Return where the target's indices along an axis lie in the source."""
        step = self.source[axis] / self.target[axis]
        centres = np.arange(self.target[axis], dtype=np.float64) + 0.5
        return step * centres - 0.5


def compute_extent_maps(
    spacing: Sequence[float],
    shape: Shape,
    spacing_mm: Sequence[float | None] | None,
    resampling: ResamplingSpec,
) -> tuple[ExtentMap, ExtentMap]:
    """Return the maps to the grid that cuts a scan's extent into voxels of nearly the wanted size.

    Args:
        spacing: The scan's voxel size in mm along the network's axes.
        shape: Its voxels.
        spacing_mm: The wanted voxel size; ``None`` keeps the scan's, per axis or for all.
        resampling: The bundle's.

    Returns:
        The map that makes the network's grid of the scan's, and the map back.

    Examples:
        >>> from medseg.bundle.spec import ResamplingSpec
        >>> by_extent = ResamplingSpec(grid="extent")
        >>> to_network, _ = compute_extent_maps((2, 2, 5), (9, 9, 5), (1, 1, 5), by_extent)
        >>> to_network.target
        (18, 18, 5)
    """
    own = _snap_spacing(spacing)
    wanted = _choose_spacing(own, spacing_mm, resampling.tolerance)
    counts = []
    for count, mm, wanted_mm in zip(shape, own, wanted, strict=True):
        voxels = round(mm / wanted_mm * count)
        counts.append(max(1, voxels))
    i, j, k = counts
    target = (i, j, k)
    ratio = resampling.coarse_axis_ratio
    return (
        _map_extent(shape, target, find_coarse_axis(own, wanted, ratio)),
        _map_extent(target, shape, find_coarse_axis(wanted, own, ratio)),
    )


def find_coarse_axis(
    spacing: Spacing, new_spacing: Spacing, ratio: float | None
) -> int | None:
    """Return the axis to resample apart from the others, if there is one: nnU-Net's rule.

    The spacing that images have decides; where it is near enough to isotropic, the spacing they
    shall get. Two axes that are equally coarse are not treated apart.

    Args:
        spacing: Voxel size before resampling.
        new_spacing: Voxel size after it.
        ratio: How many times the shortest edge the longest must exceed; ``None`` for never.
    """
    if ratio is None:
        return None
    for mm in (spacing, new_spacing):
        coarsest = max(mm)
        if coarsest / min(mm) > ratio:
            axes = [axis for axis in range(3) if mm[axis] == coarsest]
            return axes[0] if len(axes) == 1 else None
    return None


def _choose_spacing(
    own: Spacing,
    spacing_mm: Sequence[float | None] | None,
    tolerance: float,
) -> Spacing:
    """Return the voxel size after resampling: along each axis the wanted, or near to it its own."""
    if spacing_mm is None:
        return own
    chosen = []
    for mm, wanted in zip(own, spacing_mm, strict=True):
        is_kept = wanted is None or abs(mm - wanted) <= tolerance * wanted
        chosen.append(mm if wanted is None or is_kept else wanted)
    i, j, k = chosen
    return i, j, k


def _snap_spacing(spacing: Sequence[float]) -> Spacing:
    """Return the voxel sizes that a header has, of those computed from an affine.

    An oblique affine gives 0.99999994 where the header says 1, and a half voxel then rounds the
    other way.
    """
    i, j, k = (_snap(float(mm)) for mm in spacing)
    return i, j, k


def _snap(mm: float) -> float:
    short = float(f"{mm:.{_DIGITS}g}")
    if not math.isclose(mm, short, rel_tol=_ROUNDING):
        return mm
    # What a header may hold: the short number in double or, as NIfTI, in single precision.
    candidates = (short, float(np.float32(short)))
    return min(candidates, key=lambda candidate: abs(candidate - mm))


def _map_extent(
    source: Shape, target: Shape, nearest_axis: int | None
) -> ExtentMap:
    step = np.array(source) / np.array(target)
    matrix = np.diag([*step, 1.0])
    matrix[:3, 3] = 0.5 * step - 0.5
    return ExtentMap(matrix, source, target, nearest_axis)
