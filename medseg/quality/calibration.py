"""From raw confidence to expected Dice with a lower bound, learned on held-out cases.

The expected value is an isotonic regression (Barlow et al. 1972) of true Dice on the raw score,
made continuous by drawing lines between the centres of its steps, so that it keeps the scores'
order. The bound is conformal (Papadopoulos et al. 2002; Lei et al., JASA 2018): the residuals of
clean cases, each left out of the regression that predicts it, divided by a scale that grows as
the expected Dice falls.

Raw scores depend on the temperature that logits are divided by. Of those tried, the one is taken
at which the regression errs least on results that it has not seen.
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
"""Clean held-out results needed for a calibration: fewer cannot bound nine in ten."""

PERFECT = 1.02
"""Expected Dice at which the scale of errors would be 0."""

NOTHING_FOUND = "nothing was found"
BELOW_LIMIT = "its expected Dice lies below the bundle's limit for review"
"""Why a result is flagged for its confidence alone."""

TEMPERATURES = (0.7, 0.5, 0.35, 0.25)
"""What logits are divided by, besides 1. Networks that are not sure enough need less than 1; one
that is too sure keeps its order, and the regression mends its values."""

_LEAST_GAIN = 0.02
"""Share by which the squared error must fall for another temperature than 1."""

_SPLITS = 5

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """One held-out result.

    Attributes:
        case: Which case; its corrupted copies have the same name.
        scores: Label name → raw expected Dice, of the structures in the result.
        dice: Label name → true Dice, of the structures that are in result or reference.
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
        if temperature == 1:
            return self
        return replace(self, scores=self.scores_at[temperature])

    def pair(self, label: str | None) -> tuple[float, float] | None:
        """Return raw score and true Dice of a label; ``None`` for the mean over labels.

        Returns:
            ``None`` if one of the two is not known.
        """
        if label is None:
            return self._mean_pair()
        score = self.scores.get(label)
        dice = self.dice.get(label, math.nan)
        if score is None or math.isnan(dice):
            return None
        return score, dice

    def _mean_pair(self) -> tuple[float, float] | None:
        dice = [value for value in self.dice.values() if not math.isnan(value)]
        if not self.scores or not dice:
            return None
        return _mean(self.scores), float(np.mean(dice))


@dataclass(frozen=True, slots=True)
class _Table:
    """The samples that have a score and a true Dice for one label, in their order.

    Attributes:
        scores: Raw scores.
        dice: True Dice.
        cases: Which case each is of.
        is_clean: Whether its scan was as it came.
    """

    scores: Numbers
    dice: Numbers
    cases: Sequence[str]
    is_clean: npt.NDArray[np.bool_]


def calibrate(
    samples: Sequence[CalibrationSample],
    labels: Sequence[str],
    *,
    coverage: float = 0.9,
    review_share: float = 0.1,
) -> QualityFinding | None:
    """Learn what raw scores mean.

    Args:
        samples: Held-out results, clean and corrupted.
        labels: Names of the structures.
        coverage: Share of clean results whose true Dice shall be at or above the bound. Of few
            results the bound is the lowest that was seen, and what is stated is how often that
            holds.
        review_share: Share of clean results that shall be flagged for review.

    Returns:
        ``None`` if there are fewer than ``MIN_CLEAN_RESULTS`` clean results.
    """
    temperature = _choose_temperature(samples)
    samples = [sample.at(temperature) for sample in samples]
    whole = _tabulate(samples, None)
    calibration = _fit(whole, coverage)
    if calibration is None:
        return None
    by_label = {}
    coverages = [coverage, _highest_coverage(whole)]
    for label in labels:
        table = _tabulate(samples, label)
        fitted = _fit(table, coverage)
        if fitted is not None:
            by_label[label] = fitted
            coverages.append(_highest_coverage(table))
    clean = predict_dice(calibration, whole.scores[whole.is_clean])
    return QualityFinding(
        case=calibration,
        labels=by_label,
        coverage=min(coverages),
        review_share=review_share,
        review_below=float(np.quantile(clean, review_share)),
        temperature=temperature,
    )


def predict_dice(calibration: CalibrationSpec, scores: Numbers) -> Numbers:
    """Return the Dice to be expected at raw scores."""
    return np.interp(scores, calibration.scores, calibration.dice)


def estimate_quality(
    scores: Mapping[str, float], calibration: QualityFinding | None
) -> Quality:
    """Estimate how good a result is.

    Args:
        scores: Label name → raw expected Dice, of the structures in the result.
        calibration: The bundle's, if it has one.
    """
    if not scores:
        return Quality(
            is_calibrated=calibration is not None,
            review=True,
            reasons=(NOTHING_FOUND,),
        )
    raw = _mean(scores)
    if calibration is None:
        uncalibrated = {
            name: LabelQuality(score) for name, score in scores.items()
        }
        return Quality(raw, labels=uncalibrated)
    whole = _estimate_label(calibration.case, raw)
    labels = {}
    for name, score in scores.items():
        # A label that is too rare to have a calibration of its own takes that of the whole.
        label_calibration = calibration.labels.get(name, calibration.case)
        labels[name] = _estimate_label(label_calibration, score)
    # Not the rounded value: where results are alike, all of them lie at the limit.
    expected = float(predict_dice(calibration.case, np.array(raw)))
    is_low = expected < calibration.review_below
    return Quality(
        expected=whole.expected,
        lower=whole.lower,
        labels=labels,
        is_calibrated=True,
        review=is_low,
        reasons=(BELOW_LIMIT,) if is_low else (),
    )


