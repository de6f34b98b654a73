"""An evaluation for people: one HTML page that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import Fault

_TEMPLATES = Path(__file__).with_name("templates")


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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Every value is escaped: a case can be called anything.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("evaluation.html.j2").render(
        cases=cases, note=note, tables=[table for table in tables if table.rows], faults=faults
    )
