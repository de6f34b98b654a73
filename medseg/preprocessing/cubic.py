"""Cubic B-splines from one grid to another that shares its extent, axis by axis.

The values are those of skimage's ``resize(order=3, mode="edge", anti_aliasing=False)``, which is
nnU-Net's default. That is a linear act on each axis: a voxel of the target is a weighted sum of
voxels of the source, and weights of voxels farther than some twelve away vanish in float32. So a
few dozen neighbours in the target need little more than as many of the source, and one matrix
product makes them all, on a CPU as on a GPU.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medseg.preprocessing.extent import ExtentMap
from medseg.preprocessing.plane_reader import PlaneReader
from medseg.preprocessing.resampling import find_memory_order
from medseg.volume import Array

_REACH = 14
"""Voxels to either side whose weight counts: those beyond have less than 1e-7 of it."""

_LEAST_WEIGHT = 1e-9

_EDGE = 12
"""Copies of the outermost voxel that scipy adds before it fits splines, and so do we."""

_OUTPUTS_AT_ONCE = 64
_READ_AT_ONCE = 1 << 21

Bounds = tuple[torch.Tensor, torch.Tensor]


class Band(NamedTuple):
    """What some neighbouring voxels of the target are made of.

    Attributes:
        target: Their indices along the axis.
        source: Indices of the source's voxels.
        weights: float32 ``(target, source)``.
    """

    target: slice
    source: slice
    weights: torch.Tensor


def resample_cubic(
    source: Array, grid_map: ExtentMap, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Take the values of an image on another grid, by cubic B-splines.

    Values stay within the image's range, as they do in skimage; where an axis is resampled apart,
    within the range of each of its slices.

    Args:
        source: Shape ``(channels, *grid_map.source)``, numbers of any type and strides.
        grid_map: Where the target's voxels lie in it.
        device: Where to compute.

    Returns:
        float32, ``(channels, *grid_map.target)``. Its memory runs in the order of the source's.

    Raises:
        RuntimeError: If there is no memory for the result.
    """
    order = find_memory_order(source)
    size = [grid_map.target[axis] for axis in order]
    resampled = torch.empty([len(source), *size], device=device)
    for channel, target in zip(source, resampled, strict=True):
        in_order = channel.transpose(order)
        target.copy_(_resample_channel(in_order, grid_map, order, device))
    back = [1 + order.index(axis) for axis in range(3)]
    return resampled.permute(0, *back)


@lru_cache(maxsize=64)
def compute_bands(length: int, target_length: int) -> tuple[Band, ...]:
    """State cubic interpolation along one axis as small matrices.

    Args:
        length: Voxels of the source.
        target_length: Voxels of the target, which have the same extent.
    """
    positions = (np.arange(target_length) + 0.5) * length / target_length - 0.5
    bands = []
    for first in range(0, target_length, _OUTPUTS_AT_ONCE):
        target = slice(first, min(first + _OUTPUTS_AT_ONCE, target_length))
        wanted = positions[target]
        start = max(0, math.floor(wanted[0]) - _REACH)
        stop = min(length, math.floor(wanted[-1]) + _REACH + 2)
        weights = _compute_weights(wanted - start, stop - start)
        bands.append(Band(target, slice(start, stop), weights))
    return tuple(bands)


def _compute_weights(
    positions: npt.NDArray[np.float64], length: int
) -> torch.Tensor:
    """Return what each voxel of a line contributes to the spline at some positions."""
    from scipy.ndimage import spline_filter1d

    each_alone = np.pad(np.eye(length), ((_EDGE, _EDGE), (0, 0)), mode="edge")
    coefficients = spline_filter1d(each_alone, 3, axis=0, mode="nearest")
    lower = np.floor(positions).astype(int)
    shares = _compute_bspline(positions - lower)
    weights = np.zeros((len(positions), length))
    for offset, share in zip((-1, 0, 1, 2), shares, strict=True):
        weights += share[:, None] * coefficients[lower + offset + _EDGE]
    # They fall off to numbers so small that processors take a hundred times as long over them.
    weights[np.abs(weights) < _LEAST_WEIGHT] = 0
    return torch.from_numpy(weights.astype(np.float32))


