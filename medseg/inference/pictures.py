"""The picture of a scan's result, for the report."""

from __future__ import annotations

from pathlib import Path

from medseg._support.files import write_atomically
from medseg.errors import OutputError
from medseg.labels import LabelSet
from medseg.plots.thumbnails import draw_thumbnail
from medseg.volume import Array, Volume


def draw_picture(
    file: Path, volume: Volume, labels: Array, label_set: LabelSet
) -> None:
    """Draw a scan with its labels.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_atomically(file, draw_thumbnail(volume, labels, label_set))


def remove_picture(file: Path) -> None:
    """Remove a picture, if it is there.

    Raises:
        OutputError: If it cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            "the picture of an earlier result cannot be removed",
            source=file,
            detail=error.strerror,
        ) from error
