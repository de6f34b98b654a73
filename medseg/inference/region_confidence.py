"""How sure a network is of regions, which overlap: each is judged under its own sigmoid.

The score is that of ``medseg.inference.confidence``. A voxel's label is right where it is of the
right regions all together. How probable that is depends on how they hang together; it is at most
the smallest of the regions' own probabilities, and the error map shows what is left of that. For
regions that lie in each other this is exact where one alone is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import PERCENT, Confidence, Totals
from medseg.labels import LabelSet
from medseg.networks.decoding import painting_of
from medseg.networks.loading import Answer
from medseg.volume import Array


def confidence_of(
    label_set: LabelSet,
    shape: tuple[int, int, int],
    answer: Answer,
    given: Array | None = None,
    temperatures: Sequence[float] = (1.0,),
) -> Confidence:
    """Return what adds up the probabilities of a bundle's labels or regions.

    Args:
        label_set: The bundle's labels.
        shape: Voxels of the network's grid.
        answer: What the network's channels are.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
    """
    if label_set.has_regions:
        return RegionConfidence(label_set, shape, given, temperatures)
    return Confidence(shape, answer.parts, answer.chosen, given, temperatures)


def sizes_of_channels(voxels: Totals, label_set: LabelSet) -> Totals:
    """Return the voxels of each output channel's mask, given those of each label index."""
    if not label_set.has_regions:
        return voxels
    return np.array([voxels[list(region.labels)].sum() for region in label_set.regions])


class RegionConfidence(Confidence):
    """Adds up the probabilities of regions as planes of the network's grid become finished.

    Args:
        label_set: The labels and their regions.
        shape: Voxels of the network's grid.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
    """

    def __init__(
        self,
        label_set: LabelSet,
        shape: tuple[int, int, int],
        given: Array | None = None,
        temperatures: Sequence[float] = (1.0,),
    ) -> None:
        parts = [slice(0, label_set.channels)]
        super().__init__(shape, parts, given=given, temperatures=temperatures)
        self._painting = painting_of(label_set)
        shown = range(label_set.classes) if given is not None else (0, *self._painting.paints)
        self._members = _members(label_set, shown)

    def _take_planes(self, scores: Accumulator, here: slice) -> None:
        held = slice(here.start - scores.first, here.stop - scores.first)
        logits = scores.sums[..., held] / scores.weights[..., held]
        codes = self._codes(logits, here)
        doubt = torch.zeros_like(logits[0])
        # One region after the other, so that memory does not grow with their number.
        for channel, members in enumerate(self._members.to(logits.device)):
            mask = members[codes]
            self._sizes[channel] += int(mask.sum())
            for row, temperature in enumerate(self._temperatures):
                probability = (logits[channel] / temperature).sigmoid()
                self._take_probability(probability, mask, row, channel)
                if row == 0:
                    doubt = torch.maximum(doubt, (mask.float() - probability).abs())
        self._doubt[..., here] = (PERCENT * doubt).round().to(torch.uint8).cpu().numpy()

    def _take_probability(
        self, probability: torch.Tensor, mask: torch.Tensor, row: int, channel: int
    ) -> None:
        """Add up one region's probability at one temperature."""
        self._peaks[row, channel] = max(self._peaks[row, channel], float(probability.max()))
        # In double: single precision loses what a whole slab adds up to.
        self._everywhere[row, 0, channel] += float(probability.sum(dtype=torch.float64))
        self._inside[row, 0, channel] += float((probability * mask).sum(dtype=torch.float64))

    def _codes(self, logits: torch.Tensor, here: slice) -> torch.Tensor:
        """Return the labels that were given, or who won; ``self._members`` knows which."""
        if self._given is None:
            return self._painting.compare(logits).winners.int()
        planes = self._given[..., here].astype(np.int32)
        return torch.from_numpy(planes).to(logits.device)


def _members(label_set: LabelSet, shown: Sequence[int]) -> torch.Tensor:
    """Return which regions a voxel is in that shows some label, bool ``(regions, shown)``."""
    return torch.tensor(
        [[index in region.labels for index in shown] for region in label_set.regions]
    )
