"""An evaluation on disk: tables for machines, and a page for people."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg._support.json_values import nan_to_none
from medseg._support.tables import defuse_cell
from medseg.evaluation.formats import (
    UNKNOWN,
    format_interval,
    format_number,
    format_spread,
    name_label,
    name_metric,
)
from medseg.evaluation.plots import plot_agreements, plot_boxes
from medseg.evaluation.report import (
    EvaluationPage,
    PageTable,
    render_evaluation,
)
from medseg.evaluation.results import COLUMNS, Evaluation
from medseg.evaluation.worst_cases import CasePicture
from medseg.metrics.comparison import Difference
from medseg.metrics.lesions import LesionCounts
from medseg.metrics.metrics import CaseScores
from medseg.metrics.statistics import Statistic

_Row = dict[str, Any]

_PLOTTED = {"dice": 1.0, "hd95": None, "nsd": 1.0}
"""Metrics with a plot, and the end of their axis where it is known."""
_SUMMARY_METRICS = ("dice", "hd95", "nsd", "volume_error_ml")
_CASES = "Cases, the worst first"

_STATISTICS = [field.name for field in fields(Statistic)]
_LESION_COUNTS = [field.name for field in fields(LesionCounts)]


def write_evaluation(
    evaluation: Evaluation, out: Path, pictures: Sequence[CasePicture] = ()
) -> None:
    """Write ``evaluation.csv``, ``summary.csv``, ``summary.json`` and ``evaluation.html``.

    With lesions, ``lesions.csv`` too.

    Args:
        evaluation: The results.
        out: The folder.
        pictures: Of the worst cases, for the page.

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
    write_atomically(
        out / "evaluation.html", _render(evaluation, summary, pictures)
    )
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
        cells = nan_to_none(row)
        for column, cell in cells.items():
            if isinstance(cell, str):
                cells[column] = defuse_cell(cell)
        writer.writerow(cells)
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


def _render(
    evaluation: Evaluation,
    summary: Sequence[_Row],
    pictures: Sequence[CasePicture],
) -> str:
    """Return the page ``evaluation.html``."""
    titles = evaluation.titles
    evaluation = use_titles(evaluation)
    summary = [
        row | {"label": titles.get(row["label"], row["label"])}
        for row in summary
    ]
    pictures = [
        replace(each, scores=_rename_labels(each.scores, titles))
        for each in pictures
    ]
    cases = evaluation.cases
    tolerance = evaluation.tolerance_mm
    files = ["evaluation.csv", "summary.csv", "summary.json"]
    if evaluation.lesions:
        files.append("lesions.csv")
    boxes = []
    for metric, highest in _PLOTTED.items():
        title = name_metric(metric, tolerance)
        plot = plot_boxes(cases, metric, title, highest)
        if plot is not None:
            boxes.append(plot)
    tables = (
        _make_difference_table(evaluation.differences, tolerance),
        _make_lesion_table(evaluation.lesion_sums),
        _make_case_table(evaluation),
        _make_statistics_table(summary, tolerance),
    )
    page = EvaluationPage(
        cases=len(cases),
        notes=_explain(evaluation),
        summary=_make_summary_table(summary, tolerance),
        boxes=boxes,
        agreements=plot_agreements(cases),
        pictures=pictures,
        tables=tables,
        flags=tuple(evaluation.flags.items()),
        faults=evaluation.faults,
        files=files,
    )
    return render_evaluation(page)


