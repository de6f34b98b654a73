"""Variations of training images as scanners make them, on whole batches and any device.

Strengths follow nnU-Net's (Isensee et al., Nat Methods 2021, supplement), and the bias field
is a low-order polynomial as MR coils make it (Van Leemput et al., IEEE TMI 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from medseg.bundle.spec import AugmentationSpec

Change = Callable[[torch.Tensor, np.random.Generator, torch.Generator], torch.Tensor]
"""One image ``(channels, *patch)`` → the image changed."""


def augment_intensities(
    images: torch.Tensor,
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Change each image of a batch by some of the bundle's intensity variations.

    Args:
        images: ``(batch, channels, *patch)``, normalised intensities; not changed.
        augmentation: How often each variation happens.
        rng: Decides what happens, and how strongly.
        noise: Fills noise fields, on the images' device.

    Returns:
        Images of the same shape.
    """
    changes: tuple[tuple[float, Change], ...] = (
        (augmentation.noise, _add_noise),
        (augmentation.blur, _blur),
        (augmentation.bias_field, _shade),
        (augmentation.brightness, _brighten),
        (augmentation.contrast, _change_contrast),
        (augmentation.low_resolution, _lose_resolution),
        (augmentation.gamma, _bend),
        (augmentation.ghosting, _ghost),
    )
    varied = []
    for image in images:
        for probability, change in changes:
            if rng.random() < probability:
                image = change(image, rng, noise)
        varied.append(image)
    return torch.stack(varied)


def _add_noise(
    image: torch.Tensor, rng: np.random.Generator, noise: torch.Generator
) -> torch.Tensor:
    strength = rng.uniform(0, 0.3) * float(image.std())
    field = torch.randn(image.shape, generator=noise, device=image.device)
    return image + strength * field


def _blur(image: torch.Tensor, rng: np.random.Generator, _: torch.Generator) -> torch.Tensor:
    sigma = rng.uniform(0.5, 1.0)
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    dims = image.ndim - 1
    convolve = functional.conv3d if dims == 3 else functional.conv2d
    blurred = image[:, None]
    for axis in range(dims):
        shape = [1, 1] + [len(kernel) if other == axis else 1 for other in range(dims)]
        padding = [reach if other == axis else 0 for other in reversed(range(dims)) for _ in (0, 1)]
        blurred = convolve(
            functional.pad(blurred, padding, mode="replicate"), kernel.reshape(shape)
        )
    return blurred[:, 0]


def _shade(image: torch.Tensor, rng: np.random.Generator, _: torch.Generator) -> torch.Tensor:
    axes = [torch.linspace(-1, 1, n, device=image.device) for n in image.shape[1:]]
    grid = torch.meshgrid(*axes, indexing="ij")
    field = torch.zeros(image.shape[1:], device=image.device)
    for one in grid:
        field = field + float(rng.normal(0, 0.25)) * one + float(rng.normal(0, 0.25)) * one**2
    lowest = image.amin(dim=tuple(range(1, image.ndim)), keepdim=True)
    return (image - lowest) * torch.exp(field) + lowest


def _brighten(image: torch.Tensor, rng: np.random.Generator, _: torch.Generator) -> torch.Tensor:
    return image * rng.uniform(0.75, 1.25)


def _change_contrast(
    image: torch.Tensor, rng: np.random.Generator, _: torch.Generator
) -> torch.Tensor:
    space = tuple(range(1, image.ndim))
    mean = image.mean(dim=space, keepdim=True)
    changed = (image - mean) * rng.uniform(0.75, 1.25) + mean
    return torch.clamp(
        changed, min=image.amin(dim=space, keepdim=True), max=image.amax(dim=space, keepdim=True)
    )


def _lose_resolution(
    image: torch.Tensor, rng: np.random.Generator, _: torch.Generator
) -> torch.Tensor:
    share = rng.uniform(0.5, 1.0)
    size = [max(2, round(n * share)) if n > 1 else 1 for n in image.shape[1:]]
    small = functional.interpolate(image[None], size=size, mode="nearest")
    smooth = "trilinear" if image.ndim == 4 else "bilinear"
    return functional.interpolate(small, size=image.shape[1:], mode=smooth, align_corners=False)[0]


def _bend(image: torch.Tensor, rng: np.random.Generator, _: torch.Generator) -> torch.Tensor:
    gamma, inverted = rng.uniform(0.7, 1.5), rng.random() < 0.25
    space = tuple(range(1, image.ndim))
    mean, spread = image.mean(space, keepdim=True), image.std(space, keepdim=True)
    bent = -image if inverted else image
    low = bent.amin(dim=space, keepdim=True)
    width = (bent.amax(dim=space, keepdim=True) - low).clamp_min(1e-7)
    bent = ((bent - low) / width) ** gamma * width + low
    bent = -bent if inverted else bent
    # Mean and spread stay, so that only the curve's shape is varied.
    bent = (bent - bent.mean(space, keepdim=True)) / bent.std(space, keepdim=True).clamp_min(1e-7)
    return bent * spread + mean


def _ghost(image: torch.Tensor, rng: np.random.Generator, _: torch.Generator) -> torch.Tensor:
    """Lay fainter copies over the image, as movement in time with MR's phase encoding does."""
    every, strength = int(rng.integers(2, 6)), rng.uniform(0.05, 0.3)
    long = [axis for axis in range(1, image.ndim) if image.shape[axis] > every]
    axis = long[int(rng.integers(len(long)))] if long else 1
    lines = image.shape[axis]
    frequencies = torch.fft.fft(image, dim=axis)
    kept = torch.ones(lines, device=image.device)
    kept[::every] = 1 - strength
    kept[0] = 1.0  # the mean stays
    shape = [lines if other == axis else 1 for other in range(image.ndim)]
    ghosted: torch.Tensor = torch.fft.ifft(frequencies * kept.reshape(shape), dim=axis).real
    return ghosted.to(image.dtype)
