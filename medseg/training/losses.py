"""What training minimises: Dice and cross-entropy, at every supervised level.

Labels that exclude each other are scored under a softmax; regions, which overlap, each under a
sigmoid of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional

from medseg.bundle.spec import BundleSpec, TrainingSpec
from medseg.labels import LabelSet

_LEAST_MASS = 1e-7
"""Below what one annotated voxel can weigh."""


def build_loss(spec: BundleSpec) -> LevelLoss:
    """Return the loss that a bundle asks for."""
    labels = spec.label_set
    if labels.has_regions:
        return RegionLoss(spec.training, labels, spec.class_weights)
    return SegmentationLoss(spec.training, labels.ignore_index, spec.class_weights)


class LevelLoss(nn.Module, ABC):
    """Weighted soft Dice and cross-entropy over the supervised levels.

    Level ``n`` below the finest weighs ``2⁻ⁿ`` (weights sum to one), and is scored against the
    label map at its own size, sampled by nearest neighbour, as in nnU-Net (Isensee et al., Nat
    Methods 2021). The Dice term pools the batch. Voxels that nobody annotated are in neither term.

    Args:
        training: The bundle's training section, for the weights of the two terms.
    """

    def __init__(self, training: TrainingSpec) -> None:
        super().__init__()
        self._dice_weight, self._ce_weight = training.dice_weight, training.ce_weight
        self.parts: dict[str, torch.Tensor] = {}
        """The finest level's ``dice`` and ``ce`` of the last call, before weighting."""

    def forward(self, levels: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Score logits against a label map.

        Args:
            levels: Logits, fine to coarse, each ``(batch, channels, …)``.
            label: Label indices, ``(batch, 1, *patch)``, int64.

        Returns:
            The loss, a scalar.
        """
        weights = [2.0**-level for level in range(len(levels))]
        total = levels[0].new_zeros((), dtype=torch.float32)
        for depth, (weight, logits) in enumerate(zip(weights, levels, strict=True)):
            # Probabilities and sums in half precision lose small structures.
            dice, ce = self._terms(logits.float(), _at_size(label, logits.shape[2:]))
            if depth == 0:
                self.parts = {"dice": dice.detach(), "ce": ce.detach()}
            total = total + weight / sum(weights) * (
                self._dice_weight * dice + self._ce_weight * ce
            )
        return total

    @abstractmethod
    def _terms(
        self, logits: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Dice loss and cross-entropy of one level.

        Args:
            logits: ``(batch, channels, …)``, float32.
            label: Label indices of the same size, ``(batch, 1, …)``, int64.
        """


class SegmentationLoss(LevelLoss):
    """The loss of labels that exclude each other.

    The Dice term leaves background out. Where classes have weights, it is the labels' weighted
    mean, and cross-entropy the voxels' mean, each weighing as its class does.

    Args:
        training: The bundle's training section, for the weights of the two terms.
        ignored: The index of voxels that nobody annotated.
        weights: Of background and each label; the labels' mean is 1.
    """

    def __init__(
        self,
        training: TrainingSpec,
        ignored: int | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(training)
        self._dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            ignore_index=ignored,
            weight=None if weights is None else weights[1:],
        )
        self._ignored, self._weights = ignored, weights

    def _terms(
        self, logits: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._dice(logits, label), self._cross_entropy(logits, label[:, 0])

    def _cross_entropy(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        weights = None if self._weights is None else logits.new_tensor(self._weights)
        if self._ignored is None:
            return functional.cross_entropy(logits, label, weights)
        total = functional.cross_entropy(
            logits, label, weights, ignore_index=self._ignored, reduction="sum"
        )
        known = label != self._ignored
        mass = known if weights is None else weights[label.masked_fill(~known, 0)] * known
        # Of a batch without one annotated voxel the mean would be no number.
        return total / mass.sum().clamp(min=_LEAST_MASS)


class RegionLoss(LevelLoss):
    """The loss of regions: of each, the Dice and the binary cross-entropy of its own sigmoid.

    Both terms are means over the regions, weighted where regions have weights; cross-entropy is
    the mean over the annotated voxels.

    Args:
        training: The bundle's training section, for the weights of the two terms.
        labels: The labels and their regions.
        weights: Of each region; their mean is 1.
    """

    def __init__(
        self, training: TrainingSpec, labels: LabelSet, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(training)
        self._dice = DiceLoss(batch=True, weight=weights)
        self._ignored = labels.ignore_index
        self._weights = torch.tensor(weights or [1.0] * labels.channels)
        # One row more than labels and background: what nobody annotated is in no region.
        self._members = torch.zeros(labels.classes + 1, labels.channels)
        for region in labels.regions:
            self._members[list(region.labels), region.channel] = 1

    def _terms(
        self, logits: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        there = self._members.to(logits.device)[label[:, 0]].movedim(-1, 1)
        known = torch.ones_like(label, dtype=logits.dtype)
        if self._ignored is not None:
            known = (label != self._ignored).to(logits.dtype)
        dice = self._dice(logits.sigmoid() * known, there)
        each = functional.binary_cross_entropy_with_logits(logits, there, reduction="none") * known
        over_voxels = each.sum(dim=(0, *range(2, each.ndim))) / known.sum().clamp(min=1)
        return dice, (over_voxels * self._weights.to(logits.device)).mean()


def _at_size(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if label.shape[2:] == size:
        return label
    return functional.interpolate(label.float(), size=size, mode="nearest-exact").long()
