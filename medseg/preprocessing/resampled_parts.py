"""Parts of a resampled image, without the rest: the same values, of fewer voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg.preprocessing.grid_map import GridMap, Taps
from medseg.preprocessing.resampling import (
    find_memory_order,
    resample_channels,
    resample_linear,
)
from medseg.volume import Array

Box = tuple[slice, slice, slice]

_VOXELS_AT_ONCE = 1 << 15
"""Voxels interpolated at a time: what is read for them stays in the processor's cache."""


def resample_part(source: Array, grid_map: GridMap, part: Box) -> torch.Tensor:
    """Return ``resample_linear(source, grid_map)`` in a box of its grid.

    Args:
        source: Shape ``(channels, *grid_map.source)``.
        grid_map: Where the target's voxels lie in it.
        part: Of the target.

    Returns:
        float32, ``(channels, *part)``.
    """
    if not grid_map.is_axis_aligned:
        return resample_linear(source, grid_map)[(slice(None), *part)]
    order = find_memory_order(source)
    taps: list[Taps | None] = [None, None, None]
    read = list(part)
    if not grid_map.is_identity:
        for place, axis in enumerate(order):
            of_axis = grid_map.axis_taps(axis).at(part[axis])
            first = int(of_axis.lower.min())
            read[axis] = slice(first, int(of_axis.upper.max()) + 1)
            taps[place] = of_axis._replace(
                lower=of_axis.lower - first, upper=of_axis.upper - first
            )
    size = [side.stop - side.start for side in part]
    return resample_channels(source[(slice(None), *read)], taps, order, size)


def resample_voxels(
    source: Array, grid_map: GridMap, voxels: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return ``resample_linear(source[None], grid_map)[0]`` at some voxels of its grid.

    Args:
        source: Shape ``grid_map.source``.
        grid_map: Where the target's voxels lie in it.
        voxels: Their indices along each of the target's axes, int64.

    Returns:
        float32 ``(voxels,)``.
    """
    if not grid_map.is_axis_aligned:
        return resample_linear(source[None], grid_map)[0][tuple(voxels)]
    x, y, z = find_memory_order(source[None])
    in_order = np.ascontiguousarray(source.transpose(x, y, z))
    flat = torch.from_numpy(in_order).view(-1)
    line = in_order.shape[2]
    # As in the whole image: first along the axis in the middle, last along the slowest.
    steps = {x: in_order[0].size, z: 1, y: line}
    axes = [
        _scale(grid_map.axis_taps(axis), step) for axis, step in steps.items()
    ]
    indices = [torch.split(voxels[axis], _VOXELS_AT_ONCE) for axis in steps]
    parts = []
    for of_part in zip(*indices, strict=True):
        taps = [
            of_axis.at(index)
            for of_axis, index in zip(axes, of_part, strict=True)
        ]
        parts.append(_interpolate_at(flat, 0, taps))
    return torch.cat(parts)


def _scale(taps: Taps, step: int) -> Taps:
    """Return taps whose indices count what lies this far apart in memory."""
    return taps._replace(lower=step * taps.lower, upper=step * taps.upper)


def _interpolate_at(
    flat: torch.Tensor, position: torch.Tensor | int, taps: Sequence[Taps]
) -> torch.Tensor:
    """Interpolate along some axes, the last of them first, at a position along all others."""
    if not taps:
        return flat.index_select(0, torch.as_tensor(position)).float()
    first, *others = taps
    below = _interpolate_at(flat, position + first.lower, others)
    above = _interpolate_at(flat, position + first.upper, others)
    return below.mul_(first.below).addcmul_(above, first.above)


def find_reach(part: Box, grid_map: GridMap) -> Box | None:
    """Return the box of the target that a box of the source has a say in; ``None`` if none has.

    Outside it each voxel is made of voxels outside ``part`` alone.
    """
    if not grid_map.is_axis_aligned:
        i, j, k = map(slice, grid_map.target)
        return i, j, k
    sides = []
    for axis, side in enumerate(part):
        taps = grid_map.axis_taps(axis)
        is_reached = (taps.upper >= side.start) & (taps.lower < side.stop)
        reached = is_reached.nonzero()
        if not len(reached):
            return None
        sides.append(slice(int(reached[0]), int(reached[-1]) + 1))
    i, j, k = sides
    return i, j, k
