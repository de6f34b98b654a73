"""The bank of imperfect masks that a refiner learns from. All chance comes from (seed, step, item).

A mask is the answer of the network itself, now or at an earlier time of its training, or a true
mask with made-up faults; the image it belongs to is clean or corrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medseg.bundle.spec import AUGMENTATIONS, AugmentationSpec, BundleSpec, MaskBankSpec
from medseg.networks.devices import training_precision
from medseg.networks.inferers import training_inferer
from medseg.networks.unet import levels_of
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.augmentation import augment_intensities
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_errors import corrupt_mask, soften_mask

NETWORK_INPUT = "given"
"""Key of what a network is given where that is more than the image."""

IMAGE_CORRUPTIONS: AugmentationSpec = AUGMENTATIONS["none"].model_copy(
    update={
        "noise": 0.3,
        "blur": 0.3,
        "bias_field": 0.3,
        "brightness": 0.3,
        "contrast": 0.3,
        "low_resolution": 0.3,
        "gamma": 0.3,
        "ghosting": 0.3,
    }
)
"""How often corrupted images are changed in which way."""

_STREAM = 1
"""Keeps the bank's chance apart from that of patches."""


class MaskPool:
    """An endless supply of batches for a refiner, the same for the same seed and step.

    Args:
        spec: The bundle.
        bank: What the bank is made of.
        batches: Where patches come from; they go on where the network's training ended.
        networks: The network at earlier times of its training, and last as it is now.
        steps: Steps the refiner takes.
        device: Where batches are wanted.
    """

    def __init__(
        self,
        spec: BundleSpec,
        bank: MaskBankSpec,
        batches: PatchBatches,
        networks: Sequence[nn.Module],
        *,
        steps: int,
        device: torch.device,
    ) -> None:
        self._spec, self._bank, self._batches, self._device = spec, bank, batches, device
        self._networks = [network.to(device).eval() for network in networks]
        self._infer = training_inferer(device, training_precision(spec, device))
        self._steps = steps
        self.first = 1

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        step = self.first
        while True:
            yield self.batch(step)
            step += 1

    @torch.no_grad()
    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a 1-based step.

        Returns:
            ``image`` and ``label`` as ``PatchBatches`` gives them, the images corrupted in part,
            and ``given``: image and coarse logits, ``(batch, channels + classes, *patch)``.
        """
        drawn = self._batches.batch(self._spec.training.steps + step)
        image, label = drawn[IMAGE].clone(), drawn[LABEL]
        logits = image.new_empty(len(image), self._spec.label_set.channels, *image.shape[2:])
        asked: dict[int, list[int]] = {}
        for item in range(len(image)):
            rng = np.random.default_rng([self._spec.training.seed, step, item, _STREAM])
            noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
            if rng.random() < self._bank.corrupted:
                image[item] = augment_intensities(image[item][None], IMAGE_CORRUPTIONS, rng, noise)[
                    0
                ]
            if rng.random() < self._bank.faulty:
                faulty = corrupt_mask(self._known(label[item, 0]), logits.shape[1], rng, noise)
                logits[item] = soften_mask(faulty, logits.shape[1], rng)
            else:
                asked.setdefault(self._source(rng), []).append(item)
        for source, items in asked.items():
            answer = levels_of(self._infer(image[items], self._networks[source]))[0]
            logits[items] = answer.float()
        return {IMAGE: image, LABEL: label, NETWORK_INPUT: torch.cat([image, logits], dim=1)}

    def _known(self, label: torch.Tensor) -> torch.Tensor:
        """Return a label map with background where nobody annotated."""
        ignored = self._spec.label_set.ignore_index
        return label if ignored is None else label.masked_fill(label == ignored, 0)

    def _source(self, rng: np.random.Generator) -> int:
        """Choose a network: the last in its share, the earlier ones equally often."""
        last = len(self._networks) - 1
        is_last, other = rng.random() < self._bank.final, rng.random()
        return last if is_last or last == 0 else int(other * last)
