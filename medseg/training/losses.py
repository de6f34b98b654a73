"""What training minimises: the losses a bundle may name, at every supervised level.

A loss scores one level: logits against a label map of the same size. ``DeepSupervisionLoss``
weighs the levels and is what the trainer minimises.

An installed package adds a loss by an entry point in the group ``medseg.losses``, and a bundle
names it in ``training.loss``::

    [project.entry-points."medseg.losses"]
    focal = "my_package.losses:FocalLoss"

The entry point is a class, or a function, that takes a ``LossContext`` and returns a
``LevelLoss``. ``medseg.testing.losses.LossContract`` tests one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional

from medseg._support.registry import Registry
from medseg.bundle.spec import BundleSpec
from medseg.errors import BundleError, Fault
from medseg.labels import LabelSet

_LEAST_MASS = 1e-7
"""Below what one labelled voxel can weigh."""


@dataclass(frozen=True, slots=True)
class LossContext:
    """What a loss is built from.

    Attributes:
        labels: Labels and regions. Logits have ``labels.channels`` channels: background and each
            label, which exclude each other; or, if ``labels.has_regions``, one per region, which
            overlap. ``labels.ignore_index``, if not ``None``, marks voxels that must not count.
        class_weights: One weight per channel; ``None`` weighs all alike. Those of the labels
            (without background), or of the regions, have a mean of 1.
        dice_weight: ``training.dice_weight`` of the bundle.
        ce_weight: ``training.ce_weight`` of the bundle.
    """

    labels: LabelSet
    class_weights: tuple[float, ...] | None = None
    dice_weight: float = 1.0
    ce_weight: float = 1.0


class LossTerms(NamedTuple):
    """A loss and what it is made of.

    Attributes:
        total: What to minimise, a float32 scalar with a gradient to the logits.
        parts: Name → scalar, the terms before weighting; curves and MLflow show them. The names
            ``critic`` and ``adversarial``, and those that begin so, are taken.
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


class LevelLoss(Protocol):
    """The contract of a loss: scores the logits of one level.

    * The same inputs give the same loss: no state, and no random numbers of its own.
    * Voxels with the ignore index change neither the loss nor any gradient; a batch of nothing
      else has a finite loss and no gradient.
    * A perfect prediction costs less than a wrong one.
    * It works in 2D and 3D, on the device of the logits, and with any number of channels.
    """

    def __call__(self, logits: torch.Tensor, label: torch.Tensor) -> LossTerms:
        """Score logits against a label map.

        Args:
            logits: ``(batch, channels, *size)``, float32, before any softmax or sigmoid.
            label: Label indices, ``(batch, 1, *size)``, int64.
        """


LossFactory = Callable[[LossContext], LevelLoss]
"""What the registry holds: builds a loss. It raises ``ValueError`` for labels it cannot score."""


class DeepSupervisionLoss(nn.Module):
    """A loss over all supervised levels.

    Level ``n`` below the finest weighs ``2⁻ⁿ`` (weights sum to one), and is scored against the
    label map at its own size, sampled by nearest neighbour, as in nnU-Net (Isensee et al., Nat
    Methods 2021).

    Args:
        loss: Scores one level.

    Attributes:
        parts: The finest level's terms of the last call, before weighting.
    """

    def __init__(self, loss: LevelLoss) -> None:
        super().__init__()
        self._loss = loss
        self.parts: dict[str, torch.Tensor] = {}

    def forward(
        self, levels: Sequence[torch.Tensor], label: torch.Tensor
    ) -> torch.Tensor:
        """Score logits against a label map.

        Args:
            levels: Logits, fine to coarse, each ``(batch, channels, …)``.
            label: Label indices, ``(batch, 1, *patch)``, int64.

        Returns:
            The loss, a scalar.
        """
        by_level = [self._score_level(logits, label) for logits in levels]
        finest = by_level[0]
        self.parts = {
            name: part.detach() for name, part in finest.parts.items()
        }
        total = levels[0].new_zeros((), dtype=torch.float32)
        for weight, terms in zip(
            _level_weights(len(levels)), by_level, strict=True
        ):
            total = total + weight * terms.total
        return total

    def _score_level(
        self, logits: torch.Tensor, label: torch.Tensor
    ) -> LossTerms:
        label = _resize_label(label, logits.shape[2:])
        # Probabilities and sums in half precision lose small structures.
        return self._loss(logits.float(), label)


