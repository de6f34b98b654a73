"""A patch out of a cached case: a crop, or one interpolation of the box that it touches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.datasets.cache import CachedCase
from medseg.preprocessing.sending import send
from medseg.training.patch_placement import Patch, Placement

Corner = npt.NDArray[np.int_]
"""A voxel of a volume, which need not lie in it: x, y and z."""

_HOST = torch.device("cpu")


def extract_patch(
    case: CachedCase,
    patch: Patch,
    placement: Placement,
    padding: float,
    device: torch.device = _HOST,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Extract a patch from a case.

    Args:
        case: The case, on this device or the host; only the box that the patch touches is read.
        patch: Size in voxels.
        placement: Where from.
        padding: Image value outside the case; labels there are background.
        device: Where the patch is wanted, and made.

    Returns:
        Image ``(channels, *patch)`` float32 by linear, and label ``(1, *patch)`` by nearest
        interpolation.
    """
    low, high = _find_box(patch, placement)
    image = _extract_box(case.image, low, high, padding, device).float()
    label = _extract_box(case.label, low, high, 0, device)
    if placement.is_crop:
        mirrored = [
            axis + 1 for axis in range(3) if placement.matrix[axis, axis] < 0
        ]
        if not mirrored:
            return image, label
        return image.flip(mirrored), label.flip(mirrored)
    if device.type == "cpu":
        grid = _sampling_grid(patch, placement, low, high)
    else:
        grid = make_grid_on(device, patch, placement, low, high)
    # Torch pads with 0, so that the padding value is made 0 for it.
    image = _sample(image - padding, grid, "bilinear") + padding
    sampled = _sample(label.float(), grid, "nearest")
    return image, sampled.to(label.dtype)


def _find_box(patch: Patch, placement: Placement) -> tuple[Corner, Corner]:
    """Return the first voxel that a patch touches, and the one behind the last."""
    half = (np.array(patch) - 1) / 2
    reach = np.abs(placement.matrix) @ half
    first = placement.centre - reach
    last = placement.centre + reach
    low = np.floor(first).astype(int)
    high = np.ceil(last).astype(int) + 1
    return low, high


def _extract_box(
    array: torch.Tensor,
    low: Corner,
    high: Corner,
    fill: float,
    device: torch.device,
) -> torch.Tensor:
    """Return ``low ≤ x < high`` of ``(channels, x, y, z)``; outside the array is ``fill``."""
    inside = [slice(None)]
    padding: list[int] = []
    for axis, length in enumerate(array.shape[1:]):
        start, stop = int(low[axis]), int(high[axis])
        first = min(max(start, 0), length)
        last = min(max(stop, 0), length)
        inside.append(slice(first, last))
        # Torch wants the padding of the last axis first.
        padding = [max(-start, 0), max(stop - length, 0), *padding]
    box = send(array[tuple(inside)], device)
    if not any(padding):
        return box
    return functional.pad(box, padding, value=fill)


def _sampling_grid(
    patch: Patch,
    placement: Placement,
    low: Corner,
    high: Corner,
) -> torch.Tensor:
    """Return torch's sampling grid ``(1, *patch, 3)``, in its z, y, x order and −1…1 scale."""
    axes = []
    for size in patch:
        axis = torch.arange(size, dtype=torch.float64)
        axes.append(axis - (size - 1) / 2)
    grid = torch.meshgrid(*axes, indexing="ij")
    offsets = torch.stack(grid, dim=-1)
    matrix = torch.from_numpy(placement.matrix)
    middle = torch.from_numpy(placement.centre - low)
    positions = offsets @ matrix.T + middle
    last = np.maximum(high - low - 1, 1).astype(float)
    scaled = 2 * positions / torch.from_numpy(last) - 1
    return scaled.flip(-1).float()[None]


def make_grid_on(
    device: torch.device,
    patch: Patch,
    placement: Placement,
    low: Corner,
    high: Corner,
) -> torch.Tensor:
    """Return the grid of ``_sampling_grid``, made on a GPU of twelve numbers in float32.

    On the host it takes as long as a large network's whole step on the GPU.
    """
    last = np.maximum(high - low - 1, 1)
    scale = 2 / last
    start = (placement.centre - low) * scale - 1
    steps = placement.matrix * scale[:, None]
    # In torch's order z, y, x.
    numbers = np.column_stack([steps, start])[::-1]
    sent = send(torch.from_numpy(numbers.astype(np.float32)), device)
    grid = sent[:, 3]
    for axis, size in enumerate(patch):
        shape = [1, 1, 1, 1]
        shape[axis] = size
        offsets = torch.arange(size, device=device) - (size - 1) / 2
        grid = grid + offsets.view(shape) * sent[:, axis]
    return grid[None]


def _sample(box: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    sampled = functional.grid_sample(
        box[None], grid, mode=mode, padding_mode="zeros", align_corners=True
    )
    return sampled[0]
