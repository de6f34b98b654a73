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
from medseg.inference.confidence import (
    ClassTotals,
    ConfidenceAccumulator,
    round_percent,
)
from medseg.labels import LabelSet
from medseg.networks.decoding import choose_decoding
from medseg.networks.loading import OutputLayout
from medseg.volume import Array


def make_confidence(
    label_set: LabelSet,
    shape: tuple[int, int, int],
    layout: OutputLayout,
    given: Array | None = None,
    temperatures: Sequence[float] = (1.0,),
) -> ConfidenceAccumulator:
    """Return what adds up the probabilities of a bundle's labels or regions.

    Args:
        label_set: The bundle's labels.
        shape: Voxels of the network's grid.
        layout: What the network's channels are.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
    """
    if label_set.has_regions:
        return RegionConfidenceAccumulator(
            label_set, shape, given, temperatures
        )
    return ConfidenceAccumulator(
        shape, layout.parts, layout.chosen, given, temperatures
    )


def sum_by_channel(totals: ClassTotals, label_set: LabelSet) -> ClassTotals:
    """Return the voxels of each output channel's mask, given those of each label index."""
    if not label_set.has_regions:
        return totals
    of_regions = []
    for region in label_set.regions:
        of_labels = totals[list(region.labels)]
        of_regions.append(of_labels.sum())
    return np.array(of_regions)


class RegionConfidenceAccumulator(ConfidenceAccumulator):
    """Adds up the probabilities of regions as planes of the network's grid become final.

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
        self._decoding = choose_decoding(label_set)
        # What ``_get_codes`` returns: label indices where labels are given, else winners.
        label_of_code: Sequence[int] = range(label_set.classes)
        if given is None:
            label_of_code = (0, *self._decoding.paints)
        self._in_region = _list_membership(label_set, label_of_code)

    def _add_planes(self, scores: Accumulator, planes: slice) -> None:
        held = scores.locate_planes(planes.start, planes.stop)
        weights = scores.weights[..., held]
        logits = scores.sums[..., held] / weights
        codes = self._get_codes(logits, planes)
        most_wrong = torch.zeros_like(logits[0])
        # One region after the other, so that memory does not grow with their number.
        for channel, in_region in enumerate(self._in_region.to(logits.device)):
            mask = in_region[codes]
            self._sizes[channel] += int(mask.sum())
            for row, temperature in enumerate(self._temperatures):
                probability = (logits[channel] / temperature).sigmoid()
                self._add_probability(probability, mask, row, channel)
                if row == 0:
                    wrong = (mask.float() - probability).abs()
                    most_wrong = torch.maximum(most_wrong, wrong)
        self._errors[..., planes] = round_percent(most_wrong)

    def _add_probability(
        self,
        probability: torch.Tensor,
        mask: torch.Tensor,
        row: int,
        channel: int,
    ) -> None:
        """Add up one region's probability at one temperature."""
        peak = probability.max()
        # In double: single precision loses what a whole slab adds up to.
        everywhere = probability.sum(dtype=torch.float64)
        inside = (probability * mask).sum(dtype=torch.float64)
        highest = self._peaks[row, channel]
        self._peaks[row, channel] = max(highest, float(peak))
        self._everywhere[row, 0, channel] += float(everywhere)
        self._inside[row, 0, channel] += float(inside)

    def _get_codes(self, logits: torch.Tensor, planes: slice) -> torch.Tensor:
        """Return the labels that were given, or who won; ``self._in_region`` knows which."""
        if self._given is None:
            return self._decoding.find_winners(logits).winners.int()
        given = self._given[..., planes].astype(np.int32)
        return torch.from_numpy(given).to(logits.device)


def _list_membership(
    label_set: LabelSet, labels: Sequence[int]
) -> torch.Tensor:
    """Return which regions a voxel of each label is in, bool ``(regions, labels)``."""
    rows = []
    for region in label_set.regions:
        rows.append([label in region.labels for label in labels])
    return torch.tensor(rows)