class DiceCELoss:
    """Soft Dice and cross-entropy of labels that exclude each other.

    The Dice term pools the batch and leaves background out. Where classes have weights, it is
    the labels' weighted mean, and cross-entropy is the voxels' mean, each weighing as its class.

    Args:
        context: Labels and weights.
    """

    def __init__(self, context: LossContext) -> None:
        weights = context.class_weights
        self._context = context
        self._dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            ignore_index=context.labels.ignore_index,
            weight=None if weights is None else weights[1:],
        )

    def __call__(self, logits: torch.Tensor, label: torch.Tensor) -> LossTerms:
        """Score the logits of one level; see ``LevelLoss``."""
        dice = self._dice(logits, label)
        ce = self._cross_entropy(logits, label[:, 0])
        return _weigh_terms(dice, ce, self._context)

    def _cross_entropy(
        self, logits: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        ignore_index = self._context.labels.ignore_index
        weights = None
        if self._context.class_weights is not None:
            weights = logits.new_tensor(self._context.class_weights)
        if ignore_index is None:
            return functional.cross_entropy(logits, label, weights)
        total = functional.cross_entropy(
            logits, label, weights, ignore_index=ignore_index, reduction="sum"
        )
        mass = label != ignore_index
        if weights is not None:
            mass = weights[label.masked_fill(~mass, 0)] * mass
        # Torch's own mean would be NaN for a batch of ignored voxels alone.
        return total / mass.sum().clamp(min=_LEAST_MASS)


class RegionDiceCELoss:
    """Soft Dice and binary cross-entropy of regions, which overlap: a sigmoid for each.

    The Dice term pools the batch; both terms are means over the regions, weighted where regions
    have weights. Cross-entropy is the mean over the voxels without the ignore index.

    Args:
        context: Labels with regions, and weights.
    """

    def __init__(self, context: LossContext) -> None:
        labels = context.labels
        weights = context.class_weights
        self._context = context
        self._dice = DiceLoss(batch=True, weight=weights)
        self._region_weights = torch.tensor(weights or [1.0] * labels.channels)
        # A row for background, for each label, and for the ignore index, which is in no region.
        self._membership = torch.zeros(labels.classes + 1, labels.channels)
        for region in labels.regions:
            self._membership[list(region.labels), region.channel] = 1

    def __call__(self, logits: torch.Tensor, label: torch.Tensor) -> LossTerms:
        """Score the logits of one level; see ``LevelLoss``."""
        membership = self._membership.to(logits.device)
        target = membership[label[:, 0]].movedim(-1, 1)
        known = self._find_known(label).to(logits.dtype)
        dice = self._dice(logits.sigmoid() * known, target)
        ce = self._cross_entropy(logits, target, known)
        return _weigh_terms(dice, ce, self._context)

    def _find_known(self, label: torch.Tensor) -> torch.Tensor:
        """Return which voxels count."""
        ignore_index = self._context.labels.ignore_index
        if ignore_index is None:
            return torch.ones_like(label, dtype=torch.bool)
        return label != ignore_index

    def _cross_entropy(
        self, logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor
    ) -> torch.Tensor:
        entropy = functional.binary_cross_entropy_with_logits(
            logits,
            target,
            reduction="none",
        )
        voxel_axes = (0, *range(2, logits.ndim))
        sums = (entropy * known).sum(dim=voxel_axes)
        by_region = sums / known.sum().clamp(min=1)
        weights = self._region_weights.to(logits.device)
        return (by_region * weights).mean()


def _level_weights(count: int) -> list[float]:
    """Return the weights of levels, fine to coarse; each is half the one before."""
    weights = [2.0**-depth for depth in range(count)]
    total = sum(weights)
    return [weight / total for weight in weights]


def _weigh_terms(
    dice: torch.Tensor, ce: torch.Tensor, context: LossContext
) -> LossTerms:
    total = context.dice_weight * dice + context.ce_weight * ce
    return LossTerms(total, {"dice": dice, "ce": ce})


def build_dice_ce(context: LossContext) -> LevelLoss:
    """Build Dice and cross-entropy: under a softmax, or a sigmoid for each region."""
    if context.labels.has_regions:
        return RegionDiceCELoss(context)
    return DiceCELoss(context)


def _check_factory(factory: LossFactory) -> None:
    if not callable(factory):
        raise TypeError(
            "a loss is a class or function that takes a LossContext"
        )


LOSSES: Registry[LossFactory] = Registry(
    "medseg.losses", "loss", {"dice_ce": build_dice_ce}, _check_factory
)
"""The losses that ``training.loss`` may name."""


def build_loss(spec: BundleSpec) -> DeepSupervisionLoss:
    """Build the loss that a bundle names.

    Raises:
        BundleError: If there is none of that name, or it cannot score the bundle's labels.
        MissingExtraError: If the package that provides it cannot be loaded.
    """
    context = LossContext(
        spec.label_set,
        spec.class_weights,
        dice_weight=spec.training.dice_weight,
        ce_weight=spec.training.ce_weight,
    )
    factory = _find_factory(spec.training.loss)
    try:
        return DeepSupervisionLoss(factory(context))
    except ValueError as error:
        what = f"'{spec.training.loss}' cannot score this bundle's labels; name another loss"
        raise BundleError(
            "the loss cannot be used with this bundle's labels",
            [Fault("training.loss", what, detail=str(error))],
        ) from error


def check_loss(spec: BundleSpec) -> None:
    """Make sure that a bundle's loss exists and takes its labels.

    Raises:
        BundleError: If it does not.
        MissingExtraError: If the package that provides it cannot be loaded.
    """
    build_loss(spec)


def _find_factory(name: str) -> LossFactory:
    if name not in LOSSES.names:
        known = ", ".join(LOSSES.names)
        raise BundleError(
            "the bundle names a loss that is not installed",
            [
                Fault(
                    "training.loss",
                    f"there is no loss '{name}'; the losses installed here are {known}. Name one "
                    "of them, or install the package that provides it",
                )
            ],
        )
    return LOSSES.get(name)


def _resize_label(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if label.shape[2:] == size:
        return label
    return functional.interpolate(
        label.float(), size=size, mode="nearest-exact"
    ).long()
