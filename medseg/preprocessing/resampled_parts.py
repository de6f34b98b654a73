"""Parts of a resampled image, without the rest: the same values, of fewer voxels."""

from __future__ import annotations

import torch

from medseg.preprocessing.grid_map import GridMap, Taps
from medseg.preprocessing.resampling import (
    find_memory_order,
    resample_channels,
    resample_linear,
)
from medseg.volume import Array

Box = tuple[slice, slice, slice]


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