def _compute_bspline(
    above: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the cubic B-spline's shares of the four coefficients around a position.

    Args:
        above: How far it lies above the second of them, 0 to 1.
    """
    below = 1 - above
    middle = (3 * above**3 - 6 * above**2 + 4) / 6
    third = (3 * below**3 - 6 * below**2 + 4) / 6
    return below**3 / 6, middle, third, above**3 / 6


def _resample_channel(
    channel: Array,
    grid_map: ExtentMap,
    order: list[int],
    device: torch.device | str,
) -> torch.Tensor:
    """Resample one channel, whose axes are the map's in the given order."""
    bands = []
    for axis in order:
        length, target = grid_map.source[axis], grid_map.target[axis]
        is_apart = axis == grid_map.nearest_axis or length == target
        bands.append(None if is_apart else compute_bands(length, target))
    apart = None
    if grid_map.nearest_axis is not None:
        apart = order.index(grid_map.nearest_axis)
    outer, *inner = bands
    image, (low, high) = _resample_within_planes(channel, inner, apart, device)
    image = _apply(image, 0, outer)
    if any(bands):
        image.clamp_(low, high)
    if grid_map.nearest_axis is None or apart is None:
        return image
    nearest = grid_map.axis_taps(grid_map.nearest_axis, device).lower
    return image.index_select(apart, nearest)


def _resample_within_planes(
    channel: Array,
    bands: list[tuple[Band, ...] | None],
    apart: int | None,
    device: torch.device | str,
) -> tuple[torch.Tensor, Bounds]:
    """Resample the second and third axis, some planes at a time; find the range of the values.

    Args:
        channel: The image.
        bands: Of both axes.
        apart: The axis whose slices have a range each; ``None`` for one range of all.
        device: Where to compute.
    """
    # The axis that shrinks most goes first: then the other has the least to do.
    steps = sorted(
        enumerate(bands, start=1), key=lambda step: _get_growth(step[1])
    )
    planes_at_once = max(1, _READ_AT_ONCE // math.prod(channel.shape[1:]))
    parts, ranges = [], []
    firsts = range(0, len(channel), planes_at_once)
    pieces = [(first, first + planes_at_once) for first in firsts]
    with PlaneReader(channel, pieces, torch.device(device)) as reader:
        for _ in pieces:
            part = reader.read_next()
            ranges.append(_find_range(part, apart))
            for axis, axis_bands in steps:
                part = _apply(part, axis, axis_bands)
            parts.append(part)
    lows = torch.cat([low for low, _ in ranges])
    highs = torch.cat([high for _, high in ranges])
    if apart != 0:
        lows, highs = lows.amin(0, keepdim=True), highs.amax(0, keepdim=True)
    return torch.cat(parts), (lows, highs)


def _find_range(planes: torch.Tensor, apart: int | None) -> Bounds:
    """Return the lowest and highest value, of each slice along an axis if one is given."""
    others = [axis for axis in range(3) if axis != apart]
    low = planes.amin(others, keepdim=True)
    return low, planes.amax(others, keepdim=True)


def _get_growth(bands: tuple[Band, ...] | None) -> float:
    if bands is None:
        return 1.0
    last = bands[-1]
    return float(last.target.stop / last.source.stop)


def _apply(
    image: torch.Tensor, axis: int, bands: tuple[Band, ...] | None
) -> torch.Tensor:
    """Multiply an image by the bands along one of its three axes."""
    if bands is None:
        return image
    size = list(image.shape)
    size[axis] = bands[-1].target.stop
    made = image.new_empty(size)
    for target, source, weights in bands:
        count = source.stop - source.start
        part = image.narrow(axis, source.start, count)
        into = made.narrow(axis, target.start, target.stop - target.start)
        weights = weights.to(image.device)
        if axis == 0:
            product = weights @ part.reshape(count, -1)
            into.copy_(product.view(into.shape))
        elif axis == 1:
            into.copy_(weights @ part)
        else:
            into.copy_(part @ weights.T)
    return made
