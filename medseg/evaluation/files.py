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
from medseg.metrics.comparison import Interval
from medseg.metrics.lesions import LesionCounts
from medseg.metrics.metrics import CaseScores
from medseg.metrics.statistics import Statistic

_Intervals = Mapping[str, Mapping[str, Interval]]


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write ``evaluation.csv``, ``summary.csv``, ``summary.json`` and ``evaluation.html``.

    With lesions, ``lesions.csv`` too.

    Raises:
        OutputError: If they cannot be written.
    """
    rows = evaluation.rows()
    write_atomically(out / "evaluation.csv", _csv(["case", "label", *COLUMNS], rows))
    columns = ["metric", "label", *(one.name for one in fields(Statistic)), "low", "high"]
    intervals = evaluation.intervals
    lines = [
        {"metric": metric, "label": name} | asdict(statistic) | asdict(intervals[metric][name])
        for metric, by_label in evaluation.statistics.items()
        for name, statistic in by_label.items()
    ]
    write_atomically(out / "summary.csv", _csv(columns, lines))
    write_atomically(
        out / "summary.json",
        json.dumps(nan_to_none(_summary(evaluation, intervals)), indent=2) + "\n",
    )
    note = (
        f"NSD at {evaluation.tolerance_mm:g} mm. Intervals cover 95 %, by bootstrap over cases. A "
        "label that only one side holds counts as missed."
    )
    tables = _tables(evaluation, intervals)
    page = render_evaluation(len(evaluation.cases), note, tables, evaluation.faults)
    write_atomically(out / "evaluation.html", page)
    if evaluation.lesions:
        found = [
            {"case": case, "label": name} | asdict(count)
            for case, by_label in evaluation.lesions.items()
            for name, count in by_label.items()
        ]
        columns = ["case", "label", *(one.name for one in fields(LesionCounts))]
        write_atomically(out / "lesions.csv", _csv(columns, found))


def _tables(evaluation: Evaluation, intervals: _Intervals) -> Iterator[PageTable]:
    """Lay out an evaluation for its page."""
    heading = ("label", "metric", "n", "mean", "95 % interval")
    rows = [
        (
            name,
            metric,
            str(one.n),
            _number(one.mean),
            _range(intervals[metric][name]),
            _number(one.sd),
            _number(one.median),
            f"{_number(one.worst)} ({one.worst_case})" if one.n else "–",
            str(one.missed),
        )
        for metric, by_label in evaluation.statistics.items()
        for name, one in by_label.items()
    ]
    more = ("deviation", "median", "worst", "missed")
    yield PageTable("Summary", "", (*heading, *more), rows)
    yield PageTable(
        "Compared with the other predictions",
        "Differences are these minus the others, on the cases both have; p is of Wilcoxon's "
        "signed-rank test. It is not corrected for the number of rows.",
        ("label", "metric", "n", "difference", "95 % interval", "better", "worse", "p"),
        _difference_rows(evaluation),
    )
    yield PageTable(
        "Lesions",
        "Connected pieces of a label; found if a tenth or more of one is covered, false if it "
        "touches none.",
        ("label", "there", "found", "predicted", "false", "sensitivity", "precision"),
        _lesion_rows(evaluation),
    )
    cases = sorted(evaluation.cases, key=_worst_first)
    yield PageTable(
        "Cases, the worst first",
        "",
        ("case", "label", "Dice", "HD95 mm", "NSD", "volume ml", "reference ml"),
        [
            (
                case.case,
                name,
                *(_number(v) for v in (la.dice, la.hd95, la.nsd, la.predicted_ml, la.reference_ml)),
            )
            for case in cases
            for name, la in case.labels.items()
        ],
    )


def _worst_first(case: CaseScores) -> tuple[bool, float, str]:
    """Order cases by their Dice; those without one, which no order is known of, come last."""
    dice = case.mean_dice
    return math.isnan(dice), dice if not math.isnan(dice) else 0.0, case.case


def _difference_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return the comparison with another method as cells of a table."""
    return [
        (
            one.label,
            one.metric,
            str(one.n),
            f"{one.mean:+.4f}" if one.n else "–",
            _range(one.interval),
            str(one.better),
            str(one.worse),
            "–" if math.isnan(one.p) else f"{one.p:.2g}",
        )
        for one in evaluation.differences
    ]


def _lesion_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return the lesions of all cases together as cells of a table."""
    return [
        (
            name,
            *(str(n) for n in (one.there, one.found, one.predicted, one.false)),
            _number(one.sensitivity),
            _number(one.precision),
        )
        for name, one in evaluation.lesion_sums.items()
    ]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _range(found: Interval) -> str:
    return "–" if math.isnan(found.low) else f"{found.low:.4f} to {found.high:.4f}"


def _summary(evaluation: Evaluation, intervals: _Intervals) -> dict[str, Any]:
    return {
        "cases": len(evaluation.cases),
        "tolerance_mm": evaluation.tolerance_mm,
        "faults": [{"where": fault.where, "what": fault.what} for fault in evaluation.faults],
        "without_reference": list(evaluation.without_reference),
        "metrics": {
            metric: {
                name: asdict(statistic) | asdict(intervals[metric][name])
                for name, statistic in by_label.items()
            }
            for metric, by_label in evaluation.statistics.items()
        },
        "lesions": {name: asdict(one) for name, one in evaluation.lesion_sums.items()},
        "differences": [
            {k: v for k, v in asdict(one).items() if k != "interval"} | asdict(one.interval)
            for one in evaluation.differences
        ],
    }


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(nan_to_none(row) for row in rows)
    return text.getvalue()
