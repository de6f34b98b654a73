"""``CasePictures``: a small picture of each case with its latest label map, for the work list.

Drawn when a case is segmented or corrected: scan and label map are in memory then.
"""

from __future__ import annotations

from pathlib import Path

from medseg._support.files import write_atomically
from medseg.label_server.state import StateFolder
from medseg.labels import LabelSet
from medseg.names import normalize_name
from medseg.plots.thumbnails import draw_thumbnail
from medseg.volume import Array, Volume


class CasePictures:
    """The pictures in a state folder.

    Args:
        state: The state folder.
        label_set: The bundle's labels.
    """

    def __init__(self, state: StateFolder, label_set: LabelSet) -> None:
        self._folder = state.pictures
        self._label_set = label_set

    def draw(self, case: str, volume: Volume, labels: Array) -> None:
        """Draw a case; an earlier picture is replaced.

        Args:
            case: Its name.
            volume: The scan.
            labels: Label indices ``(i, j, k)``.

        Raises:
            OutputError: If it cannot be written.
        """
        picture = draw_thumbnail(volume, labels, self._label_set)
        write_atomically(self._get_file(case), picture)

    def find(self, case: str) -> Path | None:
        """Return a case's picture, a WebP file; ``None`` if none was drawn yet."""
        file = self._get_file(case)
        return file if file.is_file() else None

    def _get_file(self, case: str) -> Path:
        return self._folder / f"{normalize_name(case)}.webp"
