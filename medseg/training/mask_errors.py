"""Errors that segmentations make, put into true label maps: what a refiner, or a network that
follows clicks, learns to correct.

One function per kind of error, all with the signature ``MaskError``. All chance comes from the
generators that are passed in, and is drawn whether it is used or not, so that an empty label map
does not shift what follows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

MAX_ERRORS = 3
"""Most errors that one label map is given."""

MaskError = Callable[
    [torch.Tensor, int, np.random.Generator, torch.Generator], torch.Tensor
]
"""Puts an error into a label map.

It gets label indices, int64 ``(*patch)``, the number of classes with background, a generator that
decides where and how large the error is, and one that fills noise fields on the label map's
device. It returns a label map of the same shape and leaves the one it got unchanged.
"""


def corrupt_mask(
    label: torch.Tensor,
    classes: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Put one to three errors into a label map.

    Args:
        label: Label indices, int64 ``(*patch)``; not changed.
        classes: Number of classes, background among them.
        rng: Decides which errors, where, and how large.
        noise: Fills noise fields, on the label map's device.

    Returns:
        A label map of the same shape.
    """
    count = int(rng.integers(1, MAX_ERRORS + 1))
    for _ in range(count):
        put_error = MASK_ERRORS[int(rng.integers(len(MASK_ERRORS)))]
        label = put_error(label, classes, rng, noise)
    return label


def soften_mask(
    label: torch.Tensor, classes: int, rng: np.random.Generator
) -> torch.Tensor:
    """Turn a label map into logits as a more or less certain network would give them.

    Args:
        label: Label indices, int64 ``(*patch)``.
        classes: Number of classes, background among them.
        rng: Decides how certain, and whether borders are blurred.

    Returns:
        Log probabilities, float32 ``(classes, *patch)``.
    """
    doubt = rng.uniform(0.005, 0.2)
    is_blurred = rng.random() < 0.7
    one_hot = functional.one_hot(label, classes).movedim(-1, 0).float()
    probabilities = one_hot * (1 - doubt) + doubt / classes
    if is_blurred:
        margin = [1] * 2 * label.ndim
        padded = functional.pad(probabilities[None], margin, mode="replicate")
        probabilities = _average_3x3(padded)[0]
    return probabilities.log()


def _grow(
    label: torch.Tensor,
    _: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Dilate a structure by one or two voxels."""
    return _move_border(label, rng, outwards=True)


def _shrink(
    label: torch.Tensor,
    _: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Erode a structure by one or two voxels."""
    return _move_border(label, rng, outwards=False)


def _move_border(
    label: torch.Tensor, rng: np.random.Generator, *, outwards: bool
) -> torch.Tensor:
    chosen = _choose_structure(label, rng)
    voxels = int(rng.integers(1, 3))
    if chosen is None:
        return label
    inside = label == chosen
    if outwards:
        return torch.where(_dilate(inside, voxels), chosen, label)
    border = inside & _dilate(~inside, voxels)
    return torch.where(border, 0, label)


def _erase(
    label: torch.Tensor,
    _: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Erase a part of a structure: what lies in a ball around one of its voxels."""
    chosen = _choose_structure(label, rng)
    radius = _draw_radius(label, rng, 2.0, 0.4)
    if chosen is None:
        return label
    inside = label == chosen
    voxels = inside.nonzero()
    centre = voxels[int(rng.integers(len(voxels)))].tolist()
    return torch.where(_ball_mask(label, centre, radius) & inside, 0, label)


def _shift(
    label: torch.Tensor,
    _: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Shift a structure by up to three voxels along each axis."""
    chosen = _choose_structure(label, rng)
    offset = [int(voxels) for voxels in rng.integers(-3, 4, label.ndim)]
    if chosen is None:
        return label
    inside = label == chosen
    without = torch.where(inside, 0, label)
    return torch.where(_translate(inside, offset), chosen, without)


def _add(
    label: torch.Tensor,
    classes: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Add a false structure: a ball of a random label at a random voxel."""
    centre = [int(rng.integers(size)) for size in label.shape]
    radius = _draw_radius(label, rng, 1.5, 0.2)
    added = int(rng.integers(1, classes))
    return torch.where(_ball_mask(label, centre, radius), added, label)


def _roughen(
    label: torch.Tensor,
    _: int,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Make the border of a structure ragged."""
    chosen = _choose_structure(label, rng)
    if chosen is None:
        return label
    field = torch.randn(label.shape, generator=noise, device=label.device)
    is_inside_now = _average_3x3(field[None, None], padding=1)[0, 0] > 0
    inside = label == chosen
    border = _dilate(inside, 1) & _dilate(~inside, 1)
    without = torch.where(inside, 0, label)
    ragged = torch.where(is_inside_now, chosen, without)
    return torch.where(border, ragged, label)


MASK_ERRORS: tuple[MaskError, ...] = (
    _grow,
    _shrink,
    _erase,
    _shift,
    _add,
    _roughen,
)
"""The kinds of errors, each equally often."""


def _choose_structure(
    label: torch.Tensor, rng: np.random.Generator
) -> int | None:
    """Choose one of the labels that occur; ``None`` if there is only background."""
    share = rng.random()
    present: list[int] = torch.unique(label[label > 0]).tolist()
    if not present:
        return None
    return present[int(share * len(present))]


def _draw_radius(
    label: torch.Tensor,
    rng: np.random.Generator,
    smallest: float,
    largest_share: float,
) -> float:
    """Draw a radius between a number of voxels and a share of half the longest side."""
    largest = largest_share * max(label.shape) / 2
    return float(rng.uniform(smallest, max(smallest, largest)))


def _ball_mask(
    label: torch.Tensor, centre: list[int], radius: float
) -> torch.Tensor:
    axes = [torch.arange(size, device=label.device) for size in label.shape]
    grid = torch.meshgrid(*axes, indexing="ij")
    squared_distance = torch.zeros_like(label)
    for coordinates, middle in zip(grid, centre, strict=True):
        squared_distance = squared_distance + (coordinates - middle) ** 2
    return squared_distance <= radius**2


def _dilate(mask: torch.Tensor, voxels: int) -> torch.Tensor:
    """Grow a mask by so many voxels in every direction, diagonals included."""
    pool = functional.max_pool3d if mask.ndim == 3 else functional.max_pool2d
    grown = pool(
        mask[None, None].float(), 2 * voxels + 1, stride=1, padding=voxels
    )
    return grown[0, 0] > 0


def _average_3x3(images: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """Average ``(batch, channels, *patch)`` over three voxels along each axis."""
    if images.ndim == 5:
        return functional.avg_pool3d(images, 3, stride=1, padding=padding)
    return functional.avg_pool2d(images, 3, stride=1, padding=padding)


def _translate(mask: torch.Tensor, offset: list[int]) -> torch.Tensor:
    """Move a mask; what leaves the patch is lost, and nothing comes in."""
    moved = torch.roll(mask, offset, dims=list(range(mask.ndim)))
    for axis, voxels in enumerate(offset):
        length = mask.shape[axis]
        # Rolling brings in at one side what left at the other.
        entered = min(abs(voxels), length)
        start = 0 if voxels > 0 else length - entered
        moved.narrow(axis, start, entered).fill_(False)
    return moved
