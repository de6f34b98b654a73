"""Scores as a network might give them: smooth, with large structures or with noise."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

CPU = torch.device("cpu")


def logits(
    shape: tuple[int, int, int], classes: int = 3, seed: int = 0
) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 1, (classes, *shape)), (0, 1, 1, 1))
    return torch.from_numpy((8 * smooth).astype(np.float32))


def blobs(
    shape: tuple[int, ...], classes: int, roughness: float
) -> torch.Tensor:
    """Scores with large structures, or with noise."""
    rng = np.random.default_rng(classes)
    scores = gaussian_filter(
        rng.normal(0, 1, (classes, *shape)), (0, *[1 / roughness] * 3)
    )
    return torch.from_numpy((scores / scores.std()).astype(np.float32))
