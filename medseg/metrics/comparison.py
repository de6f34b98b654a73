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

from medseg.metrics.metrics import MEAN, METRICS, CaseScores, mean_without_nan

RESAMPLES = 5000
"""Bootstrap samples of an interval."""

COVERAGE = 0.95
"""Coverage of an interval."""

_SEED = 0
_CHUNK = 500
"""Bootstrap samples drawn together, which bounds memory."""

Numbers = npt.NDArray[np.float64]


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
        interval: Interval of that difference.
        better: Cases in which the first has the better value.
        worse: Cases in which the second has the better value.
        p: The p-value of Wilcoxon's signed-rank test, two-sided; NaN below two cases.
    """

    metric: str
    label: str
    n: int
    mean: float
    interval: Interval
    better: int
    worse: int
    p: float


def collect_case_values(
    cases: Sequence[CaseScores], metric: str, label: str
) -> dict[str, float]:
    """Return case → value, without cases that have none; ``mean`` averages a case's labels."""
    values = {}
    for case in cases:
        by_label = case[metric]
        if label == MEAN:
            value = mean_without_nan(list(by_label.values()))
        else:
            value = by_label.get(label, math.nan)
        if not math.isnan(value):
            values[case.case] = value
    return values


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """Return the bootstrap interval of a mean."""
    return bootstrap_interval_over_labels([values])


def bootstrap_interval_over_labels(
    values: Sequence[Sequence[float]],
) -> Interval:
    """Return the bootstrap interval of a mean over labels, of their means over cases.

    Args:
        values: For each label a value for each case, the same cases in the same order; NaN where
            a case has none.
    """
    table = np.asarray(values, np.float64).T
    if table.size:
        has_value = ~np.isnan(table).all(axis=1)
        table = table[has_value]
    if len(table) < 2:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(_SEED)
    chunks = []
    for _ in range(RESAMPLES // _CHUNK):
        chunks.append(_resample_means(table, rng))
    means = np.concatenate(chunks)
    edge = (1 - COVERAGE) / 2
    low, high = np.quantile(means, (edge, 1 - edge))
    return Interval(float(low), float(high))


def _resample_means(table: Numbers, rng: np.random.Generator) -> Numbers:
    """Draw cases with replacement, and return the mean over labels of each such sample.

    Args:
        table: ``(cases, labels)``, NaN where a case has no value.
        rng: Draws the cases.
    """
    cases = len(table)
    is_known = ~np.isnan(table)
    numbers = np.where(is_known, table, 0.0)
    drawn = rng.integers(cases, size=(_CHUNK, cases))
    # How often each case is in each sample: sums over cases become products of matrices.
    times = np.zeros((_CHUNK, cases))
    sample = np.arange(_CHUNK)[:, None]
    np.add.at(times, (sample, drawn), 1.0)
    sums = times @ numbers
    counts = times @ is_known
    by_label = np.full_like(sums, np.nan)
    np.divide(sums, counts, out=by_label, where=counts > 0)
    means: Numbers = np.nanmean(by_label, axis=1)
    return means


def compare_methods(
    first: Sequence[CaseScores], second: Sequence[CaseScores]
) -> list[Difference]:
    """Compare two methods on the cases that both have.

    Args:
        first: Scores of one method.
        second: Scores of the other, paired by the cases' names.

    Returns:
        A difference for each metric and label, and for the mean over labels.
    """
    labels: dict[str, None] = {}
    for case in (*first, *second):
        labels.update(dict.fromkeys(case.labels))
    differences = []
    for metric in METRICS:
        for label in (*labels, MEAN):
            differences.append(_compare_label(first, second, metric, label))
    return differences


def _compare_label(
    first: Sequence[CaseScores],
    second: Sequence[CaseScores],
    metric: str,
    label: str,
) -> Difference:
    of_first = collect_case_values(first, metric, label)
    of_second = collect_case_values(second, metric, label)
    paired = [
        value - of_second[case]
        for case, value in of_first.items()
        if case in of_second
    ]
    differences = np.array(paired, np.float64)
    # Of distances less is better.
    gains = -differences if metric == "hd95" else differences
    return Difference(
        metric=metric,
        label=label,
        n=len(paired),
        mean=float(differences.mean()) if paired else math.nan,
        interval=bootstrap_interval(paired),
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
        p=_signed_rank(differences),
    )


def _signed_rank(differences: Numbers) -> float:
    from scipy.stats import wilcoxon

    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    test = wilcoxon(differences, zero_method="pratt", method="auto")
    return float(test.pvalue)
