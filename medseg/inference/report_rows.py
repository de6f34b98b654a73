"""The rows of a batch's report: what is shown of each scan, with its picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from medseg._support.file_look_up import FileLookUp
from medseg._support.html import make_link
from medseg.errors import OutputError
from medseg.inference.ledger_entry import Entry
from medseg.labels import LabelSet

PREVIEWS = "previews"
"""The folder of pictures among the results."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page with rows lies, and how it has its pictures.

    Attributes:
        out: The folder of results.
        prefix: What leads from the page's folder to it.
        embeds: Whether pictures are part of the page; it links to them otherwise.
        files: Knows which results are there.
    """

    out: Path
    prefix: str = ""
    embeds: bool = True
    files: FileLookUp = field(default_factory=FileLookUp, repr=False)

    def link(self, *names: str) -> str:
        """Return the address of a file among the results; empty if there is none."""
        address = make_link(self.out, *names, files=self.files)
        return f"{self.prefix}{address}" if address else ""


def get_preview_path(out: Path, scan: str) -> Path:
    """Return where the picture of a scan lies, or would."""
    return out / PREVIEWS / _name_preview(scan)


def _name_preview(scan: str) -> str:
    return f"{scan}.webp"


def list_colours(label_set: LabelSet) -> dict[str, str]:
    """Return the colour of each label; of a region, the colour of the label that it paints."""
    colours = {}
    for region in label_set.regions:
        label = label_set[region.paints - 1]
        colours[region.name] = "#" + bytes(label.colour).hex()
    return colours


def make_row(
    place: Place, entry: Entry, names: Sequence[str]
) -> dict[str, Any]:
    """Return what a page shows of a scan.

    Args:
        place: Where the page lies.
        entry: The scan's entry.
        names: Of the labels or regions, in the order of the columns.

    Raises:
        OutputError: If its picture cannot be read.
    """
    stages = [f"{stage} {took:.2f} s" for stage, took in entry.seconds.items()]
    shape = [str(voxels) for voxels in entry.shape]
    spacing = [f"{mm:.3g}" for mm in entry.spacing_mm]
    shown, picture, rank = None, None, ""
    if entry.is_good:
        picture = _find_picture(place, entry.scan)
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
            {"name": name, "link": place.link(name)} for name in entry.files
        ],
    }


def _find_picture(place: Place, scan: str) -> dict[str, Any] | None:
    """Return where a page has a picture from, and its size if known; ``None`` if there is none."""
    if not place.embeds:
        address = place.link(PREVIEWS, _name_preview(scan))
        return {"source": address, "width": 0} if address else None
    file = get_preview_path(place.out, scan)
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
    text = base64.b64encode(content).decode()
    source = f"data:image/webp;base64,{text}"
    return {"source": source, "width": width, "height": height}


def _read_size(content: bytes) -> tuple[int, int]:
    """Return the size of a picture in pixels; 0 if it is damaged."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.size
    except (OSError, Image.DecompressionBombError):
        # Not only pictures that it does not know: of known ones, any part may be damaged.
        return 0, 0
