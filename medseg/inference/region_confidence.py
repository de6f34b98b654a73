"""How sure a network is of regions, which overlap: each is judged under its own sigmoid.

The score is that of ``medseg.inference.confidence``. A voxel's label is right where it is of the
right regions all together. How probable that is depends on how they hang together; it is at most
the smallest of the regions' own probabilities, and the error map shows what is left of that. For
regions that lie in each other this is exact where one alone is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import (
    ClassTotals,
    ConfidenceAccumulator,
    round_percent,
)
from medseg.inference.host_writer import HostWriter
from medseg.labels import LabelSet
from medseg.networks.decoding import choose_decoding
from medseg.networks.loading import OutputLayout
from medseg.preprocessing.sending import send
from medseg.volume import Array


def make_confidence(
    label_set: LabelSet,
    shape: tuple[int, int, int],
    layout: OutputLayout,
    given: Array | None = None,
    temperatures: Sequence[float] = (1.0,),
    host: HostWriter | None = None,
) -> ConfidenceAccumulator:
    """Return what adds up the probabilities of a bundle's labels or regions.

    Args:
        label_set: The bundle's labels.
        shape: Voxels of the network's grid.
        layout: What the network's channels are.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
        host: Adds up what a GPU has found.
    """
    if label_set.has_regions:
        return RegionConfidenceAccumulator(
            label_set, shape, given, temperatures, host
        )
    return ConfidenceAccumulator(
        shape, layout.parts, layout.chosen, given, temperatures, host
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
        host: Adds up what a GPU has found.
    """

    def __init__(
        self,
        label_set: LabelSet,
        shape: tuple[int, int, int],
        given: Array | None = None,
        temperatures: Sequence[float] = (1.0,),
        host: HostWriter | None = None,
    ) -> None:
        parts = [slice(0, label_set.channels)]
        super().__init__(shape, parts, 0, given, temperatures, host)
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
        regions = send(self._in_region, logits.device)
        for channel, in_region in enumerate(regions):
            mask = in_region[codes]
            found = [mask.sum().double()]
            for row, temperature in enumerate(self._temperatures):
                probability = (logits[channel] / temperature).sigmoid()
                # In double: single precision loses what a whole slab adds up to.
                inside = (probability * mask).sum(dtype=torch.float64)
                everywhere = probability.sum(dtype=torch.float64)
                found += [probability.max().double(), inside, everywhere]
                if row == 0:
                    wrong = (mask.float() - probability).abs()
                    most_wrong = torch.maximum(most_wrong, wrong)
            # Together, so that a GPU copies once.
            add = partial(self._add_region, channel)
            self._host.write(torch.stack(found), add)
        percent = round_percent(most_wrong)
        self._host.write(percent, partial(self._put_errors, planes))

    def _add_region(self, channel: int, found: Array) -> None:
        """Add what some planes have of a region: its size, then peak and sums at temperatures."""
        size, *of_rows = found
        self._sizes[channel] += size
        at_rows = np.reshape(of_rows, (-1, 3))
        peaks, inside, everywhere = at_rows.T
        self._peaks[:, channel] = np.maximum(self._peaks[:, channel], peaks)
        self._inside[:, 0, channel] += inside
        self._everywhere[:, 0, channel] += everywhere

    def _get_codes(self, logits: torch.Tensor, planes: slice) -> torch.Tensor:
        """Return the labels that were given, or who won; ``self._in_region`` knows which."""
        if self._given is None:
            return self._decoding.find_winners(logits).winners.int()
        given = self._given[..., planes].astype(np.int32)
        return send(torch.from_numpy(given), logits.device)


def _list_membership(
    label_set: LabelSet, labels: Sequence[int]
) -> torch.Tensor:
    """Return which regions a voxel of each label is in, bool ``(regions, labels)``."""
    rows = []
    for region in label_set.regions:
        rows.append([label in region.labels for label in labels])
    return torch.tensor(rows)
