"""Decoding: how the scores of a voxel become its label.

Labels that exclude each other: the highest score wins (argmax). Regions, which overlap, are
decoded one after the other, as in nnU-Net's ``regions_class_order``: each shows its label where
its logit is above 0, which is a probability above one half, over what earlier regions showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from medseg.labels import LabelSet
from medseg.volume import Array

Resample = Literal["logits", "probabilities", "labels"]

_HALF = 0.5


class Winners(NamedTuple):
    """Of each voxel, its highest score and its winner."""

    highest: torch.Tensor
    winners: torch.Tensor


@dataclass(frozen=True, slots=True)
class Decoding:
    """The rule by which scores become labels.

    It works in *winners*: the channel with the highest score; with regions, 0 where none is, else
    one more than the channel of the last region that is there. Where all corners of a cell have
    the same winner, every linear interpolation of them has it, too: a mix of positive numbers is
    positive, and a mix of negative ones negative.

    Attributes:
        paints: The label index that each region shows, in order; empty for labels that exclude
            each other.
        resample: What is brought to another grid: ``logits``, ``probabilities`` or ``labels``.
    """

    paints: tuple[int, ...] = ()
    resample: Resample = "logits"

    def find_winners(self, scores: torch.Tensor, dim: int = 0) -> Winners:
        """Return the winner of each voxel.

        Args:
            scores: Logits, or any positive multiple of them.
            dim: The axis of channels, which the result does not have.
        """
        if not self.paints:
            # Not argmax, which is several times slower on a CPU.
            return Winners(*scores.max(dim=dim))
        # One region after the other, so that memory does not grow with their number.
        winners = torch.zeros_like(scores.select(dim, 0), dtype=torch.int16)
        for position, logits in enumerate(scores.unbind(dim), start=1):
            winners.masked_fill_(logits > 0, position)
        return Winners(scores.amax(dim=dim), winners)

    def to_interpolated(
        self, logits: torch.Tensor, dim: int = 0
    ) -> torch.Tensor:
        """Return what is interpolated of logits; it has the same winners.

        Args:
            logits: Any shape.
            dim: The axis of channels.
        """
        if self.resample != "probabilities":
            return logits
        if self.paints:
            # A region is there from one half on, as a logit is from zero.
            return logits.sigmoid() - _HALF
        return logits.softmax(dim=dim)

    def to_probabilities(
        self, logits: torch.Tensor, temperature: float, dim: int = 0
    ) -> torch.Tensor:
        """Return the probability of each class, or of each region by itself.

        Args:
            logits: Any shape.
            temperature: What they are divided by first.
            dim: The axis of channels.
        """
        scaled = logits / temperature
        if self.paints:
            return scaled.sigmoid()
        return scaled.softmax(dim=dim)

    def to_labels(self, winners: Array) -> Array:
        """Return the label indices of winners, of any shape."""
        if not self.paints:
            return winners
        smallest_type = np.min_scalar_type(max(self.paints))
        table = np.array([0, *self.paints], smallest_type)
        return table[winners]


def choose_decoding(
    label_set: LabelSet, resample: Resample = "logits"
) -> Decoding:
    """Return the rule that a bundle's labels need.

    Args:
        label_set: The labels.
        resample: What is brought to another grid, as the bundle's ``inference.resample`` says.
    """
    if not label_set.has_regions:
        return Decoding(resample=resample)
    paints = tuple(region.paints for region in label_set.regions)
    return Decoding(paints, resample)
