"""An evaluation for people: one HTML page that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.html import render_page
from medseg.errors import Fault

_TEMPLATE = Path(__file__).with_name("templates") / "evaluation.html.j2"


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table of the page; all cells are text and are shown as such."""

    title: str
    note: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_evaluation(
    cases: int, note: str, tables: Iterable[PageTable], faults: Sequence[Fault]
) -> str:
    """Return the page.

    Args:
        cases: How many were scored.
        note: What holds for all tables.
        tables: In the order shown; those without rows are left out.
        faults: What could not be scored.
    """
    shown = [table for table in tables if table.rows]
    return render_page(
        _TEMPLATE, cases=cases, note=note, tables=shown, faults=faults
    )
