"""How good a mask made by someone else probably is, from what a bundle thinks of the same scan.

The bound rests on the Jaccard distance being a metric (Kosub, Pattern Recognit Lett 2019): a mask
that lies within *a* of the bundle's own mask, which lies within *b* of the truth, lies within
*a + b* of the truth. So it holds as often as the bundle's bound for its own mask does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from medseg.bundle.spec import QualityFinding
from medseg.labels import LabelSet
from medseg.metrics.metrics import count_confusion, dice_from_confusion
from medseg.quality.calibration import estimate_quality
from medseg.quality.estimates import Agreement, MaskQuality, Quality
from medseg.volume import Array


def compute_mask_dice(one: Array, other: Array, label_set: LabelSet) -> dict[str, float]:
    """Return label name → Dice of two label maps, of the labels, or regions, that either holds.

    Args:
        one: Label indices ``(i, j, k)``.
        other: The same shape.
        label_set: What the indices mean.
    """
    dice = dice_from_confusion(count_confusion(one, other, label_set.classes), label_set)
    return {name: value for name, value in dice.items() if not math.isnan(value)}


def estimate_mask_quality(
    raw: Mapping[str, float],
    dice: Mapping[str, float],
    own: Quality,
    known: QualityFinding | None,
) -> MaskQuality:
    """Say how good a given mask probably is.

    Args:
        raw: Label name → its expected Dice under the bundle's probabilities.
        dice: Label name → Dice with the bundle's own mask, of the labels that either mask holds.
        own: The estimate for the bundle's own mask.
        known: The bundle's calibration, if it has one.
    """
    if not dice:
        return MaskQuality(None, {}, own, review=own.review)
    scores = {name: raw.get(name, 0.0) for name in dice}
    judged = estimate_quality(scores, known)
    expected = {name: found.expected for name, found in judged.labels.items()} if known else {}
    labels = {
        name: Agreement(scores[name], alike, expected.get(name), _lower(name, alike, own))
        for name, alike in dice.items()
    }
    mean = Agreement(
        float(np.mean(list(scores.values()))),
        float(np.mean(list(dice.values()))),
        judged.expected if known else None,
    )
    only_one = min(dice.values()) == 0
    return MaskQuality(mean, labels, own, review=judged.review or only_one)


def _lower(name: str, alike: float, own: Quality) -> float | None:
    if name not in own.labels:
        return None
    bound = own.labels[name].lower
    if bound is None:
        return None
    overlap = max(_jaccard(alike) + _jaccard(bound) - 1, 0.0)
    return round(2 * overlap / (1 + overlap), 4)


def _jaccard(dice: float) -> float:
    return dice / (2 - dice)
