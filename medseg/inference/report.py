"""The report of a batch: HTML pages that open from disk, and a table of volumes.

Of a few scans it is one page that needs no other file. Of very many it is an overview, with pages
of scans and their pictures as files beside it. Pages fetch nothing from elsewhere, and run no
script but their own: the name of a scan is always shown as text.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg._support.html import render_page
from medseg.inference.ledger_entry import Entry, get_review_order
from medseg.inference.report_index import (
    PAGE_SCANS,
    PAGES,
    count_pages,
    name_page,
    render_index,
)
from medseg.inference.report_rows import (
    Place,
    list_colours,
    list_label_names,
    make_row,
)
from medseg.inference.result_files import SUMMARIES
from medseg.inference.scan_counts import ScanCounts, count_scans
from medseg.inference.volumes_table import format_volumes_csv
from medseg.labels import LabelSet

VOLUMES, REPORT = SUMMARIES

_MOST_COLUMNS = 4
"""Labels with a column of their own; of more, the volumes lie in one that unfolds."""

_FEWEST_FOR_PAGES = 300
"""Scans of which the report is no single page any more."""

_TEMPLATES = Path(__file__).with_name("templates")


def write_summaries(
    out: Path,
    entries: Collection[Entry],
    title: str,
    label_set: LabelSet,
    *,
    report: bool = True,
) -> None:
    """Write what stands above single scans: the table of volumes and, if wanted, the report.

    Args:
        out: The folder of results.
        entries: The latest entry of each scan.
        title: The bundle's name and version.
        label_set: The labels of the results.
        report: Whether to write ``OUT/report.html``.

    Raises:
        OutputError: If one cannot be written, or a picture cannot be read.
    """
    write_atomically(out / VOLUMES, format_volumes_csv(entries, label_set))
    if report:
        write_report(out, entries, title, label_set)


def write_report(
    out: Path, entries: Iterable[Entry], title: str, label_set: LabelSet
) -> None:
    """Write ``OUT/report.html``: failed scans first, then the worst results.

    Tables can be sorted by every column. From 300 scans on it is an overview that leads to pages
    of 200 scans in ``OUT/report``.

    Args:
        out: The folder of results.
        entries: The latest entry of each scan.
        title: The bundle's name and version.
        label_set: Whose colours the pictures have.

    Raises:
        OutputError: If it cannot be written, or a picture cannot be read.
    """
    ordered = sorted(entries, key=get_review_order)
    folder = out / PAGES
    if len(ordered) < _FEWEST_FOR_PAGES:
        page = render_report(out, ordered, title, label_set)
        write_atomically(out / REPORT, page)
        _remove_pages(folder, 0)  # of a batch that was larger
        return
    counts = count_scans(ordered)
    pages = render_pages(out, ordered, counts, title, label_set)
    for number, page in enumerate(pages, 1):
        write_atomically(folder / name_page(number), page)
    _remove_pages(folder, count_pages(len(ordered)))
    write_atomically(
        out / REPORT, render_index(ordered, counts, title, label_set)
    )


def _remove_pages(folder: Path, last: int) -> None:
    """Remove the pages behind the last one; a folder of this name may hold what is not ours."""
    with contextlib.suppress(OSError):
        for page in folder.glob("[0-9]*.html"):
            if page.stem.isdecimal() and int(page.stem) > last:
                page.unlink()
        if not last:
            folder.rmdir()


def render_report(
    out: Path, entries: Iterable[Entry], title: str, label_set: LabelSet
) -> str:
    """Return one page with all scans, which needs no other file."""
    ordered = sorted(entries, key=get_review_order)
    names = list_label_names(ordered, label_set)
    place = Place(out)
    return render_page(
        _TEMPLATES / "batch_report.html.j2",
        counts=count_scans(ordered),
        rows=[make_row(place, entry, names) for entry in ordered],
        page=None,
        **_describe_page(title, names, label_set),
    )


def render_pages(
    out: Path,
    ordered: Sequence[Entry],
    counts: ScanCounts,
    title: str,
    label_set: LabelSet,
) -> Iterator[str]:
    """Give the pages of a long report, one after the other.

    Args:
        out: The folder of results; pages link to its pictures.
        ordered: The latest entry of each scan, what to look at first before others.
        counts: Of these.
        title: The bundle's name and version.
        label_set: Whose colours the pictures have.
    """
    names = list_label_names(ordered, label_set)
    place = Place(out, prefix="../", embeds=False)
    pages = count_pages(len(ordered))
    for number in range(1, pages + 1):
        start = (number - 1) * PAGE_SCANS
        shown = ordered[start : start + PAGE_SCANS]
        links = {
            "previous": name_page(number - 1) if number > 1 else "",
            "next": name_page(number + 1) if number < pages else "",
        }
        yield render_page(
            _TEMPLATES / "batch_report.html.j2",
            counts=counts,
            rows=[make_row(place, entry, names) for entry in shown],
            page={"number": number, "of": pages, "first": start + 1, **links},
            **_describe_page(title, names, label_set),
        )


def _describe_page(
    title: str, names: Sequence[str], label_set: LabelSet
) -> dict[str, Any]:
    """Return what all pages of a report have in common."""
    script = (_TEMPLATES / "batch_report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return {
        "title": title,
        "names": names,
        "has_columns": len(names) <= _MOST_COLUMNS,
        "colours": list_colours(label_set),
        "script": script,
        "script_hash": base64.b64encode(digest).decode(),
    }
