"""An evaluation on disk: tables for machines, and a page for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg._support.json_values import nan_to_none
from medseg.evaluation.report import PageTable, render_evaluation
from medseg.evaluation.results import COLUMNS, Evaluation
from medseg.metrics.comparison import Difference
from medseg.metrics.lesions import LesionCounts
from medseg.metrics.metrics import CaseScores
from medseg.metrics.statistics import Statistic

_Row = dict[str, Any]

_STATISTICS = [field.name for field in fields(Statistic)]
_LESION_COUNTS = [field.name for field in fields(LesionCounts)]


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write ``evaluation.csv``, ``summary.csv``, ``summary.json`` and ``evaluation.html``.

    With lesions, ``lesions.csv`` too.

    Raises:
        OutputError: If they cannot be written.
    """
    columns = ["case", "label", *COLUMNS]
    _write_table(out / "evaluation.csv", columns, evaluation.rows())
    summary = list(_list_summary_rows(evaluation))
    columns = ["metric", "label", *_STATISTICS, "low", "high"]
    _write_table(out / "summary.csv", columns, summary)
    content = nan_to_none(_make_summary(evaluation, summary))
    write_atomically(out / "summary.json", json.dumps(content, indent=2) + "\n")
    write_atomically(out / "evaluation.html", _render(evaluation, summary))
    if evaluation.lesions:
        columns = ["case", "label", *_LESION_COUNTS]
        _write_table(
            out / "lesions.csv", columns, _list_lesion_rows(evaluation)
        )


def _write_table(
    file: Path, columns: Sequence[str], rows: Iterable[_Row]
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(nan_to_none(row))
    write_atomically(file, text.getvalue())


def _list_summary_rows(evaluation: Evaluation) -> Iterator[_Row]:
    """Yield a row for each metric and label: statistics, and the interval of the mean."""
    intervals = evaluation.intervals
    for metric, by_label in evaluation.statistics.items():
        for name, statistic in by_label.items():
            interval = intervals[metric][name]
            row = {"metric": metric, "label": name}
            row |= asdict(statistic)
            row |= asdict(interval)
            yield row


def _list_lesion_rows(evaluation: Evaluation) -> Iterator[_Row]:
    """Yield a row for each case and label: how many lesions were found, missed and made up."""
    for case, by_label in evaluation.lesions.items():
        for name, counts in by_label.items():
            yield {"case": case, "label": name} | asdict(counts)


def _make_summary(evaluation: Evaluation, summary: Sequence[_Row]) -> _Row:
    """Return what ``summary.json`` holds; of faults only what may be recorded."""
    metrics: dict[str, _Row] = {}
    for row in summary:
        numbers = dict(row)
        by_label = metrics.setdefault(numbers.pop("metric"), {})
        by_label[numbers.pop("label")] = numbers
    differences = []
    for difference in evaluation.differences:
        numbers = asdict(difference)
        interval = numbers.pop("interval")
        differences.append(numbers | interval)
    return {
        "cases": len(evaluation.cases),
        "tolerance_mm": evaluation.tolerance_mm,
        "faults": [
            {"where": fault.where, "what": fault.what}
            for fault in evaluation.faults
        ],
        "without_reference": list(evaluation.without_reference),
        "metrics": metrics,
        "lesions": {
            name: asdict(counts)
            for name, counts in evaluation.lesion_sums.items()
        },
        "differences": differences,
    }


def _render(evaluation: Evaluation, summary: Sequence[_Row]) -> str:
    """Return the page ``evaluation.html``."""
    note = (
        f"NSD at {evaluation.tolerance_mm:g} mm. Intervals cover 95 %, by bootstrap over cases. A "
        "label that only one side holds counts as missed."
    )
    tables = (
        _make_summary_table(summary),
        _make_difference_table(evaluation.differences),
        _make_lesion_table(evaluation.lesion_sums),
        _make_case_table(evaluation.cases),
    )
    return render_evaluation(
        len(evaluation.cases), note, tables, evaluation.faults
    )


def _make_summary_table(summary: Sequence[_Row]) -> PageTable:
    heading = (
        "label",
        "metric",
        "n",
        "mean",
        "95 % interval",
        "SD",
        "median",
        "worst",
        "missed",
    )
    rows = []
    for row in summary:
        worst = "–"
        if row["n"]:
            worst = f"{_format_number(row['worst'])} ({row['worst_case']})"
        rows.append(
            (
                row["label"],
                row["metric"],
                str(row["n"]),
                _format_number(row["mean"]),
                _format_interval(row["low"], row["high"]),
                _format_number(row["sd"]),
                _format_number(row["median"]),
                worst,
                str(row["missed"]),
            )
        )
    return PageTable("Summary", "", heading, rows)


def _make_difference_table(differences: Sequence[Difference]) -> PageTable:
    """Lay out the comparison with another method."""
    rows = []
    for difference in differences:
        mean = f"{difference.mean:+.4f}" if difference.n else "–"
        p = "–" if math.isnan(difference.p) else f"{difference.p:.2g}"
        rows.append(
            (
                difference.label,
                difference.metric,
                str(difference.n),
                mean,
                _format_interval(
                    difference.interval.low, difference.interval.high
                ),
                str(difference.better),
                str(difference.worse),
                p,
            )
        )
    return PageTable(
        "Compared with the other predictions",
        "Differences are these minus the others, on the cases both have; p is of Wilcoxon's "
        "signed-rank test. It is not corrected for the number of rows.",
        (
            "label",
            "metric",
            "n",
            "difference",
            "95 % interval",
            "better",
            "worse",
            "p",
        ),
        rows,
    )


def _make_lesion_table(sums: Mapping[str, LesionCounts]) -> PageTable:
    """Lay out the lesions of all cases together."""
    rows = []
    for name, counts in sums.items():
        numbers = (counts.there, counts.found, counts.predicted, counts.false)
        shares = (counts.sensitivity, counts.precision)
        cells = [str(number) for number in numbers]
        cells += [_format_number(share) for share in shares]
        rows.append((name, *cells))
    return PageTable(
        "Lesions",
        "Connected components of a label. A lesion is found if a tenth or more of it is covered; a "
        "predicted one is false if it touches none.",
        (
            "label",
            "in reference",
            "found",
            "predicted",
            "false",
            "sensitivity",
            "precision",
        ),
        rows,
    )


def _make_case_table(cases: Sequence[CaseScores]) -> PageTable:
    rows = []
    for case in sorted(cases, key=_get_dice_order):
        for name, scores in case.labels.items():
            numbers = (
                scores.dice,
                scores.hd95,
                scores.nsd,
                scores.predicted_ml,
                scores.reference_ml,
            )
            cells = [_format_number(number) for number in numbers]
            rows.append((case.case, name, *cells))
    heading = (
        "case",
        "label",
        "Dice",
        "HD95 mm",
        "NSD",
        "volume ml",
        "reference ml",
    )
    return PageTable("Cases, the worst first", "", heading, rows)


def _get_dice_order(case: CaseScores) -> tuple[bool, float, str]:
    """Order cases by their Dice; those without one come last."""
    dice = case.mean_dice
    if math.isnan(dice):
        return True, 0.0, case.case
    return False, dice, case.case


def _format_number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _format_interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
