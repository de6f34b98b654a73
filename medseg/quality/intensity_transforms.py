"""Changes of intensities as scanners make them: one function per act, under the field's name.

They compute and draw nothing: whoever calls them decides by chance, training for augmentation
(``medseg.training.augmentation``), quality for scans made worse on purpose
(``medseg.quality.corruptions``). Images are float32 ``(channels, *size)`` in 2D or 3D, on any
device, and are not changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional


def spatial_axes(image: torch.Tensor) -> tuple[int, ...]:
    """Return the axes of ``(channels, *size)`` behind that of the channels."""
    return tuple(range(1, image.ndim))


def noise(
    image: torch.Tensor, field: torch.Tensor, sd: float | torch.Tensor
) -> torch.Tensor:
    """Add noise.

    Args:
        image: ``(channels, *size)``.
        field: Noise of standard deviation 1, of the same shape.
        sd: Standard deviation of the noise, in the image's unit: one number.
    """
    return image + sd * field


def blur(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur by a Gaussian that reaches three standard deviations; borders are replicated.

    Args:
        image: ``(channels, *size)``.
        sigma: Standard deviation, in voxels.
    """
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(
        -radius, radius + 1, dtype=image.dtype, device=image.device
    )
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    blurred = image[:, None]
    for axis in range(2, blurred.ndim):
        blurred = _convolve(blurred, kernel, axis)
    return blurred[:, 0]


def _convolve(
    images: torch.Tensor, kernel: torch.Tensor, axis: int
) -> torch.Tensor:
    """Convolve ``(batch, 1, *size)`` along one axis; borders are replicated."""
    dims = images.ndim - 2
    radius = len(kernel) // 2
    shape = [1] * images.ndim
    shape[axis] = len(kernel)
    # Torch wants the padding of the last axis first, before and behind.
    padding = [0] * (2 * dims)
    first = 2 * (images.ndim - 1 - axis)
    padding[first : first + 2] = [radius, radius]
    padded = functional.pad(images, padding, mode="replicate")
    convolve = functional.conv3d if dims == 3 else functional.conv2d
    return convolve(padded, kernel.reshape(shape))


def bias_field(
    image: torch.Tensor,
    coefficients: Sequence[tuple[float, float]],
    limit: float | None = None,
) -> torch.Tensor:
    """Multiply by a smooth field, the exponential of a polynomial, as MR coils shade an image.

    The model is that of Van Leemput et al., IEEE TMI 1999.

    Args:
        image: ``(channels, *size)``, with 0 where there is no signal.
        coefficients: For each axis, those of the position (−1 to 1) and of its square.
        limit: Largest magnitude of the polynomial; ``None`` for no limit.
    """
    size = image.shape[1:]
    axes = [
        torch.linspace(-1, 1, length, device=image.device) for length in size
    ]
    grid = torch.meshgrid(*axes, indexing="ij")
    field = torch.zeros(size, device=image.device)
    for position, (linear, quadratic) in zip(grid, coefficients, strict=True):
        field = field + linear * position + quadratic * position**2
    if limit is not None:
        field = field.clamp(-limit, limit)
    return image * torch.exp(field)


def brightness(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply intensities by a factor."""
    return image * factor


def contrast(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Spread intensities about each channel's mean by a factor; they stay in their range."""
    axes = spatial_axes(image)
    mean = image.mean(dim=axes, keepdim=True)
    low = image.amin(dim=axes, keepdim=True)
    high = image.amax(dim=axes, keepdim=True)
    spread = (image - mean) * factor + mean
    return torch.clamp(spread, min=low, max=high)


def low_resolution(
    image: torch.Tensor, size: Sequence[int], *, align_corners: bool = False
) -> torch.Tensor:
    """Sample an image on a coarser grid, and interpolate it back linearly.

    Args:
        image: ``(channels, *size)``.
        size: Of the coarser grid, one number for each axis.
        align_corners: Whether the first and the last voxels of both grids coincide; then samples
            are interpolated linearly (as by ``scipy.ndimage.zoom``), otherwise the nearest voxel
            is taken (as by nnU-Net).
    """
    linear = "trilinear" if image.ndim == 4 else "bilinear"
    batch = image[None]
    if align_corners:
        coarse = functional.interpolate(
            batch, size=size, mode=linear, align_corners=True
        )
    else:
        coarse = functional.interpolate(batch, size=size, mode="nearest")
    fine = functional.interpolate(
        coarse, size=image.shape[1:], mode=linear, align_corners=align_corners
    )
    return fine[0]


def gamma(image: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise the magnitude of intensities to a power; 0, 1 and −1 stay.

    Args:
        image: ``(channels, *size)``, the bulk of it from 0 to 1.
        exponent: Above 0; below 1 makes an image brighter, above 1 darker.
    """
    return image.sign() * image.abs() ** exponent


def ghosting(
    image: torch.Tensor, axis: int, every: int, strength: float
) -> torch.Tensor:
    """Lay fainter copies over an image, as periodic motion along MR's phase encoding does.

    Every n-th line of k-space is dimmed (TorchIO's ``RandomGhosting``); the mean stays.

    Args:
        image: ``(channels, *size)``.
        axis: The axis of ``image`` along which copies appear; 0 is that of the channels.
        every: How many copies share the axis: the distance of dimmed lines.
        strength: Share by which these lines are dimmed, 0 to 1.
    """
    lines = image.shape[axis]
    dimming = torch.ones(lines, device=image.device)
    dimming[::every].fill_(1 - strength)
    dimming[0].fill_(1.0)  # the line of the mean
    shape = [1] * image.ndim
    shape[axis] = lines
    spectrum = torch.fft.fft(image, dim=axis)
    dimmed = spectrum * dimming.reshape(shape)
    ghosted: torch.Tensor = torch.fft.ifft(dimmed, dim=axis).real
    return ghosted.to(image.dtype)
