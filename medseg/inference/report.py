"""A batch for people: one HTML page that needs nothing else, and a table of what was found.

The page shows what the ledger says and the pictures beside it. It opens from disk, fetches
nothing, and runs no script but its own: whatever a scan is called is shown as text.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg._support.html import render_page
from medseg.errors import OutputError
from medseg.inference.ledger import Entry, QualityEntry, worst_first
from medseg.inference.result_files import SUMMARIES
from medseg.labels import LabelSet

PREVIEWS = "previews"
"""The folder of pictures among the results."""

VOLUMES, REPORT = SUMMARIES

_TEMPLATES = Path(__file__).with_name("templates")


def preview_file(out: Path, scan: str) -> Path:
    """Return where the picture of a scan lies, or would."""
    return out / PREVIEWS / f"{scan}.webp"


def write_report(out: Path, entries: Iterable[Entry], title: str, label_set: LabelSet) -> None:
    """Write ``OUT/report.html``: failed scans first, then the worst results.

    The table can be sorted by every column.

    Args:
        out: The folder of results; its pictures are taken into the page.
        entries: The latest entry of each scan.
        title: What was done: the bundle's name and version.
        label_set: Whose colours the pictures have.

    Raises:
        OutputError: If it cannot be written, or a picture cannot be read.
    """
    write_atomically(out / REPORT, render_report(out, entries, title, label_set))


def render_report(out: Path, entries: Iterable[Entry], title: str, label_set: LabelSet) -> str:
    """Return the page that ``write_report`` writes."""
    ordered = sorted(entries, key=worst_first)
    script = (_TEMPLATES / "batch_report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    names = _label_names(ordered, label_set)
    return render_page(
        _TEMPLATES / "batch_report.html.j2",
        title=title,
        rows=[_row(out, entry, names) for entry in ordered],
        good=sum(entry.is_good for entry in ordered),
        failed=sum(not entry.is_good for entry in ordered),
        warned=sum(entry.is_good and bool(entry.warnings) for entry in ordered),
        flagged=sum(_is_flagged(entry) for entry in ordered),
        judged=any(entry.quality is not None for entry in ordered),
        calibrated=all(one.quality.is_calibrated for one in ordered if one.quality),
        names=names,
        colours=_colours(label_set),
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )


def volumes_csv(entries: Iterable[Entry], label_set: LabelSet) -> str:
    """Return what was found in each segmented scan as CSV, sorted by name.

    Columns: ``scan``; ``<label>_ml``, volumes in millilitres; ``expected_dice``,
    ``lower_bound`` and ``review`` (1 or 0) of the whole; ``<label>_expected_dice``. Where a bundle
    has regions, these take the place of labels. Cells are empty where there is nothing to say.
    """
    good = sorted((entry for entry in entries if entry.is_good), key=lambda e: e.scan.casefold())
    names = _label_names(good, label_set)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    whole = ["expected_dice", "lower_bound", "review"]
    dice = (f"{name}_expected_dice" for name in names)
    table.writerow(["scan", *(f"{name}_ml" for name in names), *whole, *dice])
    for entry in good:
        volumes = (_number(entry.volumes_ml.get(name)) for name in names)
        table.writerow([entry.scan, *volumes, *_quality_cells(entry.quality, names)])
    return text.getvalue()


def _quality_cells(quality: QualityEntry | None, names: Sequence[str]) -> list[str]:
    if quality is None:
        return [""] * (3 + len(names))
    each = (quality.labels.get(name, (None, None))[0] for name in names)
    whole = (quality.expected_dice, quality.lower_bound)
    return [*map(_number, whole), str(int(quality.review)), *map(_number, each)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _is_flagged(entry: Entry) -> bool:
    return entry.is_good and entry.quality is not None and entry.quality.review


def _label_names(entries: Iterable[Entry], label_set: LabelSet) -> Sequence[str]:
    """Return the bundle's labels or regions, then those that only other bundles' results have."""
    own = (region.name for region in label_set.regions)
    others = (name for entry in entries for name in entry.volumes_ml)
    return tuple(dict.fromkeys((*own, *others)))


def _colours(label_set: LabelSet) -> dict[str, str]:
    """Return the colour of each label; of a region, the colour of the label that it paints."""
    return {
        region.name: "#{:02x}{:02x}{:02x}".format(*label_set[region.paints - 1].colour)
        for region in label_set.regions
    }


def _row(out: Path, entry: Entry, names: Sequence[str]) -> dict[str, Any]:
    return {
        "entry": entry,
        "quality": entry.quality if entry.is_good else None,
        "flagged": _is_flagged(entry),
        "picture": _picture(preview_file(out, entry.scan)) if entry.is_good else "",
        "volumes": [entry.volumes_ml.get(name) for name in names],
        "seconds": sum(entry.seconds.values()),
        "stages": ", ".join(f"{stage} {took:.2f} s" for stage, took in entry.seconds.items()),
        "grid": "×".join(map(str, entry.shape)),
        "spacing": " × ".join(f"{mm:.3g}" for mm in entry.spacing_mm),
        "files": list(entry.files),
    }


def _picture(file: Path) -> str:
    """Return a picture as text for the page; nothing if there is none."""
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"cannot read {file}: {error.strerror}") from error
