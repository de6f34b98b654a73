"""The report of a batch: one HTML page that needs no other file, and a table of volumes.

The page shows the ledger's entries and the pictures of the scans. It opens from disk, fetches
nothing, and runs no script but its own: the name of a scan is always shown as text.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from medseg._support.files import write_atomically
from medseg._support.html import make_link, render_page
from medseg.errors import OutputError
from medseg.inference.ledger_entry import Entry, QualityEntry, get_review_order
from medseg.inference.result_files import SUMMARIES
from medseg.labels import LabelSet
from medseg.quality.estimates import explain_unjudged

PREVIEWS = "previews"
"""The folder of pictures among the results."""

VOLUMES, REPORT = SUMMARIES

_QUALITY_COLUMNS = ("expected_dice", "lower_bound", "review")
_SHOWN_COLUMNS = ("quality", "reasons")

_MOST_COLUMNS = 4
"""Labels with a column of their own; of more, the volumes lie in one that unfolds."""

_TEMPLATES = Path(__file__).with_name("templates")


def get_preview_path(out: Path, scan: str) -> Path:
    """Return where the picture of a scan lies, or would."""
    return out / PREVIEWS / f"{scan}.webp"


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

    The table can be sorted by every column.

    Args:
        out: The folder of results; its pictures are taken into the page.
        entries: The latest entry of each scan.
        title: The bundle's name and version.
        label_set: Whose colours the pictures have.

    Raises:
        OutputError: If it cannot be written, or a picture cannot be read.
    """
    write_atomically(
        out / REPORT, render_report(out, entries, title, label_set)
    )


def render_report(
    out: Path, entries: Iterable[Entry], title: str, label_set: LabelSet
) -> str:
    """Return the page that ``write_report`` writes."""
    ordered = sorted(entries, key=get_review_order)
    good = [entry for entry in ordered if entry.is_good]
    failed = [entry for entry in ordered if entry.is_failed]
    warned = [entry for entry in good if entry.remarks]
    flagged = [entry for entry in good if entry.needs_review]
    qualities = [
        entry.quality.to_quality()
        for entry in good
        if entry.quality is not None
    ]
    unjudged = [quality for quality in qualities if not quality.is_judged]
    names = _list_label_names(ordered, label_set)
    script = (_TEMPLATES / "batch_report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    return render_page(
        _TEMPLATES / "batch_report.html.j2",
        title=title,
        rows=[_make_row(out, entry, names) for entry in ordered],
        good=len(good),
        failed=len(failed),
        skipped=len(ordered) - len(good) - len(failed),
        warned=len(warned),
        flagged=len(flagged),
        judged=bool(qualities),
        unjudged=explain_unjudged(qualities),
        unjudged_count=len(unjudged),
        names=names,
        has_columns=len(names) <= _MOST_COLUMNS,
        colours=_list_colours(label_set),
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )


def format_volumes_csv(entries: Iterable[Entry], label_set: LabelSet) -> str:
    """Return the volumes and the quality of each segmented scan as CSV, sorted by name.

    Columns: ``scan``; ``<label>_ml``, volumes in millilitres; ``expected_dice``,
    ``lower_bound`` and ``review`` (1 or 0) of the whole; ``<label>_expected_dice``; ``quality``,
    what people are shown: where it is no number, those before order results and mean nothing more;
    and ``reasons`` for a review. Where a bundle has regions, these take the place of labels. Cells
    are empty where a value is unknown.
    """
    good = [entry for entry in entries if entry.is_good]
    good.sort(key=lambda entry: entry.scan.casefold())
    names = _list_label_names(good, label_set)
    volume_columns = [f"{name}_ml" for name in names]
    dice_columns = [f"{name}_expected_dice" for name in names]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = ["scan", *volume_columns, *_QUALITY_COLUMNS, *dice_columns]
    table.writerow([*columns, *_SHOWN_COLUMNS])
    for entry in good:
        volumes = [_format_number(entry.volumes_ml.get(name)) for name in names]
        quality = _format_quality(entry.quality, names)
        table.writerow([entry.scan, *volumes, *quality, *_format_shown(entry)])
    return text.getvalue()


def _format_quality(
    quality: QualityEntry | None, names: Sequence[str]
) -> list[str]:
    if quality is None:
        return [""] * (len(_QUALITY_COLUMNS) + len(names))
    cells = [
        _format_number(quality.expected_dice),
        _format_number(quality.lower_bound),
    ]
    cells.append(str(int(quality.review)))
    for name in names:
        expected, _ = quality.labels.get(name, (None, None))
        cells.append(_format_number(expected))
    return cells


def _format_shown(entry: Entry) -> list[str]:
    if entry.quality is None:
        return [""] * len(_SHOWN_COLUMNS)
    shown = entry.quality.to_quality().shown
    return [shown.text, "; ".join(shown.reasons)]


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _list_label_names(
    entries: Iterable[Entry], label_set: LabelSet
) -> Sequence[str]:
    """Return the bundle's labels or regions, then those that only other bundles' results have."""
    names = [region.name for region in label_set.regions]
    for entry in entries:
        names.extend(entry.volumes_ml)
    return tuple(dict.fromkeys(names))


def _list_colours(label_set: LabelSet) -> dict[str, str]:
    """Return the colour of each label; of a region, the colour of the label that it paints."""
    colours = {}
    for region in label_set.regions:
        label = label_set[region.paints - 1]
        colours[region.name] = "#" + bytes(label.colour).hex()
    return colours


def _make_row(out: Path, entry: Entry, names: Sequence[str]) -> dict[str, Any]:
    stages = [f"{stage} {took:.2f} s" for stage, took in entry.seconds.items()]
    shape = [str(voxels) for voxels in entry.shape]
    spacing = [f"{mm:.3g}" for mm in entry.spacing_mm]
    shown, picture, rank = None, None, ""
    if entry.is_good:
        picture = _embed_picture(get_preview_path(out, entry.scan))
        if entry.quality is not None:
            shown = entry.quality.to_quality().shown
            expected = entry.quality.expected_dice
            rank = "" if expected is None else str(expected)
    return {
        "entry": entry,
        "shown": shown,
        "rank": rank,
        "flagged": entry.needs_review,
        "picture": picture,
        "volumes": [(name, entry.volumes_ml.get(name)) for name in names],
        "notes": len(entry.review_reasons) + len(entry.remarks),
        "seconds": sum(entry.seconds.values()),
        "stages": ", ".join(stages),
        "grid": "×".join(shape),
        "spacing": " × ".join(spacing),
        "files": [
            {"name": name, "link": make_link(out, name)} for name in entry.files
        ],
    }


def _embed_picture(file: Path) -> dict[str, Any] | None:
    """Return a picture as base64 for the page, and its size; ``None`` if there is none."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            "a picture for the report cannot be read",
            source=file,
            detail=error.strerror,
        ) from error
    width, height = _read_size(content)
    return {
        "content": base64.b64encode(content).decode(),
        "width": width,
        "height": height,
    }


def _read_size(content: bytes) -> tuple[int, int]:
    """Return the size of a picture in pixels; 0 if it is damaged."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.size
    except UnidentifiedImageError:
        return 0, 0
