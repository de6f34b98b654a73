"""An evaluation for people: one HTML page that needs nothing else and runs nothing."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.html import render_page
from medseg.errors import Fault
from medseg.evaluation.formats import format_number
from medseg.evaluation.plots import AgreementPlot, BoxPlot
from medseg.evaluation.worst_cases import CasePicture

_TEMPLATE = Path(__file__).with_name("templates") / "evaluation.html.j2"


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table of the page; all cells are text and are shown as such.

    Attributes:
        title: Above it.
        note: Between title and table.
        heading: Of the columns.
        rows: The cells.
        is_folded: Whether it is shown only when somebody asks for it.
    """

    title: str
    note: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """What the page shows, in this order.

    Attributes:
        cases: How many were scored.
        notes: How to read it: what n is, what was left out.
        summary: A row for each label.
        boxes: A plot for each metric.
        agreements: A plot of volumes for each label.
        pictures: Of the worst cases.
        tables: All others; those without rows are left out.
        flags: Case → why it was flagged for review.
        faults: What could not be scored.
        files: Names of the tables beside the page.
    """

    cases: int
    notes: Sequence[str]
    summary: PageTable
    boxes: Sequence[BoxPlot] = ()
    agreements: Sequence[AgreementPlot] = ()
    pictures: Sequence[CasePicture] = ()
    tables: Sequence[PageTable] = ()
    flags: Sequence[tuple[str, Sequence[str]]] = ()
    faults: Sequence[Fault] = ()
    files: Sequence[str] = ()


def render_evaluation(page: EvaluationPage) -> str:
    """Return the page."""
    pictures = [_describe_picture(picture) for picture in page.pictures]
    return render_page(
        _TEMPLATE,
        page=page,
        tables=[table for table in page.tables if table.rows],
        pictures=pictures,
        has_images=all(picture.has_image for picture in page.pictures),
    )


def _describe_picture(picture: CasePicture) -> dict[str, Any]:
    dice = []
    for name, scores in picture.scores.labels.items():
        if not math.isnan(scores.dice):
            dice.append(f"{name} {format_number(scores.dice)}")
    return {
        "case": picture.scores.case,
        "mean": format_number(picture.scores.mean_dice),
        "dice": dice,
        "content": base64.b64encode(picture.picture).decode(),
    }