def use_titles(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with labels called what people call them."""
    titles = evaluation.titles
    lesions = {}
    for case, by_label in evaluation.lesions.items():
        lesions[case] = {
            titles.get(name, name): counts for name, counts in by_label.items()
        }
    return replace(
        evaluation,
        cases=tuple(_rename_labels(case, titles) for case in evaluation.cases),
        lesions=lesions,
        differences=tuple(
            replace(each, label=titles.get(each.label, each.label))
            for each in evaluation.differences
        ),
    )


def _rename_labels(case: CaseScores, titles: Mapping[str, str]) -> CaseScores:
    labels = {
        titles.get(name, name): scores for name, scores in case.labels.items()
    }
    return replace(case, labels=labels)


def _explain(evaluation: Evaluation) -> list[str]:
    """Say what n is, and what was left out of it."""
    notes = [
        "n is the number of cases in which prediction or reference hold a label; a label that "
        "neither holds has no score in that case. A label that only one side holds counts as "
        "missed: its Dice, IoU and NSD are 0, its HD95 is the diagonal of the image.",
        "Means are given ± one standard deviation over cases; intervals cover 95 % of the mean, by "
        "bootstrap over cases.",
    ]
    left_out = []
    if evaluation.faults:
        count = len(evaluation.faults)
        left_out.append(
            f"{count} that could not be scored (listed under Not scored)"
        )
    if evaluation.without_reference:
        count = len(evaluation.without_reference)
        left_out.append(f"{count} predicted without a reference")
    if left_out:
        notes.append(f"Left out of all numbers: {' and '.join(left_out)}.")
    else:
        notes.append("No case was left out.")
    return notes


def _make_summary_table(
    summary: Sequence[_Row], tolerance_mm: float
) -> PageTable:
    """Lay out a row for each label, a column for each metric."""
    by_label: dict[str, dict[str, _Row]] = {}
    for row in summary:
        by_label.setdefault(row["label"], {})[row["metric"]] = row
    columns = [name_metric(metric, tolerance_mm) for metric in _SUMMARY_METRICS]
    rows = []
    for name, by_metric in by_label.items():
        dice = by_metric["dice"]
        cells = [name_label(name), str(dice["n"]), str(dice["missed"])]
        for metric in _SUMMARY_METRICS:
            row = by_metric[metric]
            cells.append(format_spread(row["mean"], row["sd"]))
            if metric == "dice":
                cells.append(format_interval(row["low"], row["high"]))
        rows.append(cells)
    first, *others = columns
    heading = ("Label", "n", "Missed", first, "95 % interval", *others)
    return PageTable("Summary", "", heading, rows)


def _make_statistics_table(
    summary: Sequence[_Row], tolerance_mm: float
) -> PageTable:
    heading = (
        "Label",
        "Metric",
        "n",
        "Mean",
        "95 % interval",
        "SD",
        "Median",
        "Worst",
        "Worst case",
        "Missed",
    )
    rows = []
    for row in summary:
        cells = [
            name_label(row["label"]),
            name_metric(row["metric"], tolerance_mm),
            str(row["n"]),
            format_number(row["mean"]),
            format_interval(row["low"], row["high"]),
            format_number(row["sd"]),
            format_number(row["median"]),
            format_number(row["worst"]),
            row["worst_case"] or UNKNOWN,
            str(row["missed"]),
        ]
        rows.append(cells)
    return PageTable("All statistics", "", heading, rows, is_folded=True)


def _make_difference_table(
    differences: Sequence[Difference], tolerance_mm: float
) -> PageTable:
    """Lay out the comparison with another method."""
    rows = []
    for difference in differences:
        mean = format_number(difference.mean) if difference.n else UNKNOWN
        p = UNKNOWN if math.isnan(difference.p) else f"{difference.p:.2g}"
        rows.append(
            (
                name_label(difference.label),
                name_metric(difference.metric, tolerance_mm),
                str(difference.n),
                mean,
                format_interval(
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
            "Label",
            "Metric",
            "n",
            "Difference",
            "95 % interval",
            "Better",
            "Worse",
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
        cells += [format_number(share) for share in shares]
        rows.append((name, *cells))
    return PageTable(
        "Lesions",
        "Connected components of a label. A lesion is found if a tenth or more of it is covered; a "
        "predicted one is false if it touches none.",
        (
            "Label",
            "In reference",
            "Found",
            "Predicted",
            "False",
            "Sensitivity",
            "Precision",
        ),
        rows,
    )


def _make_case_table(evaluation: Evaluation) -> PageTable:
    rows = []
    for case in sorted(evaluation.cases, key=_get_dice_order):
        flag = "review" if case.case in evaluation.flags else ""
        for name, scores in case.labels.items():
            numbers = (
                scores.dice,
                scores.hd95,
                scores.nsd,
                scores.predicted_ml,
                scores.reference_ml,
            )
            cells = [format_number(number) for number in numbers]
            if evaluation.flags:
                cells.append(flag)
            rows.append((case.case, name, *cells))
    heading = [
        "Case",
        "Label",
        "Dice",
        "HD95, mm",
        f"NSD at {evaluation.tolerance_mm:g} mm",
        "Predicted, ml",
        "Reference, ml",
    ]
    if evaluation.flags:
        heading.append("Flagged")
    return PageTable(_CASES, "", heading, rows)


def _get_dice_order(case: CaseScores) -> tuple[bool, float, str]:
    """Order cases by their Dice; those without one come last."""
    dice = case.mean_dice
    if math.isnan(dice):
        return True, 0.0, case.case
    return False, dice, case.case
