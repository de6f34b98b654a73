"""Whether files are there, of very many: from one look at their folder, not one at each of them."""

from __future__ import annotations

import os
from pathlib import Path


class FileLookUp:
    """Knows the files of the folders that it was asked about, as they were at the first question.

    A look at one file takes a millisecond where folders lie on a server.
    """

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def finds(self, path: Path) -> bool:
        """Tell whether there is such a file."""
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = frozenset(_list_files(folder))
        # A file system may know names that it lists in another form.
        return path.name in self._names[folder] or path.is_file()


def _list_files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if entry.is_file()]
    except OSError:
        # Not there, or not to be listed: then each file is looked at.
        return []
