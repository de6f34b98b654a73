"""The pool of imperfect masks that a refiner learns to correct.

A mask is the output of the network itself, with its final weights or with those of an earlier
snapshot, or a true mask with errors put in; the image it belongs to is clean or corrupted. All
chance comes from (seed, step, item), so that a resumed run sees the same masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medseg.bundle.spec import (
    AUGMENTATIONS,
    AugmentationSpec,
    BundleSpec,
    MaskPoolSpec,
)
from medseg.networks.devices import choose_precision
from medseg.networks.inferers import build_training_inferer
from medseg.networks.levels import list_levels
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.augmentation import augment_intensities
from medseg.training.mask_errors import corrupt_mask, soften_mask
from medseg.training.patches import PatchBatches

NETWORK_INPUT = "network_input"
"""Key of a batch under which stands what a network gets, where that is more than the image."""

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
"""Probability of each change of a corrupted image."""

_STREAM = 1
"""Keeps the pool's random numbers apart from those of patches."""


class MaskPool:
    """An endless supply of batches for a refiner, the same for the same seed and step.

    Args:
        spec: The bundle.
        pool: Shares of the kinds of masks.
        batches: Where patches come from; they continue where the network's training ended.
        networks: The network with the weights of its snapshots, and last with its final ones.
        steps: Steps the refiner takes.
        device: Where batches are wanted.

    Attributes:
        first: The 1-based step that iteration begins with.
    """

    def __init__(
        self,
        spec: BundleSpec,
        pool: MaskPoolSpec,
        batches: PatchBatches,
        networks: Sequence[nn.Module],
        *,
        steps: int,
        device: torch.device,
    ) -> None:
        self._spec = spec
        self._pool = pool
        self._batches = batches
        self._device = device
        self._networks = [network.to(device).eval() for network in networks]
        self._infer = build_training_inferer(
            device, choose_precision(spec.training.precision, device)
        )
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
            ``image`` and ``label`` as ``PatchBatches`` gives them, some of the images corrupted,
            and ``network_input``: image and coarse logits, ``(batch, channels + classes, *patch)``.
        """
        patches = self._batches.batch(self._spec.training.steps + step)
        image = patches[IMAGE].clone()
        label = patches[LABEL]
        classes = self._spec.label_set.channels
        logits = image.new_empty(len(image), classes, *image.shape[2:])
        items_of_network: dict[int, list[int]] = {}
        for item in range(len(image)):
            rng, noise = self._seed_item(step, item)
            if rng.random() < self._pool.corrupted:
                clean = image[item][None]
                image[item] = augment_intensities(
                    clean, IMAGE_CORRUPTIONS, rng, noise
                )[0]
            if rng.random() < self._pool.faulty:
                true_mask = self._clear_ignored(label[item, 0])
                mask = corrupt_mask(true_mask, classes, rng, noise)
                logits[item] = soften_mask(mask, classes, rng)
            else:
                network = self._choose_network(rng)
                items_of_network.setdefault(network, []).append(item)
        # All items of a network in one pass, which is faster than one by one.
        for network, items in items_of_network.items():
            # One by one: a GPU would be waited for to index by a list.
            seen = torch.stack([image[item] for item in items])
            found = self._segment(seen, network)
            for item, scores in zip(items, found, strict=True):
                logits[item] = scores
        network_input = torch.cat([image, logits], dim=1)
        return {IMAGE: image, LABEL: label, NETWORK_INPUT: network_input}

    def _seed_item(
        self, step: int, item: int
    ) -> tuple[np.random.Generator, torch.Generator]:
        """Return the generators of an item: of its decisions, and of noise fields."""
        rng = np.random.default_rng(
            [self._spec.training.seed, step, item, _STREAM]
        )
        noise = torch.Generator(self._device)
        noise.manual_seed(int(rng.integers(2**62)))
        return rng, noise

    def _segment(self, image: torch.Tensor, network: int) -> torch.Tensor:
        """Return the logits of one of the networks, float32."""
        output = self._infer(image, self._networks[network])
        return list_levels(output)[0].float()

    def _clear_ignored(self, label: torch.Tensor) -> torch.Tensor:
        """Return a label map with background where it has the ignore index."""
        ignore_index = self._spec.label_set.ignore_index
        if ignore_index is None:
            return label
        return label.masked_fill(label == ignore_index, 0)

    def _choose_network(self, rng: np.random.Generator) -> int:
        """Choose a network: the final one in its share, the snapshots equally often."""
        final = len(self._networks) - 1
        is_final = rng.random() < self._pool.final
        share = rng.random()
        if is_final or final == 0:
            return final
        return int(share * final)
