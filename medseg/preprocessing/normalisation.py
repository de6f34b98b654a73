"""Normalises intensities as a bundle says: by MONAI's transforms, or within nnU-Net's mask.

MONAI takes mean and deviation of an image or of its non-zero voxels, channel by channel. nnU-Net's
mask is one for all channels, with its holes filled.
"""

from __future__ import annotations

from collections.abc import Sequence

import monai.transforms
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from scipy.ndimage import label

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
    Step,
    build_transform,
    normalisation_steps,
    steps_of_intensity,
)

_LEAST_DEVIATION = 1e-8


class Normalisation:
    """Normalises images.

    Args:
        spec: The bundle.

    Attributes:
        is_voxelwise: Whether what a voxel becomes does not depend on the others.
    """

    def __init__(self, spec: BundleSpec) -> None:
        self._steps = [list_steps(kind) for kind in spec.intensities]
        all_steps = [step for steps in self._steps for step in steps]
        self.is_voxelwise = not any(
            isinstance(step, ZScore | MinMax) for step in all_steps
        )
        self._needs_mask = any(map(_is_within_mask, all_steps))
        self._chain = _build_chain(normalisation_steps(spec))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return a normalised image; ``image``, ``(channels, i, j, k)``, may be overwritten.

        Raises:
            RuntimeError: As MONAI's transforms do.
            ValueError: Likewise.
        """
        if not self._needs_mask:
            return _run(self._chain, image)
        nonzero = (image != 0).any(dim=0)
        filled = fill_holes(nonzero.cpu().numpy())
        mask = torch.from_numpy(filled).to(image.device)
        channels = []
        for channel, steps in zip(image, self._steps, strict=True):
            normalised = channel[None]
            for step in steps:
                normalised = _normalise(normalised, step, mask)
            channels.append(normalised)
        return torch.cat(channels)


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
    pieces, count = label(~mask)
    is_open = np.zeros(count + 1, bool)
    for axis in range(3):
        for border in (0, -1):
            is_open[pieces.take(border, axis=axis)] = True
    is_open[0] = False  # the mask itself
    filled: npt.NDArray[np.bool_] = ~is_open[pieces]
    return filled


def _is_within_mask(step: IntensityStep) -> bool:
    return isinstance(step, ZScore) and step.nonzero == "filled"


def _normalise(
    channel: torch.Tensor, step: IntensityStep, mask: torch.Tensor
) -> torch.Tensor:
    """Normalise one channel ``(1, i, j, k)``."""
    if not (isinstance(step, ZScore) and _is_within_mask(step)):
        return _run(_build_chain(steps_of_intensity(step, IMAGE)), channel)
    if step.clip_percentiles is not None:
        clip, _ = steps_of_intensity(step, IMAGE)
        channel = _run(_build_chain([clip]), channel)
    within = channel[0][mask]
    deviation = within.std(unbiased=False).clamp_min(_LEAST_DEVIATION)
    standardised = (channel - within.mean()) / deviation
    return torch.where(mask, standardised, 0.0)


def _build_chain(steps: Sequence[Step]) -> monai.transforms.Compose:
    return monai.transforms.Compose([build_transform(step) for step in steps])


def _run(chain: monai.transforms.Compose, image: torch.Tensor) -> torch.Tensor:
    normalised: torch.Tensor = chain({IMAGE: image})[IMAGE]
    if isinstance(normalised, MetaTensor):
        return normalised.as_tensor()  # type: ignore[no-any-return]
    return normalised
