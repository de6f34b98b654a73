"""Augmentation of intensities: what changes by chance, how often, and how strongly.

Chance is apart from computation: a ``draw_…`` function draws the parameters of one transform and
returns the transform; what it computes is in ``medseg.quality.intensity_transforms``. Strengths
follow nnU-Net's (Isensee et al., Nat Methods 2021, supplement), and the bias field is a low-order
polynomial as MR coils make it (Van Leemput et al., IEEE TMI 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from medseg.bundle.spec import AugmentationSpec
from medseg.quality import intensity_transforms as intensity

Transform = Callable[[torch.Tensor], torch.Tensor]
"""Changes one image ``(channels, *patch)``; its parameters are drawn already."""

Draw = Callable[[torch.Size, np.random.Generator, torch.Generator], Transform]
"""Draws a transform for an image of a shape ``(channels, *patch)``.

The first generator draws parameters, the second one fills noise fields on its device.
"""


_SMALLEST_WIDTH = 1e-7
"""Of a range of intensities that is divided by; that of a constant image is 0."""


def augment_intensities(
    images: torch.Tensor,
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> torch.Tensor:
    """Change each image of a batch by some of the bundle's transforms of intensities.

    Args:
        images: ``(batch, channels, *patch)``, normalised intensities; not changed.
        augmentation: How often each transform happens.
        rng: Decides what happens, and how strongly.
        noise: Fills noise fields, on the images' device.

    Returns:
        Images of the same shape.
    """
    draws: tuple[tuple[float, Draw], ...] = (
        (augmentation.noise, draw_noise),
        (augmentation.blur, draw_blur),
        (augmentation.bias_field, draw_bias_field),
        (augmentation.brightness, draw_brightness),
        (augmentation.contrast, draw_contrast),
        (augmentation.low_resolution, draw_low_resolution),
        (augmentation.gamma, draw_gamma),
        (augmentation.ghosting, draw_ghosting),
    )
    augmented = []
    for image in images:
        for probability, draw in draws:
            if rng.random() < probability:
                transform = draw(image.shape, rng, noise)
                image = transform(image)
        augmented.append(image)
    return torch.stack(augmented)


def draw_noise(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw Gaussian noise of up to 0.3 times the image's own spread."""
    share = rng.uniform(0, 0.3)
    field = torch.randn(shape, generator=noise, device=noise.device)
    return partial(_add_noise, field=field, share=share)


def draw_blur(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a Gaussian blur of half a voxel to one voxel."""
    return partial(intensity.blur, sigma=rng.uniform(0.5, 1.0))


def draw_bias_field(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a bias field, about as strong as those of MR at 3 T."""
    coefficients = []
    for _ in shape[1:]:
        linear = float(rng.normal(0, 0.25))
        quadratic = float(rng.normal(0, 0.25))
        coefficients.append((linear, quadratic))
    return partial(_add_bias_field, coefficients=coefficients)


def draw_brightness(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a change of brightness by up to a quarter."""
    return partial(intensity.brightness, factor=rng.uniform(0.75, 1.25))


def draw_contrast(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a change of contrast by up to a quarter."""
    return partial(intensity.contrast, factor=rng.uniform(0.75, 1.25))


def draw_low_resolution(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a grid of half as many voxels to all of them along each axis."""
    share = rng.uniform(0.5, 1.0)
    size = []
    for length in shape[1:]:
        size.append(1 if length == 1 else max(2, round(length * share)))
    return partial(intensity.low_resolution, size=size)


def draw_gamma(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw a gamma curve, of the inverted image in one of four cases."""
    exponent = rng.uniform(0.7, 1.5)
    is_inverted = rng.random() < 0.25
    return partial(_bend_gamma, exponent=exponent, is_inverted=is_inverted)


def draw_ghosting(
    shape: torch.Size, rng: np.random.Generator, noise: torch.Generator
) -> Transform:
    """Draw mild ghosts along one axis."""
    every = int(rng.integers(2, 6))
    strength = rng.uniform(0.05, 0.3)
    # A shorter axis has no line to dim besides that of the mean.
    long_axes = [axis for axis in range(1, len(shape)) if shape[axis] > every]
    axis = 1
    if long_axes:
        axis = long_axes[int(rng.integers(len(long_axes)))]
    return partial(
        intensity.ghosting, axis=axis, every=every, strength=strength
    )


def _add_noise(
    image: torch.Tensor, field: torch.Tensor, share: float
) -> torch.Tensor:
    """Add noise whose standard deviation is a share of the image's."""
    # In double, as Python would multiply; but on a GPU a Python number would be waited for.
    sd = share * image.std().double()
    return intensity.noise(image, field, sd)


def _add_bias_field(
    image: torch.Tensor, coefficients: list[tuple[float, float]]
) -> torch.Tensor:
    """Shade an image whose darkest voxel stands for no signal."""
    lowest = image.amin(dim=intensity.spatial_axes(image), keepdim=True)
    shaded = intensity.bias_field(image - lowest, coefficients)
    return shaded + lowest


def _bend_gamma(
    image: torch.Tensor, exponent: float, is_inverted: bool
) -> torch.Tensor:
    """Bend the curve of an image from its lowest to its highest value; mean and spread stay."""
    axes = intensity.spatial_axes(image)
    bent = -image if is_inverted else image
    low = bent.amin(dim=axes, keepdim=True)
    high = bent.amax(dim=axes, keepdim=True)
    width = (high - low).clamp_min(_SMALLEST_WIDTH)
    unit = (bent - low) / width
    bent = intensity.gamma(unit, exponent) * width + low
    if is_inverted:
        bent = -bent
    # Mean and spread stay, so that only the curve's shape is varied.
    return _match_mean_and_spread(bent, image)


def _match_mean_and_spread(
    image: torch.Tensor, other: torch.Tensor
) -> torch.Tensor:
    """Give each channel of an image the mean and the standard deviation of another's."""
    axes = intensity.spatial_axes(image)
    mean = image.mean(axes, keepdim=True)
    spread = image.std(axes, keepdim=True).clamp_min(_SMALLEST_WIDTH)
    standard = (image - mean) / spread
    other_mean = other.mean(axes, keepdim=True)
    other_spread = other.std(axes, keepdim=True)
    return standard * other_spread + other_mean
