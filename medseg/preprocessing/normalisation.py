"""Normalises intensities as a bundle says, by the statistics of the voxels that have part in them.

Where all have, MONAI's transforms do it; on a GPU they would wait for each number, so that mean and
deviation stay there. Padding has no part: an image is normalised to the values
it would have without. And nnU-Net's mask leaves out what is 0 in all channels, but not the holes
inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import (
    BundleSpec,
    Intensity,
    IntensitySequence,
    IntensityStep,
    MinMax,
    NoNormalisation,
    ZScore,
)
from medseg.preprocessing.transforms import (
    IMAGE,
    LEAST_DEVIATION,
    build_chain,
    normalisation_steps,
    steps_of_intensity,
)

if TYPE_CHECKING:
    from monai.transforms import Compose

LEAST_PADDING = 1e-3
"""A voxel between others is padding from this share of it on; less is rounding."""


class Normalisation:
    """Normalises images.

    Args:
        spec: The bundle.

    Attributes:
        takes_statistics: Whether what a voxel becomes depends on others.
    """

    def __init__(self, spec: BundleSpec) -> None:
        self._steps = [list_steps(kind) for kind in spec.intensities]
        all_steps = [step for steps in self._steps for step in steps]
        self.takes_statistics = any(
            isinstance(step, ZScore | MinMax) for step in all_steps
        )
        self._needs_mask = any(map(_is_within_mask, all_steps))
        self._chain = build_chain(normalisation_steps(spec))

    def __call__(
        self,
        image: torch.Tensor,
        share_of_padding: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a normalised image.

        Args:
            image: float32 ``(channels, i, j, k)``; may be overwritten.
            share_of_padding: Of each voxel, 0 to 1; the same shape. Padding is normalised by the
                value it has, as every other voxel.

        Raises:
            RuntimeError: As MONAI's transforms do.
            ValueError: Likewise.
        """
        if share_of_padding is None and not self._needs_mask:
            if image.device.type == "cpu" or not self.takes_statistics:
                return _run(self._chain, image)
            return self._normalise_on_device(image)
        mask = None
        if self._needs_mask:
            mask = _find_body(image)
        channels = []
        for number, steps in enumerate(self._steps):
            channel = image[number]
            shown = torch.ones_like(channel, dtype=torch.bool)
            if share_of_padding is not None:
                shown = share_of_padding[number] < LEAST_PADDING
            for step in steps:
                channel = _normalise(channel, shown, mask, step)
            channels.append(channel)
        return torch.stack(channels)

    def _normalise_on_device(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise an image in place; no number is brought to the host where none need be."""
        for channel, steps in zip(image, self._steps, strict=True):
            normalised = channel
            for step in steps:
                normalised = _take_step_on_device(normalised, step)
            channel.copy_(normalised)
        return image


def list_steps(intensity: Intensity) -> tuple[IntensityStep, ...]:
    """Return what is done to a channel, one act after the other."""
    match intensity:
        case IntensitySequence():
            return intensity.steps
        case NoNormalisation():
            return ()
        case _:
            return (intensity,)


def fill_holes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return a mask ``(i, j, k)`` with what it encloses.

    What reaches the border through voxels that share faces is not enclosed, as in
    ``scipy.ndimage.binary_fill_holes``, which takes many passes over the image.
    """
    from scipy.ndimage import label

    pieces, count = label(~mask)
    is_open = np.zeros(count + 1, bool)
    for axis in range(3):
        for border in (0, -1):
            is_open[pieces.take(border, axis=axis)] = True
    is_open[0] = False  # the mask itself
    filled: npt.NDArray[np.bool_] = ~is_open[pieces]
    return filled


def _find_body(image: torch.Tensor) -> torch.Tensor:
    """Return nnU-Net's mask: what is not 0 in any channel, and what that encloses."""
    nonzero = (image != 0).any(dim=0)
    filled = fill_holes(nonzero.cpu().numpy())
    return torch.from_numpy(filled).to(image.device)


def _is_within_mask(step: IntensityStep) -> bool:
    return isinstance(step, ZScore) and step.nonzero == "filled"


def _normalise(
    channel: torch.Tensor,
    shown: torch.Tensor,
    mask: torch.Tensor | None,
    step: IntensityStep,
) -> torch.Tensor:
    """Take one step with a channel ``(i, j, k)``, by the voxels that show something."""
    values = channel[shown]
    if not values.numel():
        values = channel.reshape(-1)
    match step:
        case MinMax():
            return _scale(channel, values, step)
        case ZScore() if mask is not None and _is_within_mask(step):
            within = channel[shown & mask]
            standardised = _standardise(channel, within, step)
            return torch.where(mask, standardised, 0.0)
        case ZScore():
            return _standardise(channel, values, step)
        case _:
            chain = build_chain(steps_of_intensity(step, IMAGE))
            return _run(chain, channel[None])[0]


def _take_step_on_device(
    channel: torch.Tensor, step: IntensityStep
) -> torch.Tensor:
    match step:
        case ZScore(subtract="mean", clip_percentiles=None):
            return standardise_on_device(
                channel, leaves_zeros=bool(step.nonzero)
            )
        case _:
            chain = build_chain(steps_of_intensity(step, IMAGE))
            return _run(chain, channel[None])[0]


def standardise_on_device(
    channel: torch.Tensor, *, leaves_zeros: bool
) -> torch.Tensor:
    """Subtract the mean and divide by the deviation, both of which stay on the device.

    As MONAI's ``NormalizeIntensity``, which brings both to the host: on a CPU to the last bit
    where all voxels have part in them.

    Args:
        channel: float32, any shape.
        leaves_zeros: Whether voxels that are 0 have no part in them, and stay.
    """
    if not leaves_zeros:
        mean = channel.mean()
        deviation = channel.std(unbiased=False)
        return (channel - mean) / _replace_zero(deviation)
    has_part = channel != 0
    count = has_part.sum()
    # In double: single precision would lose what as many voxels add up to.
    total = channel.sum(dtype=torch.float64)
    mean = (total / count).float()
    apart = channel - mean
    of_part = torch.where(has_part, apart, 0.0)
    squares = of_part.square_().sum(dtype=torch.float64)
    variance = squares / count
    deviation = variance.sqrt().float()
    apart /= _replace_zero(deviation)
    return torch.where(has_part, apart, channel)


def _replace_zero(deviation: torch.Tensor) -> torch.Tensor:
    return torch.where(deviation == 0, 1.0, deviation)


def _scale(
    channel: torch.Tensor, shown: torch.Tensor, step: MinMax
) -> torch.Tensor:
    """Bring what is shown to the wanted range; what is constant to its lowest, as MONAI does."""
    lowest, highest = step.to
    low = shown.min()
    width = shown.max() - low
    if not width:
        return torch.full_like(channel, lowest)
    return (channel - low) / width * (highest - lowest) + lowest


def _standardise(
    channel: torch.Tensor, shown: torch.Tensor, step: ZScore
) -> torch.Tensor:
    from monai.transforms import NormalizeIntensity
    from monai.transforms.utils_pytorch_numpy_unification import percentile

    if not shown.numel():
        return channel
    if step.subtract == "lowest":
        return (channel - shown.min()) / _get_deviation(shown)
    if step.clip_percentiles is not None:
        lower, upper = step.clip_percentiles
        low = float(percentile(shown, 100 * lower))
        high = float(percentile(shown, 100 * upper))
        channel = channel.clamp(low, high)
        shown = shown.clamp(low, high)
    leaves_zeros = step.nonzero is True
    if leaves_zeros:
        shown = shown[shown != 0]
    if not shown.numel():
        return channel
    deviation = float(shown.std(unbiased=False))
    normalise = NormalizeIntensity(
        subtrahend=float(shown.mean()),
        divisor=deviation or 1.0,
        nonzero=leaves_zeros,
    )
    return _as_plain(normalise(channel[None]))[0]


def _get_deviation(shown: torch.Tensor) -> torch.Tensor:
    if shown.numel() == 1:
        return torch.full_like(shown[0], LEAST_DEVIATION)
    return shown.std().clamp_min(LEAST_DEVIATION)


def _run(chain: Compose, image: torch.Tensor) -> torch.Tensor:
    return _as_plain(chain({IMAGE: image})[IMAGE])


def _as_plain(image: torch.Tensor) -> torch.Tensor:
    """Return an image without what MONAI remembers of it."""
    from monai.data import MetaTensor

    if isinstance(image, MetaTensor):
        return image.as_tensor()  # type: ignore[no-any-return]
    return image
