"""How the scores of a voxel become its label.

Labels that exclude each other: the highest score wins. Regions, which overlap, are painted one
after the other: each shows its label where its logit is above 0, which is a probability above one
half, over what earlier regions painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from medseg.labels import LabelSet
from medseg.volume import Array


class Winners(NamedTuple):
    """Of each voxel, its highest score and who wins it."""

    highest: torch.Tensor
    winners: torch.Tensor


@dataclass(frozen=True, slots=True)
class Decoding:
    """The rule by which scores become labels.

    It works in *winners*: the channel with the highest score; with regions, 0 where none is, else
    one more than the channel of the last region that is there. What all corners of a cell have
    won, every linear mix of them wins: a mix of positive numbers is positive, and of others not.

    Attributes:
        paints: The label index that each region paints, in order; empty for labels that exclude
            each other.
    """

    paints: tuple[int, ...] = ()

    def compare(self, scores: torch.Tensor, dim: int = 0) -> Winners:
        """Say who wins each voxel.

        Args:
            scores: Logits, or any positive multiple of them.
            dim: The axis of channels, which the result does not have.
        """
        if not self.paints:
            return Winners(*scores.max(dim=dim))
        # One region after the other, so that memory does not grow with their number.
        winners = torch.zeros_like(scores.select(dim, 0), dtype=torch.int16)
        for place, logits in enumerate(scores.unbind(dim), start=1):
            winners.masked_fill_(logits > 0, place)
        return Winners(scores.amax(dim=dim), winners)

    def labels(self, winners: Array) -> Array:
        """Return the label indices of winners, of any shape."""
        if not self.paints:
            return winners
        table = np.array([0, *self.paints], np.min_scalar_type(max(self.paints)))
        return table[winners]


def choose_decoding(label_set: LabelSet) -> Decoding:
    """Return the rule that a bundle's labels need."""
    if not label_set.has_regions:
        return Decoding()
    return Decoding(tuple(region.paints for region in label_set.regions))
