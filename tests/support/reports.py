"""What a batch writes of all its scans, as text."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from medseg.inference.batch_overview import survey
from medseg.inference.ledger_entry import Entry
from medseg.inference.report import render_report
from medseg.inference.volumes_table import write_volumes_csv
from medseg.labels import LabelSet


def format_volumes(entries: Iterable[Entry], labels: LabelSet) -> str:
    """Return the table of volumes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volumes.csv"
        write_volumes_csv(file, survey(list(entries), labels))
        return file.read_text(encoding="utf-8")


def render(
    out: Path, entries: Iterable[Entry], title: str, labels: LabelSet
) -> str:
    """Return the report of a few scans."""
    return render_report(out, survey(list(entries), labels), title)
