"""What training minimises: Dice and cross-entropy, at every supervised level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional

from medseg.words.config import TrainingSpec

_LEAST_MASS = 1e-7
"""Below what one annotated voxel can weigh."""


class SegmentationLoss(nn.Module):
    """Weighted soft Dice and cross-entropy over the supervised levels.

    Level ``n`` below the finest weighs ``2⁻ⁿ`` (weights sum to one), and is scored against the
    label map at its own size, sampled by nearest neighbour, as in nnU-Net (Isensee et al., Nat
    Methods 2021). The Dice term pools the batch and leaves background out. Voxels that nobody
    annotated are in neither term. Where classes have weights, the Dice term is the labels' weighted
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
        super().__init__()
        self._dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            ignore_index=ignored,
            weight=None if weights is None else weights[1:],
        )
        self._ignored, self._weights = ignored, weights
        self._dice_weight, self._ce_weight = training.dice_weight, training.ce_weight
        self.parts: dict[str, torch.Tensor] = {}
        """The finest level's ``dice`` and ``ce`` of the last call, before weighting."""

    def forward(self, levels: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Score logits against a label map.

        Args:
            levels: Logits, fine to coarse, each ``(batch, classes, …)``.
            label: Label indices, ``(batch, 1, *patch)``, int64.

        Returns:
            The loss, a scalar.
        """
        weights = [2.0**-level for level in range(len(levels))]
        total = levels[0].new_zeros((), dtype=torch.float32)
        for depth, (weight, logits) in enumerate(zip(weights, levels, strict=True)):
            # Softmax and sums in half precision lose small structures.
            dice, ce = self._terms(logits.float(), _at_size(label, logits.shape[2:]))
            if depth == 0:
                self.parts = {"dice": dice.detach(), "ce": ce.detach()}
            total = total + weight / sum(weights) * (
                self._dice_weight * dice + self._ce_weight * ce
            )
        return total

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


def _at_size(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if label.shape[2:] == size:
        return label
    return functional.interpolate(label.float(), size=size, mode="nearest-exact").long()
