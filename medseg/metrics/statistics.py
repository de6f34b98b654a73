"""Scores of many cases → their means, spreads and worst cases, per metric and label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.metrics.metrics import MEAN, METRICS, VOLUME_ERRORS, CaseScores, mean_without_nan


@dataclass(frozen=True, slots=True)
class Statistic:
    """One metric of one label over the cases that have a value.

    Attributes:
        n: Cases counted. Cases in which neither side holds the label are not.
        mean: Mean; NaN if ``n`` is 0, like the other numbers.
        sd: Sample standard deviation (n - 1); NaN if ``n`` is below 2.
        median: Median.
        worst: Lowest value; of HD95 the highest, of a volume error the one farthest from 0.
        worst_case: Name of the case with the worst value.
        missed: Cases in which exactly one side holds the label.
    """

    n: int
    mean: float
    sd: float
    median: float
    worst: float
    worst_case: str
    missed: int


def summarise(scores: Sequence[CaseScores]) -> dict[str, dict[str, float]]:
    """Return ``metric → label name → mean over cases``, as events carry it.

    Cases without a value are left out of a mean. ``mean`` among the label names is the mean over
    the labels that have one. A label, or a whole set, without any value is NaN.
    """
    return {
        metric: {name: statistic.mean for name, statistic in by_label.items()}
        for metric, by_label in compute_statistics(scores, METRICS).items()
    }


def compute_statistics(
    scores: Sequence[CaseScores], metrics: Sequence[str] = (*METRICS, *VOLUME_ERRORS)
) -> dict[str, dict[str, Statistic]]:
    """Return ``metric → label name → statistic over cases``.

    Under ``mean`` stands, in ``mean``, the mean over the labels' means; its other numbers
    describe the cases' own means over labels.
    """
    names = list(dict.fromkeys(name for case in scores for name in case.labels))
    return {
        metric: {name: _over_cases(scores, metric, [name]) for name in names}
        | {MEAN: _over_labels(scores, metric, names)}
        for metric in metrics
    }


def _over_cases(scores: Sequence[CaseScores], metric: str, names: Sequence[str]) -> Statistic:
    """Describe the cases' means over some labels."""
    rows = [[case.labels[name] for name in names if name in case.labels] for case in scores]
    values = [mean_without_nan([getattr(label, metric) for label in row]) for row in rows]
    counted = [
        (value, case.case)
        for value, case in zip(values, scores, strict=True)
        if not math.isnan(value)
    ]
    missed = sum(any(label.missed for label in row) for row in rows)
    if not counted:
        return Statistic(0, math.nan, math.nan, math.nan, math.nan, "", missed)
    numbers = np.array([value for value, _ in counted])
    worst, worst_case = max(counted, key=lambda pair: _badness(metric, pair[0]))
    return Statistic(
        n=len(counted),
        mean=float(numbers.mean()),
        sd=float(numbers.std(ddof=1)) if len(counted) > 1 else math.nan,
        median=float(np.median(numbers)),
        worst=worst,
        worst_case=worst_case,
        missed=missed,
    )


def _over_labels(scores: Sequence[CaseScores], metric: str, names: Sequence[str]) -> Statistic:
    means = [_over_cases(scores, metric, [name]).mean for name in names]
    return replace(_over_cases(scores, metric, names), mean=mean_without_nan(means))


def _badness(metric: str, value: float) -> float:
    return abs(value) if metric == "hd95" or metric in VOLUME_ERRORS else -value
