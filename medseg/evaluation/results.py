"""The results of an evaluation: scores of every case, how sure their means are, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import Fault
from medseg.metrics.comparison import (
    Difference,
    Interval,
    bootstrap_interval_over_labels,
)
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
"""Columns of ``evaluation.csv`` after ``case`` and ``label``, and the score that each one shows."""

_DIGITS = {"dice": 3, "hd95": 1, "nsd": 3, "volume_error_ml": 1}
"""What the summary shows, in few enough characters for a terminal of 80 columns."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        cases: Scores of each pair that could be compared, by name.
        faults: Pairs that could not, and references without a prediction.
        without_reference: Names of predictions that have no reference; they are not scored.
        tolerance_mm: Tolerance of the NSD.
        lesions: Case → label → lesions, if they were asked for.
        differences: To another method's predictions, if these were given.
        titles: Label → what pages call it, where that is more than its value.
        flags: Case → why its prediction was flagged for review when medseg made it; those flagged.

    Examples:
        >>> import numpy as np
        >>> from medseg import Evaluation, Label, LabelSet
        >>> from medseg.metrics.metrics import score_case
        >>> labels = LabelSet([Label(1, "liver", 1, (255, 0, 0))])
        >>> reference = np.zeros((4, 4, 4), np.uint8)
        >>> reference[1:3, 1:3, 1:3] = 1
        >>> prediction = reference.copy()
        >>> prediction[1] = 0
        >>> scores = score_case(prediction, reference, labels, (1.0, 1.0, 1.0), case="a")
        >>> evaluation = Evaluation((scores,), (), (), tolerance_mm=1.0)
        >>> round(evaluation.scores["dice"]["liver"], 3)
        0.667
    """

    cases: tuple[CaseScores, ...]
    faults: tuple[Fault, ...]
    without_reference: tuple[str, ...]
    tolerance_mm: float
    lesions: Mapping[str, Mapping[str, LesionCounts]] = field(
        default_factory=dict
    )
    differences: tuple[Difference, ...] = ()
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

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
        intervals: dict[str, dict[str, Interval]] = {}
        for metric, by_label in self.statistics.items():
            intervals[metric] = {}
            for name in by_label:
                intervals[metric][name] = self._interval(metric, name, by_label)
        return intervals

    def _interval(
        self, metric: str, name: str, names: Iterable[str]
    ) -> Interval:
        """Return the interval of a label, or of the mean over all labels."""
        labels = [name]
        if name == MEAN:
            labels = [label for label in names if label != MEAN]
        values_by_label = [self._values(metric, label) for label in labels]
        return bootstrap_interval_over_labels(values_by_label)

    def _values(self, metric: str, label: str) -> list[float]:
        """Return a label's value in each case; NaN where it has none."""
        return [case[metric].get(label, math.nan) for case in self.cases]

    @property
    def lesion_sums(self) -> dict[str, LesionCounts]:
        """``label name → lesions of all cases together``; empty unless they were asked for."""
        return pool_lesions(self.lesions.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per case and label, with the columns of ``evaluation.csv``."""
        rows = []
        for case in self.cases:
            for name, scores in case.labels.items():
                row: dict[str, Any] = {"case": case.case, "label": name}
                for column, score in COLUMNS.items():
                    row[column] = getattr(scores, score)
                rows.append(row)
        return rows

    def summary_rows(self) -> list[tuple[str, ...]]:
        """Return the summary as cells of a table: the heading, then one row per label."""
        statistics = self.statistics
        rows: list[tuple[str, ...]] = [
            ("label", "cases", "missed", "Dice", "HD95 mm", "NSD", "error ml")
        ]
        for name, dice in statistics["dice"].items():
            cells = [name, str(dice.n), str(dice.missed)]
            for metric, digits in _DIGITS.items():
                statistic = statistics[metric][name]
                cells.append(_format_spread(statistic, digits))
            rows.append(tuple(cells))
        return rows


def _format_spread(statistic: Statistic, digits: int) -> str:
    """Return a mean and its standard deviation, as far as there are any."""
    if statistic.n == 0:
        return "–"
    mean = f"{statistic.mean:.{digits}f}"
    if statistic.n == 1:
        return mean
    return f"{mean} ± {statistic.sd:.{digits}f}"
