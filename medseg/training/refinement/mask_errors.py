"""Faults as segmentations have them, made on true label maps: what a refiner learns to mend.

All chance comes from the generators that are handed in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

MAX_ERRORS = 3
"""Most faults that one label map is given."""

MaskError = Callable[[torch.Tensor, int, np.random.Generator, torch.Generator], torch.Tensor]
"""A label map ``(*patch)``, the number of classes → the label map with a fault."""


def corrupt_mask(
    label: torch.Tensor, classes: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Give a label map one to three faults.

    Args:
        label: Label indices, int64 ``(*patch)``; not changed.
        classes: How many, background among them.
        rng: Decides which faults, where, and how large.
        noise: Fills noise fields, on the label map's device.

    Returns:
        A label map of the same shape.
    """
    for _ in range(int(rng.integers(1, MAX_ERRORS + 1))):
        fault = MASK_ERRORS[int(rng.integers(len(MASK_ERRORS)))]
        label = fault(label, classes, rng, noise)
    return label


def soften_mask(label: torch.Tensor, classes: int, rng: np.random.Generator) -> torch.Tensor:
    """Return logits, float32 ``(classes, *patch)``, as a more or less sure network gives them.

    Args:
        label: Label indices, int64 ``(*patch)``.
        classes: How many, background among them.
        rng: Decides how sure, and whether rims are blurred.
    """
    dims = label.ndim
    certain = functional.one_hot(label, classes).movedim(-1, 0).float()
    doubt, blurred = rng.uniform(0.005, 0.2), rng.random() < 0.7
    probabilities = certain * (1 - doubt) + doubt / classes
    if blurred:
        pool = functional.avg_pool3d if dims == 3 else functional.avg_pool2d
        around = [1] * 2 * dims
        padded = functional.pad(probabilities[None], around, mode="replicate")
        probabilities = pool(padded, 3, stride=1)[0]
    return probabilities.log()


def _grow(
    label: torch.Tensor, _: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Let a structure swell by one or two voxels."""
    chosen = _structure(label, rng)
    reach = int(rng.integers(1, 3))
    return label if chosen is None else torch.where(_wider(label == chosen, reach), chosen, label)


def _shrink(
    label: torch.Tensor, _: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Let a structure lose its outermost one or two voxels."""
    chosen = _structure(label, rng)
    reach = int(rng.integers(1, 3))
    if chosen is None:
        return label
    inside = label == chosen
    return torch.where(inside & _wider(~inside, reach), 0, label)


def _drop(
    label: torch.Tensor, _: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Lose a part of a structure: what lies in a ball around one of its voxels."""
    chosen = _structure(label, rng)
    radius = _radius(label, rng, 2.0, 0.4)
    if chosen is None:
        return label
    places = (label == chosen).nonzero()
    centre = places[int(rng.integers(len(places)))].tolist()
    return torch.where(_ball(label, centre, radius) & (label == chosen), 0, label)


def _shift(
    label: torch.Tensor, _: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Move a structure by up to three voxels along each axis."""
    chosen = _structure(label, rng)
    by = [int(n) for n in rng.integers(-3, 4, label.ndim)]
    if chosen is None:
        return label
    inside = label == chosen
    return torch.where(_moved(inside, by), chosen, torch.where(inside, 0, label))


def _add(
    label: torch.Tensor, classes: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Find a structure where there is none: a ball somewhere."""
    centre = [int(rng.integers(n)) for n in label.shape]
    radius = _radius(label, rng, 1.5, 0.2)
    return torch.where(_ball(label, centre, radius), int(rng.integers(1, classes)), label)


def _fray(
    label: torch.Tensor, _: int, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    """Make the rim of a structure ragged."""
    chosen = _structure(label, rng)
    if chosen is None:
        return label
    pool = functional.avg_pool3d if label.ndim == 3 else functional.avg_pool2d
    field = torch.randn(label.shape, generator=noise, device=label.device)
    ragged = pool(field[None, None], 3, stride=1, padding=1)[0, 0] > 0
    inside = label == chosen
    rim = _wider(inside, 1) & _wider(~inside, 1)
    return torch.where(rim, torch.where(ragged, chosen, torch.where(inside, 0, label)), label)


MASK_ERRORS: tuple[MaskError, ...] = (_grow, _shrink, _drop, _shift, _add, _fray)
"""The kinds of faults, each equally often."""


def _structure(label: torch.Tensor, rng: np.random.Generator) -> int | None:
    """Choose one of the labels that are there; ``None`` if there is only background."""
    share = rng.random()
    there = [index for index in torch.unique(label).tolist() if index > 0]
    return there[int(share * len(there))] if there else None


def _radius(
    label: torch.Tensor, rng: np.random.Generator, smallest: float, largest: float
) -> float:
    """Draw a radius between some voxels and a share of the longest side."""
    return float(rng.uniform(smallest, max(smallest, largest * max(label.shape) / 2)))


def _ball(label: torch.Tensor, centre: list[int], radius: float) -> torch.Tensor:
    axes = [torch.arange(n, device=label.device) for n in label.shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    apart = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True))
    return torch.as_tensor(apart) <= radius**2


def _wider(mask: torch.Tensor, reach: int) -> torch.Tensor:
    pool = functional.max_pool3d if mask.ndim == 3 else functional.max_pool2d
    grown = pool(mask[None, None].float(), 2 * reach + 1, stride=1, padding=reach)
    return grown[0, 0] > 0


def _moved(mask: torch.Tensor, by: list[int]) -> torch.Tensor:
    """Return the mask moved; what leaves the patch is lost, and nothing comes in."""
    moved = torch.roll(mask, by, dims=list(range(mask.ndim)))
    for axis, step in enumerate(by):
        length = mask.shape[axis]
        entered = min(abs(step), length)
        moved.narrow(axis, 0 if step > 0 else length - entered, entered).fill_(False)
    return moved
