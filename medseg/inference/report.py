"""The report of a batch: HTML pages that open from disk, and a table of volumes.

Of a few scans it is one page that needs no other file. Of very many it is an overview, with pages
of scans and their pictures as files beside it. Pages fetch nothing from elsewhere, and run no
script but their own: the name of a scan is always shown as text.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg._support.html import render_page
from medseg.inference.batch_overview import BatchOverview
from medseg.inference.report_index import (
    PAGE_SCANS,
    PAGES,
    count_pages,
    name_page,
    render_index,
)
from medseg.inference.report_rows import Place, list_colours, make_row
from medseg.inference.result_files import SUMMARIES
from medseg.inference.volumes_table import write_volumes_csv

VOLUMES, REPORT = SUMMARIES

_MOST_COLUMNS = 4
"""Labels with a column of their own; of more, the volumes lie in one that unfolds."""

_FEWEST_FOR_PAGES = 300
"""Scans of which the report is no single page any more."""

_TEMPLATES = Path(__file__).with_name("templates")


def write_summaries(
    out: Path, overview: BatchOverview, title: str, *, report: bool = True
) -> None:
    """Write what stands above single scans: the table of volumes and, if wanted, the report.

    Args:
        out: The folder of results.
        overview: The latest entry of each scan.
        title: The bundle's name and version.
        report: Whether to write ``OUT/report.html``.

    Raises:
        OutputError: If one cannot be written, or a picture cannot be read.
    """
    write_volumes_csv(out / VOLUMES, overview)
    if report:
        write_report(out, overview, title)


def write_report(out: Path, overview: BatchOverview, title: str) -> None:
    """Write ``OUT/report.html``: failed scans first, then the worst results.

    Tables can be sorted by every column. From 300 scans on it is an overview that leads to pages
    of 200 scans in ``OUT/report``.

    Args:
        out: The folder of results.
        overview: The latest entry of each scan; their labels' colours are those of the pictures.
        title: The bundle's name and version.

    Raises:
        OutputError: If it cannot be written, or a picture cannot be read.
    """
    folder = out / PAGES
    scans = len(overview.order)
    if scans < _FEWEST_FOR_PAGES:
        write_atomically(out / REPORT, render_report(out, overview, title))
        _remove_pages(folder, 0)  # of a batch that was larger
        return
    pages = render_pages(out, overview, title)
    for number, page in enumerate(pages, 1):
        write_atomically(folder / name_page(number), page)
    _remove_pages(folder, count_pages(scans))
    write_atomically(out / REPORT, render_index(overview, title))


def _remove_pages(folder: Path, last: int) -> None:
    """Remove the pages behind the last one; a folder of this name may hold what is not ours."""
    with contextlib.suppress(OSError):
        for page in folder.glob("[0-9]*.html"):
            if page.stem.isdecimal() and int(page.stem) > last:
                page.unlink()
        if not last:
            folder.rmdir()


def render_report(out: Path, overview: BatchOverview, title: str) -> str:
    """Return one page with all scans, which needs no other file."""
    return _render(Place(out), overview, overview.order, title, page=None)


def render_pages(
    out: Path, overview: BatchOverview, title: str
) -> Iterator[str]:
    """Give the pages of a long report, one after the other.

    Args:
        out: The folder of results; pages link to its pictures.
        overview: The latest entry of each scan.
        title: The bundle's name and version.
    """
    place = Place(out, prefix="../", embeds=False)
    pages = count_pages(len(overview.order))
    for number in range(1, pages + 1):
        start = (number - 1) * PAGE_SCANS
        shown = overview.order[start : start + PAGE_SCANS]
        page = {
            "number": number,
            "of": pages,
            "first": start + 1,
            "previous": name_page(number - 1) if number > 1 else "",
            "next": name_page(number + 1) if number < pages else "",
        }
        yield _render(place, overview, shown, title, page)


def _render(
    place: Place,
    overview: BatchOverview,
    shown: Iterable[int],
    title: str,
    page: Mapping[str, Any] | None,
) -> str:
    """Return a page with some of the scans."""
    names = overview.names
    script = (_TEMPLATES / "batch_report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return render_page(
        _TEMPLATES / "batch_report.html.j2",
        title=title,
        counts=overview.counts,
        rows=[make_row(place, overview.entries[each], names) for each in shown],
        page=page,
        names=names,
        has_columns=len(names) <= _MOST_COLUMNS,
        colours=list_colours(overview.label_set),
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )
