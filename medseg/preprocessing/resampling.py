"""From one grid of voxels to another by linear interpolation, exactly where MONAI samples.

``grid_map`` says where MONAI's ``Spacing`` puts its voxels; here the values are taken there. A scan
is read a few planes at a time, whatever its type, byte order and strides, so that no copy of it in
another type is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from medseg.preprocessing.grid_map import (
    GridMap,
    Taps,
)
from medseg.preprocessing.plane_reader import PlaneReader
from medseg.preprocessing.sending import send
from medseg.volume import Array

_READ_AT_ONCE = 1 << 21
"""Voxels of the source read at a time: large enough to be fast, small beside any scan."""


def resample_linear(
    source: Array, grid_map: GridMap, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Take the values of an image on another grid, by linear interpolation.

    Args:
        source: Shape ``(channels, *grid_map.source)``, numbers of any type and strides.
        grid_map: Where the target's voxels lie in it.
        device: Where to compute; only a few planes of the source are there at a time.

    Returns:
        float32, ``(channels, *grid_map.target)``. Its memory runs in the order of the source's:
        plane by plane where the source does.

    Raises:
        RuntimeError: If there is no memory for the result.
    """
    if not grid_map.is_axis_aligned:
        return _resample_slanted(source, grid_map, device)
    order = find_memory_order(source)
    taps: list[Taps | None] = [None, None, None]
    if not grid_map.is_identity:
        taps = [grid_map.axis_taps(axis, device) for axis in order]
    return resample_channels(source, taps, order, grid_map.target, device)


def resample_channels(
    source: Array,
    taps: Sequence[Taps | None],
    order: Sequence[int],
    target: Sequence[int],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Interpolate images along each axis by itself.

    Args:
        source: ``(channels, i, j, k)``, numbers of any type and strides.
        taps: What is read along each axis, in the order of ``order``; ``None`` where all stays.
        order: The spatial axes in the order in which the source lies in memory.
        target: Voxels of the result along its axes.
        device: Where to compute.

    Returns:
        float32, ``(channels, *target)``.
    """
    size = [target[axis] for axis in order]
    resampled = torch.empty([len(source), *size], device=device)
    for channel, planes in zip(source, resampled, strict=True):
        _resample_channel(channel.transpose(order), planes, taps)
    back = [1 + order.index(axis) for axis in range(3)]
    return resampled.permute(0, *back)


def _resample_channel(
    channel: Array, target: torch.Tensor, taps: Sequence[Taps | None]
) -> None:
    """Fill the target, whose axes are ordered as the channel's are, some planes at a time."""
    voxels_per_plane = math.prod(channel.shape[1:])
    planes_at_once = max(1, _READ_AT_ONCE // voxels_per_plane)
    count = len(target)
    outer, *inner = taps
    # On the host once: a GPU would be waited for with each of the planes.
    ends = None if outer is None else (outer.lower.cpu(), outer.upper.cpu())
    made = []
    read = []
    for first in range(0, count, planes_at_once):
        planes = slice(first, min(first + planes_at_once, count))
        made.append(planes)
        read.append(_find_read(planes, ends))
    with PlaneReader(channel, read, target.device) as reader:
        for planes, (start, _) in zip(made, read, strict=True):
            # Of these, fewer are read than made where the target is finer.
            image = _interpolate_within(reader.read_next(), inner)
            if outer is not None:
                along = outer.at(planes).after(start)
                image = _interpolate(image, 0, along)
            target[planes] = image


def _find_read(
    planes: slice, ends: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[int, int]:
    """Return which planes of the source some of the target are made of: first, and behind last."""
    if ends is None:
        return planes.start, planes.stop
    lower, upper = ends
    first = lower[planes].min()
    last = upper[planes].max()
    return int(first), int(last) + 1


def resample_nearest(labels: Array, grid_map: GridMap) -> Array:
    """Take labels on another grid, each from the voxel that is nearest.

    Args:
        labels: Shape ``grid_map.source``, of any type and strides.
        grid_map: Where the target's voxels lie in it.

    Returns:
        Of the same type, shape ``grid_map.target``; the labels themselves where nothing moves.
    """
    if grid_map.is_identity:
        return labels
    rows, columns, planes = grid_map.target
    resampled = np.empty(grid_map.target, labels.dtype, order="F")
    row = torch.arange(rows)[:, None]
    column = torch.arange(columns)[None]
    for k in range(planes):
        plane = torch.tensor([[k]])
        nearest = []
        for axis, length in enumerate(grid_map.source):
            position = grid_map.position(axis, row, column, plane)
            index = position.round().long()
            nearest.append(index.clamp(0, length - 1).numpy())
        resampled[..., k] = labels[tuple(nearest)]
    return resampled


def find_memory_order(array: Array) -> list[int]:
    """Return the spatial axes of ``(channels, i, j, k)``, 0 to 2, the slowest in memory first."""
    strides = [abs(stride) for stride in array.strides[1:]]
    return sorted(range(3), key=lambda axis: (-strides[axis], axis))


def _interpolate_within(
    image: torch.Tensor, taps: Sequence[Taps | None]
) -> torch.Tensor:
    """Interpolate within planes: along all axes but the first."""
    for axis, axis_taps in enumerate(taps, start=1):
        image = _interpolate(image, axis, axis_taps)
    return image


def _interpolate(
    image: torch.Tensor, axis: int, taps: Taps | None
) -> torch.Tensor:
    if taps is None:
        return image
    weight_shape = [1] * image.ndim
    weight_shape[axis] = -1
    below = taps.below.view(weight_shape)
    above = taps.above.view(weight_shape)
    interpolated = image.index_select(axis, taps.lower).mul_(below)
    return interpolated.addcmul_(image.index_select(axis, taps.upper), above)


def _resample_slanted(
    source: Array, grid_map: GridMap, device: torch.device | str
) -> torch.Tensor:
    """Resample plane by plane along the third axis, each in float64 as MONAI does."""
    rows, columns, planes = grid_map.target
    resampled = torch.empty([len(source), rows, columns, planes], device=device)
    taps = grid_map.axis_taps(2, device)
    row = torch.arange(rows, device=device)[:, None]
    column = torch.arange(columns, device=device)[None, :]
    # On the host once: a GPU would be waited for with each plane.
    ends = list(zip(taps.lower.tolist(), taps.upper.tolist(), strict=True))
    for k in range(planes):
        plane = _interpolate_plane(source, taps, k, ends[k])
        index = torch.full((), k, device=device)
        i = grid_map.position(0, row, column, index)
        j = grid_map.position(1, row, column, index)
        resampled[..., k] = _sample_plane(plane, i, j)
    return resampled


def _interpolate_plane(
    source: Array, taps: Taps, k: int, ends: tuple[int, int]
) -> torch.Tensor:
    """Return plane ``k`` of the target along the third axis, float64 ``(channels, i, j)``.

    Args:
        source: The image.
        taps: Along the third axis.
        k: The plane.
        ends: The planes of the source that it lies between.
    """
    device = taps.lower.device
    lower, upper = ends
    below = _read_plane(source, lower, device)
    above = _read_plane(source, upper, device)
    below.mul_(taps.below[k])
    above.mul_(taps.above[k])
    return below.add_(above)


def _read_plane(source: Array, k: int, device: torch.device) -> torch.Tensor:
    plane = np.array(source[..., k], dtype=np.float64)
    return send(torch.from_numpy(plane), device)


def _sample_plane(
    plane: torch.Tensor, i: torch.Tensor, j: torch.Tensor
) -> torch.Tensor:
    """Interpolate ``(channels, i, j)`` at positions given along ``i`` and along ``j``."""
    _, rows, columns = plane.shape
    # To torch's -1…1, which spans the outer edges of the first and the last voxel.
    i = (2 * i + 1) / rows - 1
    j = (2 * j + 1) / columns - 1
    size = (len(i), j.shape[1])
    # The last axis first.
    grid = torch.stack([j.expand(size), i.expand(size)], dim=-1)
    sampled = functional.grid_sample(
        plane[None], grid[None], padding_mode="border", align_corners=False
    )
    return sampled[0]