def _estimate_label(calibration: CalibrationSpec, score: float) -> LabelQuality:
    expected = float(predict_dice(calibration, np.array(score)))
    lower = expected - calibration.margin * (PERFECT - expected)
    lower = min(max(lower, 0.0), expected)
    return LabelQuality(round(expected, 4), round(lower, 4))


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _tabulate(
    samples: Sequence[CalibrationSample], label: str | None
) -> _Table:
    pairs = []
    cases = []
    is_clean = []
    for sample in samples:
        pair = sample.pair(label)
        if pair is not None:
            pairs.append(pair)
            cases.append(sample.case)
            is_clean.append(sample.is_clean)
    columns = np.array(pairs, dtype=float).reshape(-1, 2)
    return _Table(
        columns[:, 0], columns[:, 1], cases, np.array(is_clean, dtype=bool)
    )


def _highest_coverage(table: _Table) -> float:
    """Return how often a bound can hold at most: a new result may be worse than all clean ones."""
    count = int(table.is_clean.sum())
    return count / (count + 1)


def _choose_temperature(samples: Sequence[CalibrationSample]) -> float:
    """Choose the temperature whose regression errs least on left-out cases; 1 if none is better.

    The squared error is of results that have a score at every temperature.
    """
    tried = (1.0, *_common_temperatures(samples))
    known = [sample for sample in samples if _is_known_at(sample, tried)]
    if len(known) < MIN_CLEAN_RESULTS:
        return 1.0
    errors = []
    for temperature in tried:
        table = _tabulate([sample.at(temperature) for sample in known], None)
        expected = _predict_left_out(table)
        errors.append(((expected - table.dice) ** 2).mean())
    best = int(np.argmin(errors))
    if errors[best] < (1 - _LEAST_GAIN) * errors[0]:
        return tried[best]
    return 1.0


def _common_temperatures(samples: Sequence[CalibrationSample]) -> list[float]:
    """Return the temperatures that every sample has scores at, highest first."""
    if not samples:
        return []
    common = set(samples[0].scores_at)
    for sample in samples:
        common &= set(sample.scores_at)
    return sorted(common, reverse=True)


def _is_known_at(
    sample: CalibrationSample, temperatures: Sequence[float]
) -> bool:
    return all(
        sample.at(temperature).pair(None) is not None
        for temperature in temperatures
    )


def _fit(table: _Table, coverage: float) -> CalibrationSpec | None:
    """Fit the regression and its margin; ``None`` of too few clean results."""
    if table.is_clean.sum() < MIN_CLEAN_RESULTS:
        return None
    scores, dice = _fit_isotonic(table.scores, table.dice)
    return CalibrationSpec(
        scores=tuple(scores.tolist()),
        dice=tuple(dice.tolist()),
        margin=_conformal_margin(table, coverage),
        cases=len(table.cases),
    )


def _conformal_margin(table: _Table, coverage: float) -> float:
    """Return by how much of its scale a true Dice may lie below the expected one.

    The ``⌈(n + 1) · coverage⌉``-th smallest of n residuals (Lei et al., JASA 2018, split
    conformal): with n alone the bound of a new result would hold too seldom.
    """
    expected = _predict_left_out(table)
    residuals = (expected - table.dice) / (PERFECT - expected)
    residuals = np.sort(residuals[table.is_clean])
    count = len(residuals)
    rank = min(math.ceil((count + 1) * coverage), count)
    return float(residuals[rank - 1])


def _predict_left_out(table: _Table) -> Numbers:
    """Predict the Dice of each result by a regression that has not seen its case."""
    split_of = _split_cases(table.cases)
    expected = np.empty_like(table.scores)
    for split in range(_SPLITS):
        left_out = split_of == split
        if not left_out.any():
            continue
        seen = ~left_out
        scores, dice = _fit_isotonic(table.scores[seen], table.dice[seen])
        expected[left_out] = np.interp(table.scores[left_out], scores, dice)
    return expected


def _split_cases(cases: Sequence[str]) -> npt.NDArray[np.int_]:
    """Return the split of each result: those of one case are in the same one."""
    split_of_case: dict[str, int] = {}
    for case in cases:
        split_of_case.setdefault(case, len(split_of_case) % _SPLITS)
    return np.array([split_of_case[case] for case in cases])


def _fit_isotonic(scores: Numbers, dice: Numbers) -> tuple[Numbers, Numbers]:
    """Return the knots of a rising curve through ``(score, dice)``, from score 0 to 1."""
    from scipy.optimize import isotonic_regression

    # Equal scores are one point, or their order in the list would matter.
    points, point_of, weights = np.unique(
        scores, return_inverse=True, return_counts=True
    )
    means = np.bincount(point_of, dice) / weights
    fit = isotonic_regression(means, weights=weights)
    first_of_step = fit.blocks[:-1]
    step_weights = np.add.reduceat(weights, first_of_step)
    step_sums = np.add.reduceat(points * weights, first_of_step)
    values = np.clip(fit.x[first_of_step], 0, 1)
    return _add_ends(step_sums / step_weights, values)


def _add_ends(centres: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Add knots at scores 0 and 1 to those of a rising curve."""
    # No two knots at one score, and none at the ends.
    is_new = np.concatenate([[True], np.diff(centres) > 1e-9])
    is_inside = (centres > 1e-6) & (centres < 1)
    keep = is_new & is_inside
    centres = centres[keep]
    values = values[keep]
    top = 1.0
    if len(centres):
        # Beyond the scores seen, Dice rises as the score does.
        top = min(1.0, float(values[-1] + (1 - centres[-1])))
    scores = np.concatenate([[0.0], centres, [1.0]])
    dice = np.concatenate([[0.0], values, [top]])
    return scores, np.maximum.accumulate(dice)
