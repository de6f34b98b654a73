"""How sure a mean over cases is, and whether two methods differ on the same cases.

Intervals are percentile bootstraps over cases (Efron, 1979), from a fixed seed: the same scores
give the same interval. Two methods are compared by the differences on the cases both have, with
Wilcoxon's signed-rank test (Wilcoxon, 1945; ties at zero after Pratt, 1959). Its p is exact where
the cases are few: by the normal approximation five cases could seem to be enough for 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.metrics.metrics import MEAN, METRICS, CaseScores

RESAMPLES = 5000
COVERAGE = 0.95

_SEED = 0
_AT_ONCE = 500
"""Resamples drawn together, which bounds memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a mean over cases lies, with 95 % coverage; NaN below two cases."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one label, compared between two methods on the same cases.

    Attributes:
        metric: ``dice``, ``iou``, ``hd95`` or ``nsd``.
        label: The label, or ``mean``.
        n: Cases that both have a value for.
        mean: Mean of the first method minus the second.
        interval: Of that difference.
        better: Cases in which the first has the better value.
        worse: Cases in which the second has.
        p: Of Wilcoxon's signed-rank test, two-sided; NaN below two cases.
    """

    metric: str
    label: str
    n: int
    mean: float
    interval: Interval
    better: int
    worse: int
    p: float


def collect_case_values(cases: Sequence[CaseScores], metric: str, label: str) -> dict[str, float]:
    """Return case → value, without cases that have none; ``mean`` averages a case's labels."""
    found = {}
    for case in cases:
        by_label = case[metric]
        known = [value for value in by_label.values() if not math.isnan(value)]
        value = by_label.get(label, math.nan)
        if label == MEAN:
            value = math.fsum(known) / len(known) if known else math.nan
        if not math.isnan(value):
            found[case.case] = value
    return found


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """Return the bootstrap interval of a mean."""
    return bootstrap_interval_over_labels([values])


def bootstrap_interval_over_labels(values: Sequence[Sequence[float]]) -> Interval:
    """Return the bootstrap interval of a mean over labels, of their means over cases.

    Args:
        values: Of each label a value for each case, the same cases in the same order; NaN where a
            case has none.
    """
    table = np.asarray(values, np.float64).T
    table = table[~np.isnan(table).all(axis=1)] if table.size else table
    cases = len(table)
    if cases < 2:
        return Interval(math.nan, math.nan)
    known = ~np.isnan(table)
    numbers = np.where(known, table, 0.0)
    rng = np.random.default_rng(_SEED)
    means: list[npt.NDArray[np.float64]] = []
    for _ in range(RESAMPLES // _AT_ONCE):
        drawn = rng.integers(cases, size=(_AT_ONCE, cases))
        often = np.zeros((_AT_ONCE, cases))
        np.add.at(often, (np.arange(_AT_ONCE)[:, None], drawn), 1.0)
        sums, counts = often @ numbers, often @ known
        by_label = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        means.append(np.nanmean(by_label, axis=1))
    edge = (1 - COVERAGE) / 2
    low, high = np.quantile(np.concatenate(means), (edge, 1 - edge))
    return Interval(float(low), float(high))


def compare_methods(first: Sequence[CaseScores], second: Sequence[CaseScores]) -> list[Difference]:
    """Compare two methods on the cases that both have.

    Args:
        first: Scores of the one.
        second: Scores of the other, paired by the cases' names.

    Returns:
        A difference for each metric and label, and for the mean over labels.
    """
    names = dict.fromkeys(name for case in (*first, *second) for name in case.labels)
    return [
        _difference(first, second, metric, label) for metric in METRICS for label in (*names, MEAN)
    ]


def _difference(
    first: Sequence[CaseScores], second: Sequence[CaseScores], metric: str, label: str
) -> Difference:
    one, other = (collect_case_values(cases, metric, label) for cases in (first, second))
    shared = [case for case in one if case in other]
    differences = np.array([one[case] - other[case] for case in shared], np.float64)
    gains = -differences if metric == "hd95" else differences
    return Difference(
        metric=metric,
        label=label,
        n=len(shared),
        mean=float(differences.mean()) if shared else math.nan,
        interval=bootstrap_interval(differences.tolist()),
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
        p=_signed_rank(differences),
    )


def _signed_rank(differences: npt.NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon

    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, zero_method="pratt", method="auto").pvalue)
