"""What the voxels of a window weigh where windows overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

WindowWeights = Literal["gaussian", "nnunet", "constant"]

_SIGMA_SHARE = 1 / 8
_PEAK = 10.0
"""nnU-Net's weights at their highest; it keeps them in half precision."""


def compute_window_weights(
    size: Sequence[int],
    kind: WindowWeights = "gaussian",
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return what each voxel of a window weighs, float32, of the window's size.

    Args:
        size: Voxels of a window.
        kind: ``gaussian`` about the window's centre and ``constant`` are MONAI's; ``nnunet``
            is about the voxel at half the window's size, along even axes half a voxel beside the
            centre.
        device: Where the weights lie.
    """
    if kind != "nnunet":
        from monai.data.utils import compute_importance_map

        weights: torch.Tensor = compute_importance_map(
            tuple(size), mode=kind, device=device
        )
        return weights
    weights = torch.full([1] * len(size), _PEAK, dtype=torch.float64)
    for axis, count in enumerate(size):
        distance = torch.arange(count, dtype=torch.float64) - count // 2
        along = torch.exp(-0.5 * (distance / (_SIGMA_SHARE * count)) ** 2)
        shape = [1] * len(size)
        shape[axis] = count
        weights = weights * along.view(shape)
    # Corners are so small that half precision makes zeros of them, which cannot be divided by.
    coarse = weights.half().float()
    return coarse.clamp_min(float(coarse[coarse > 0].min())).to(device)
