"""Preprocessed cases made up in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medseg.datasets.cache import CachedCase


def made_case(
    label: Any,
    image: Any = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> CachedCase:
    """Return a case with this label ``(x, y, z)``; its image is the label unless given."""
    label = np.asarray(label, np.uint8)
    image = label[None] if image is None else np.asarray(image)
    flat = label.reshape(-1)
    return CachedCase(
        case_id="0123456789",
        label_id="0123456789",
        image=torch.from_numpy(image.astype(np.float16)),
        label=torch.from_numpy(label[None]),
        foreground={
            int(i): np.flatnonzero(flat == i) for i in np.unique(flat) if i
        },
        spacing=spacing,
    )


def numbered_case(shape: tuple[int, int, int], **keywords: Any) -> CachedCase:
    """Return a case whose voxels all differ and tell their place, with two small labels."""
    number = np.arange(np.prod(shape)).reshape(shape)
    label = np.zeros(shape, np.uint8)
    label[1, 2, min(3, shape[2] - 1)] = 1
    label[shape[0] - 2 :, shape[1] - 3 :, :1] = 2
    return made_case(label, number[None], **keywords)


def balls(shape: tuple[int, int, int] = (24, 28, 20), seed: int = 0) -> Any:
    """Return a label map of a few balls."""
    rng = np.random.default_rng(seed)
    grid = np.stack(
        np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1
    )
    label = np.zeros(shape, np.uint8)
    for index in (1, 1, 2):
        centre = rng.uniform(0.25, 0.75, 3) * shape
        label[np.linalg.norm(grid - centre, axis=-1) < rng.uniform(3, 6)] = (
            index
        )
    return label
