"""From raw scores of confidence to expected Dice with a bound, learned on held-back cases.

The expected value is an isotonic regression (Barlow et al. 1972) of true Dice on the raw score,
made continuous by drawing lines between the centres of its steps, so that it keeps the scores'
order. The bound is conformal (Papadopoulos et al. 2002; Lei et al., JASA 2018): the residuals of
clean cases, each left out of the regression that judges it, divided by a scale that grows as the
expected Dice falls.

Raw scores depend on the temperature that logits are divided by. Of those tried, the one is taken at
which the regression errs least on results that it has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from medseg.bundle.spec import CalibrationSpec, QualityFinding
from medseg.quality.estimates import LabelQuality, Quality

MIN_CLEAN_RESULTS = 8
"""Clean held-back results needed for a calibration: fewer cannot bound nine in ten."""

PERFECT = 1.02
"""Expected Dice at which the scale of errors would be nothing."""

TEMPERATURES = (0.7, 0.5, 0.35, 0.25)
"""What logits are divided by, besides 1. Networks that are not sure enough need less than 1; one
that is too sure keeps its order, and the regression mends its values."""

_LEAST_GAIN = 0.02
"""Share by which the squared error must fall for another temperature than 1."""

_SPLITS = 5

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """One held-back result.

    Attributes:
        case: Which case; its corrupted copies have the same name.
        scores: Label name → raw expected Dice, of the structures found.
        dice: Label name → true Dice, of the structures that are in either mask.
        is_clean: Whether the scan was as it came, not corrupted on purpose.
        scores_at: Temperature → scores at it, where others than 1 were tried.
    """

    case: str
    scores: Mapping[str, float]
    dice: Mapping[str, float]
    is_clean: bool = True
    scores_at: Mapping[float, Mapping[str, float]] = field(default_factory=dict)

    def at(self, temperature: float) -> CalibrationSample:
        """Return the sample with the scores at one of its temperatures."""
        return self if temperature == 1 else replace(self, scores=self.scores_at[temperature])

    def pair(self, label: str | None) -> tuple[float, float] | None:
        """Return raw score and true Dice of a label, or of the mean over labels."""
        if label is not None:
            truth = self.dice.get(label, math.nan)
            score = self.scores.get(label)
            return None if score is None or math.isnan(truth) else (score, truth)
        known = [value for value in self.dice.values() if not math.isnan(value)]
        if not self.scores or not known:
            return None
        return float(np.mean(list(self.scores.values()))), float(np.mean(known))


def calibrate(
    samples: Sequence[CalibrationSample],
    labels: Sequence[str],
    *,
    coverage: float = 0.9,
    review_share: float = 0.1,
) -> QualityFinding | None:
    """Learn what raw scores mean.

    Args:
        samples: Held-back results, clean and corrupted.
        labels: Names of the structures.
        coverage: Share of clean results whose true Dice shall be at or above the bound. Of few
            results the bound is the lowest that was seen, and what is stated is how often that
            holds.
        review_share: Share of clean results that shall be flagged for review.

    Returns:
        ``None`` if there are fewer than ``FEWEST`` clean results.
    """
    temperature = _best_temperature(samples)
    samples = [one.at(temperature) for one in samples]
    case = _calibration(samples, None, coverage)
    if case is None:
        return None
    clean = [pair[0] for one in samples if one.is_clean and (pair := one.pair(None))]
    each = {label: _calibration(samples, label, coverage) for label in labels}
    known = {label: found for label, found in each.items() if found is not None}
    return QualityFinding(
        case=case,
        labels=known,
        coverage=min(coverage, *(_most_coverage(samples, label) for label in (None, *known))),
        review_share=review_share,
        review_below=float(np.quantile(predict_dice(case, np.array(clean)), review_share)),
        temperature=temperature,
    )


def _most_coverage(samples: Sequence[CalibrationSample], label: str | None) -> float:
    """Return how often a bound can hold at most: a new result may be worse than all clean ones."""
    count = sum(one.is_clean and one.pair(label) is not None for one in samples)
    return count / (count + 1)


def _best_temperature(samples: Sequence[CalibrationSample]) -> float:
    """Return the temperature whose regression errs least on left-out cases; 1 if none is better.

    The squared error is of results that have a score at every temperature.
    """
    common = set(samples[0].scores_at if samples else ()).intersection(
        *(one.scores_at for one in samples)
    )
    tried = (1.0, *sorted(common, reverse=True))
    rows = [[one.at(temperature).pair(None) for temperature in tried] for one in samples]
    known = np.array([n for n, row in enumerate(rows) if all(row)], dtype=int)
    if len(known) < MIN_CLEAN_RESULTS:
        return 1.0
    pairs = np.array([rows[n] for n in known], dtype=float)  # (results, temperatures, 2)
    cases, dice = [samples[n].case for n in known], pairs[:, 0, 1]
    errors = [((_left_out(scores, dice, cases) - dice) ** 2).mean() for scores in pairs[..., 0].T]
    best = int(np.argmin(errors))
    return tried[best] if errors[best] < (1 - _LEAST_GAIN) * errors[0] else 1.0


def _calibration(
    samples: Sequence[CalibrationSample], label: str | None, coverage: float
) -> CalibrationSpec | None:
    rows = [(one, pair) for one in samples if (pair := one.pair(label))]
    scores = np.array([pair[0] for _, pair in rows])
    dice = np.array([pair[1] for _, pair in rows])
    clean = np.array([one.is_clean for one, _ in rows], dtype=bool)
    if clean.sum() < MIN_CLEAN_RESULTS:
        return None
    knots = _isotonic(scores, dice)
    expected = _left_out(scores, dice, [one.case for one, _ in rows])
    errors = np.sort(((expected - dice) / (PERFECT - expected))[clean])
    rank = min(math.ceil((len(errors) + 1) * coverage), len(errors))
    return CalibrationSpec(
        scores=tuple(knots[0].tolist()),
        dice=tuple(knots[1].tolist()),
        margin=float(errors[rank - 1]),
        cases=len(rows),
    )


def _left_out(scores: Numbers, dice: Numbers, cases: Sequence[str]) -> Numbers:
    """Return what each result is expected to be by a regression that has not seen its case."""
    order = {name: n for n, name in enumerate(dict.fromkeys(cases))}
    split = np.array([order[name] % _SPLITS for name in cases])
    expected = np.empty_like(scores)
    for here in range(_SPLITS):
        left_out = split == here
        if left_out.any():
            expected[left_out] = np.interp(
                scores[left_out], *_isotonic(scores[~left_out], dice[~left_out])
            )
    return expected


def _isotonic(scores: Numbers, dice: Numbers) -> tuple[Numbers, Numbers]:
    """Return the knots of a rising curve through ``(score, dice)``, from score 0 to 1."""
    from scipy.optimize import isotonic_regression

    # Equal scores are one point, or their order in the list would matter.
    points, where, weights = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(where, dice) / weights
    fit = isotonic_regression(means, weights=weights)
    starts = fit.blocks[:-1]
    centres = np.add.reduceat(points * weights, starts) / np.add.reduceat(weights, starts)
    values = np.clip(fit.x[starts], 0, 1)
    keep = np.concatenate([[True], np.diff(centres) > 1e-9]) & (centres > 1e-6) & (centres < 1)
    centres, values = centres[keep], values[keep]
    # Beyond the scores that were seen: towards nothing below, at the scores' own pace above.
    last = (centres[-1], values[-1]) if len(centres) else (0.0, 0.0)
    top = min(1.0, last[1] + (1 - last[0]))
    knots = np.concatenate([[0.0], centres, [1.0]])
    return knots, np.maximum.accumulate(np.concatenate([[0.0], values, [top]]))


def predict_dice(calibration: CalibrationSpec, scores: Numbers) -> Numbers:
    """Return the Dice that raw scores stand for."""
    return np.interp(scores, calibration.scores, calibration.dice)


def estimate_quality(scores: Mapping[str, float], known: QualityFinding | None) -> Quality:
    """Say how good a result probably is.

    Args:
        scores: Label name → raw expected Dice, of the structures found.
        known: The bundle's calibration, if it has one.
    """
    if not scores:
        return Quality(is_calibrated=known is not None, review=True)
    raw = float(np.mean(list(scores.values())))
    if known is None:
        return Quality(raw, labels={name: LabelQuality(value) for name, value in scores.items()})
    whole = _estimate(known.case, raw)
    return Quality(
        whole.expected,
        whole.lower,
        {name: _estimate(known.labels.get(name, known.case), s) for name, s in scores.items()},
        is_calibrated=True,
        # Before rounding: where results are alike, all of them lie at the limit.
        review=float(predict_dice(known.case, np.array(raw))) < known.review_below,
    )


def _estimate(calibration: CalibrationSpec, score: float) -> LabelQuality:
    expected = float(predict_dice(calibration, np.array(score)))
    lower = expected - calibration.margin * (PERFECT - expected)
    return LabelQuality(round(expected, 4), round(min(max(lower, 0.0), expected), 4))
