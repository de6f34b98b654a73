"""How good a mask made by someone else probably is, from what a bundle thinks of the same scan.

The bound rests on the Jaccard distance being a metric (Kosub, Pattern Recognit Lett 2019): a mask
that lies within *a* of the bundle's own mask, which lies within *b* of the truth, lies within
*a + b* of the truth. So it holds as often as the bundle's bound for its own mask does. The
expected Dice is the middle of what the same inequality allows: the confidence in the own mask was
learned from own masks, and says of another one only how far it agrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from medseg.bundle.spec import QualityFinding
from medseg.labels import LabelSet
from medseg.metrics.confusion import count_confusion, dice_from_confusion
from medseg.quality.calibration import BELOW_LIMIT
from medseg.quality.estimates import (
    Agreement,
    LabelQuality,
    MaskQuality,
    Quality,
)
from medseg.volume import Array


def compute_mask_dice(
    one: Array, other: Array, label_set: LabelSet
) -> dict[str, float]:
    """Return label name → Dice of two label maps.

    Args:
        one: Label indices ``(i, j, k)``.
        other: The same shape.
        label_set: What the indices mean.

    Returns:
        Dice of the labels, or regions, that at least one of the two holds.
    """
    confusion = count_confusion(one, other, label_set.classes)
    dice = dice_from_confusion(confusion, label_set)
    return {
        name: value for name, value in dice.items() if not math.isnan(value)
    }


def estimate_mask_quality(
    raw: Mapping[str, float],
    dice: Mapping[str, float],
    own: Quality,
    calibration: QualityFinding | None,
) -> MaskQuality:
    """Estimate how good a given mask is.

    Args:
        raw: Label name → its expected Dice under the bundle's probabilities.
        dice: Label name → Dice with the bundle's own mask, of the labels that either mask holds.
        own: The estimate for the bundle's own mask.
        calibration: The bundle's, if it has one.
    """
    if not dice:
        return MaskQuality(
            None, {}, own, review=own.review, reasons=own.reasons
        )
    scores = {name: raw.get(name, 0.0) for name in dice}
    is_calibrated = calibration is not None
    labels = {}
    for name, agreement in dice.items():
        labels[name] = Agreement(
            raw=scores[name],
            dice=agreement,
            expected=_expect(agreement, own.labels.get(name), is_calibrated),
            lower=_lower_bound(agreement, own, name),
        )
    mean = Agreement(
        raw=_mean(scores),
        dice=_mean(dice),
        expected=_expect(_mean(dice), own, is_calibrated),
    )
    # A label of one mask alone: one of the two must be wrong, however likely either is.
    one_sided = [name for name, value in dice.items() if value == 0]
    reasons = list(own.departures)
    if calibration is not None and _is_low(_mean(dice), own, calibration):
        reasons.insert(0, BELOW_LIMIT)
    if one_sided:
        names = ", ".join(one_sided)
        reasons.append(f"mask and bundle have nothing of {names} in common")
    return MaskQuality(
        mean,
        labels,
        own,
        review=bool(reasons),
        reasons=tuple(reasons),
    )


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _expect(
    dice: float, own: Quality | LabelQuality | None, is_calibrated: bool
) -> float | None:
    """Return the Dice to be expected of a mask: the middle of what the triangle inequality allows.

    If the own mask lies *b* from the truth and the given one *c* from the own one, the given one
    lies between ``|c - b|`` and ``c + b`` from the truth. The middle is the greater of the two, and
    so, said in overlaps, the lesser Dice.

    Args:
        dice: Dice of the given mask with the bundle's own.
        own: The estimate for the bundle's own mask, or the label in it.
        is_calibrated: Whether that means anything by itself.
    """
    if not is_calibrated:
        return None
    if own is None or own.expected is None:
        return round(dice, 4)
    return round(min(dice, own.expected), 4)


def _is_low(dice: float, own: Quality, calibration: QualityFinding) -> bool:
    """Tell whether a mask's expected Dice is below the limit: its own part, or the agreement."""
    return BELOW_LIMIT in own.reasons or dice < calibration.review_below


def _lower_bound(dice: float, own: Quality, name: str) -> float | None:
    """Bound the true Dice of a label: that of the own mask, less how far the masks lie apart.

    Args:
        dice: Dice of the given mask with the bundle's own.
        own: The estimate for the bundle's own mask.
        name: The label.
    """
    label = own.labels.get(name)
    if label is None or label.lower is None:
        return None
    # The triangle inequality of the Jaccard distance, 1 − J, said in overlaps.
    overlap = _jaccard(dice) + _jaccard(label.lower) - 1
    overlap = max(overlap, 0.0)
    bound = 2 * overlap / (1 + overlap)
    return round(bound, 4)


def _jaccard(dice: float) -> float:
    return dice / (2 - dice)
