"""What lies in a folder and below, in an order that is always the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import Fault


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: Regular files, sorted by their path. Hidden ones are left out, which covers
            temporary files and the ``._`` companions that some archives hold.
        left_out: What could not be looked at, and why.
        skipped: Folders that were not entered because they are not meant, and why.
    """

    files: tuple[Path, ...]
    left_out: tuple[Fault, ...]
    skipped: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _Walk:
    """The state of one walk: what was found, and which folders were seen."""

    root: Path
    skip: Callable[[Path], str | None]
    files: list[Path] = field(default_factory=list)
    left_out: list[Fault] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def leave_out(self, path: Path, why: str) -> None:
        self.left_out.append(Fault(str(path.relative_to(self.root)), why))

    def look_into(self, folder: Path) -> list[Path]:
        """Take the files of ``folder`` and return its folders, sorted."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self.seen:
                return []
            self.seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.leave_out(folder, f"the folder cannot be read: {error.strerror or error}")
            return []
        return [below for entry in entries if (below := self._take(Path(entry.path)))]

    def _take(self, path: Path) -> Path | None:
        if path.name.startswith("."):
            return None
        try:
            if path.is_dir():
                return path if self._may_enter(path) else None
            if path.is_file():
                self.files.append(path)
            elif path.is_symlink():
                self.leave_out(path, "is a link to something that is not there")
        except OSError as error:
            self.leave_out(path, f"cannot be read: {error.strerror or error}")
        return None

    def _may_enter(self, folder: Path) -> bool:
        if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
            self.leave_out(folder, "is a link to a folder that it lies in")
            return False
        reason = self.skip(folder)
        if reason:
            self.skipped.append(Fault(str(folder.relative_to(self.root)), reason))
        return reason is None


def resolve_path(path: Path) -> Path:
    """Return where a path leads when every link is followed; a circle of links leads nowhere.

    ``Path.resolve`` raises for a circle in some versions of Python; this never does.
    """
    return Path(os.path.realpath(path))


def list_files(root: Path, skip: Callable[[Path], str | None] = lambda folder: None) -> Listing:
    """Find every regular file in ``root`` and the folders below it.

    Links are followed, each folder is entered once, and never one that holds the link itself,
    so a circle of links ends.

    Args:
        root: The folder to search.
        skip: Says why a folder below ``root`` is not entered, or ``None`` where it is.
    """
    walk = _Walk(root, skip)
    waiting = [root]
    while waiting:
        waiting.extend(reversed(walk.look_into(waiting.pop())))
    files = sorted(walk.files, key=lambda path: path.relative_to(root).parts)
    left_out, skipped = (sorted(found, key=str) for found in (walk.left_out, walk.skipped))
    return Listing(tuple(files), tuple(left_out), tuple(skipped))
