"""Normalisation of an image with padding: its statistics are those of the other voxels.

An image without padding is normalised by the bundle's MONAI chain (``transforms.py``), which takes
its statistics over the whole image. Here the same is done with those of the voxels that show
something; they alone would be normalised to the same values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medseg.bundle.spec import Intensity, MinMax, Window, ZScore
from medseg.volume import Volume

LEAST_PADDING = 1e-3
"""A voxel between others is padding from this share of it on; less is rounding."""


def normalise_shown(
    image: torch.Tensor,
    share_of_padding: torch.Tensor,
    intensities: Sequence[Intensity],
) -> torch.Tensor:
    """Normalise an image by the statistics of the voxels that padding has no part in.

    Args:
        image: float32 ``(channels, x, y, z)`` on the network's grid.
        share_of_padding: Of each voxel, 0 to 1; the same shape.
        intensities: How each channel is normalised.

    Returns:
        The image's shape. Padding is normalised by the value it has, as every other voxel.
    """
    normalised = []
    for channel, share, intensity in zip(
        image, share_of_padding, intensities, strict=True
    ):
        shown = channel[share < LEAST_PADDING]
        if not shown.numel():
            shown = channel.reshape(-1)
        normalised.append(_normalise_channel(channel, shown, intensity))
    return torch.stack(normalised)


def takes_statistics(intensities: Sequence[Intensity]) -> bool:
    """Tell whether voxels are normalised by other voxels: a window maps each by itself."""
    return not all(isinstance(kind, Window) for kind in intensities)


def lower_padding(volume: Volume, crop_above: float | None) -> Volume:
    """Return a scan of which no padding is above the threshold of its foreground.

    Where all that a scan shows is above it, so is the lowest value of that, which padding has.

    Args:
        volume: The scan.
        crop_above: The threshold, if the bundle has one.
    """
    if crop_above is None or not volume.padding:
        return volume
    array = volume.array.copy(order="K")
    volume.padding.lower(array, crop_above)
    return volume.with_array(array)


def _normalise_channel(
    channel: torch.Tensor, shown: torch.Tensor, intensity: Intensity
) -> torch.Tensor:
    from monai.transforms import ScaleIntensityRange

    match intensity:
        case Window():
            low, high = intensity.range
            scale = ScaleIntensityRange(
                intensity.low, intensity.high, low, high, clip=True
            )
            return scale(channel)  # type: ignore[no-any-return]
        case MinMax():
            return _scale(channel, shown)
        case ZScore():
            return _standardise(channel, shown, intensity)
    raise TypeError(f"no normalisation for {intensity!r}")


def _scale(channel: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Bring what is shown to 0…1; what is constant to 0, as MONAI does."""
    low = shown.min()
    width = shown.max() - low
    if not width:
        return torch.zeros_like(channel)
    return (channel - low) / width


def _standardise(
    channel: torch.Tensor, shown: torch.Tensor, intensity: ZScore
) -> torch.Tensor:
    from monai.transforms import NormalizeIntensity
    from monai.transforms.utils_pytorch_numpy_unification import percentile

    if intensity.clip_percentiles is not None:
        lower, upper = intensity.clip_percentiles
        low = float(percentile(shown, 100 * lower))
        high = float(percentile(shown, 100 * upper))
        channel = channel.clamp(low, high)
        shown = shown.clamp(low, high)
    if intensity.nonzero:
        shown = shown[shown != 0]
    if not shown.numel():
        return channel
    deviation = float(shown.std(unbiased=False))
    normalise = NormalizeIntensity(
        subtrahend=float(shown.mean()),
        divisor=deviation or 1.0,
        nonzero=intensity.nonzero,
    )
    return normalise(channel[None])[0]  # type: ignore[no-any-return]
