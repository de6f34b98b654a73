"""Means, spreads and worst cases of the scores of many cases, per metric and label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medseg.metrics.metrics import (
    MEAN,
    METRICS,
    VOLUME_ERRORS,
    CaseScores,
    mean_without_nan,
)

Numbers = npt.NDArray[np.float64]


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


_NOTHING = Statistic(
    n=0,
    mean=math.nan,
    sd=math.nan,
    median=math.nan,
    worst=math.nan,
    worst_case="",
    missed=0,
)
"""The statistic of no case."""

_WORST_IS_HIGH = ("hd95", *VOLUME_ERRORS)
"""Metrics whose magnitude is an error; of the others less is worse."""


def summarise(scores: Sequence[CaseScores]) -> dict[str, dict[str, float]]:
    """Return ``metric → label name → mean over cases``, as events carry it.

    Cases without a value are left out of a mean. ``mean`` among the label names is the mean over
    the labels that have one. A label, or a whole set, without any value is NaN.
    """
    means = {}
    for metric, by_label in compute_statistics(scores, METRICS).items():
        means[metric] = {
            name: statistic.mean for name, statistic in by_label.items()
        }
    return means


def compute_statistics(
    scores: Sequence[CaseScores],
    metrics: Sequence[str] = (*METRICS, *VOLUME_ERRORS),
) -> dict[str, dict[str, Statistic]]:
    """Return ``metric → label name → statistic over cases``.

    Under ``mean`` stands, in ``mean``, the mean over the labels' means; its other numbers
    describe the cases' own means over labels.
    """
    names = _label_names(scores)
    statistics = {}
    for metric in metrics:
        by_label = {name: _describe(scores, metric, [name]) for name in names}
        mean = mean_without_nan(
            [statistic.mean for statistic in by_label.values()]
        )
        by_label[MEAN] = replace(_describe(scores, metric, names), mean=mean)
        statistics[metric] = by_label
    return statistics


def _label_names(scores: Sequence[CaseScores]) -> list[str]:
    """Return the names of all labels, in the order in which they first occur."""
    names: dict[str, None] = {}
    for case in scores:
        names.update(dict.fromkeys(case.labels))
    return list(names)


def _describe(
    scores: Sequence[CaseScores], metric: str, names: Sequence[str]
) -> Statistic:
    """Describe the cases' means over some labels."""
    missed = 0
    values = []
    cases = []
    for case in scores:
        labels = [case.labels[name] for name in names if name in case.labels]
        missed += any(label.missed for label in labels)
        value = mean_without_nan([getattr(label, metric) for label in labels])
        if not math.isnan(value):
            values.append(value)
            cases.append(case.case)
    if not values:
        return replace(_NOTHING, missed=missed)
    numbers = np.array(values)
    worst = int(np.argmax(_badness(metric, numbers)))
    return Statistic(
        n=len(values),
        mean=float(numbers.mean()),
        sd=_standard_deviation(numbers),
        median=float(np.median(numbers)),
        worst=values[worst],
        worst_case=cases[worst],
        missed=missed,
    )


def _standard_deviation(numbers: Numbers) -> float:
    """Return the sample standard deviation; NaN below two numbers."""
    if len(numbers) < 2:
        return math.nan
    return float(numbers.std(ddof=1))


def _badness(metric: str, values: Numbers) -> Numbers:
    return np.abs(values) if metric in _WORST_IS_HIGH else -values
