"""What an evaluation found: scores of every case, how sure their means are, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import Fault
from medseg.metrics.comparison import Difference, Interval, bootstrap_interval_over_labels
from medseg.metrics.lesions import LesionCounts, pool_lesions
from medseg.metrics.metrics import MEAN, CaseScores
from medseg.metrics.statistics import Statistic, compute_statistics, summarise

COLUMNS = {
    "dice": "dice",
    "iou": "iou",
    "hd95_mm": "hd95",
    "nsd": "nsd",
    "volume_error_ml": "volume_error_ml",
    "volume_error_percent": "volume_error_percent",
    "reference_ml": "reference_ml",
    "predicted_ml": "predicted_ml",
    "missed": "missed",
}
"""Columns of ``evaluation.csv`` after ``case`` and ``label``, and what each one shows."""

_DIGITS = {"dice": 3, "hd95": 1, "nsd": 3, "volume_error_ml": 1}
"""What the summary shows, in few enough characters for a terminal of 80 columns."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        cases: Scores of each pair that could be compared, by name.
        faults: Pairs that could not, and references without a prediction.
        without_reference: Names of predictions that have no reference; they are not scored.
        tolerance_mm: Tolerance of the NSD.
        lesions: Case → label → lesions, where they were asked for.
        differences: To another method's predictions, where these were given.
    """

    cases: tuple[CaseScores, ...]
    faults: tuple[Fault, ...]
    without_reference: tuple[str, ...]
    tolerance_mm: float
    lesions: Mapping[str, Mapping[str, LesionCounts]] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """``metric → label name → mean over cases``, as events carry it."""
        return summarise(self.cases)

    @property
    def statistics(self) -> dict[str, dict[str, Statistic]]:
        """``metric → label name → mean, spread and worst case``."""
        return compute_statistics(self.cases)

    @property
    def intervals(self) -> dict[str, dict[str, Interval]]:
        """``metric → label name → 95 % bootstrap interval of the mean over cases``."""
        return {
            metric: {name: self._interval(metric, name, by_label) for name in by_label}
            for metric, by_label in self.statistics.items()
        }

    def _interval(self, metric: str, name: str, names: Iterable[str]) -> Interval:
        labels = [one for one in names if one != MEAN] if name == MEAN else [name]
        columns = [[case[metric].get(label, math.nan) for case in self.cases] for label in labels]
        return bootstrap_interval_over_labels(columns)

    @property
    def lesion_sums(self) -> dict[str, LesionCounts]:
        """``label name → lesions of all cases together``; empty unless they were asked for."""
        return pool_lesions(self.lesions.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per case and label, with the columns of ``evaluation.csv``."""
        return [
            {"case": case.case, "label": name}
            | {column: getattr(label, field) for column, field in COLUMNS.items()}
            for case in self.cases
            for name, label in case.labels.items()
        ]

    def summary_rows(self) -> list[tuple[str, ...]]:
        """Return the summary as cells of a table: the heading, then one row per label."""
        found = self.statistics
        heading = ("label", "cases", "missed", "Dice", "HD95 mm", "NSD", "error ml")
        rows = [
            (
                name,
                str(overall.n),
                str(overall.missed),
                *(_spread(found[metric][name], digits) for metric, digits in _DIGITS.items()),
            )
            for name, overall in found["dice"].items()
        ]
        return [heading, *rows]


def _spread(statistic: Statistic, digits: int) -> str:
    if not statistic.n:
        return "–"
    mean = f"{statistic.mean:.{digits}f}"
    return mean if statistic.n < 2 else f"{mean} ± {statistic.sd:.{digits}f}"
