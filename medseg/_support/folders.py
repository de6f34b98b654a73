"""What lies in a folder and below, in an order that is always the same."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Literal

from medseg._support.files import SPECIAL, is_special
from medseg._support.platform.files import identify_folder
from medseg.errors import Fault, OutputError

SkipRule = Callable[[Path], str | None]
"""Says why a folder is not entered, or ``None`` where it is."""


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


def enter_all(folder: Path) -> str | None:
    """Skip no folder: the rule of ``list_files`` unless another is given."""
    return None


def list_files(root: Path, skip: SkipRule = enter_all) -> Listing:
    """Find every regular file in ``root`` and the folders below it.

    Links are followed, each folder is entered once, and never one that holds the link itself,
    so a circle of links ends.

    Args:
        root: The folder to search.
        skip: Says why a folder below ``root`` is not entered, or ``None`` where it is.
    """
    walk = _Walk(root, skip)
    files = tuple(walk.find_files())
    left_out = sorted(walk.left_out, key=str)
    skipped = sorted(walk.skipped, key=str)
    return Listing(files, tuple(left_out), tuple(skipped))


def resolve_path(path: Path) -> Path:
    """Return where a path leads when every link is followed; a circle of links leads nowhere.

    ``Path.resolve`` raises for a circle in some versions of Python; this never does.
    """
    return Path(os.path.realpath(path))


def refuse_file(folder: Path | None) -> None:
    """Make sure that what was named as a folder to write to is no file.

    Raises:
        OutputError: If it is a file.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OutputError(
            "this is a file, and a folder to write to is needed; name one that is empty, or that "
            "does not exist yet",
            source=folder,
        )


def find_listed(folder: Path, text: str) -> Path:
    """Return the path that a list means, relative to the list's folder.

    Names with accents and the like are written in several forms, and a list made on one system
    and files copied from another may differ in them: what is there in another form is meant.
    Windows puts ``\\`` between folders, other systems ``/``.
    """
    if "\\" in text and not os.path.lexists(folder / text):
        text = PureWindowsPath(text).as_posix()  # a list made on Windows
    if text.isascii():
        return folder / text
    found = folder
    for part in Path(text).parts:
        found = _find_in_any_form(found, part)
    return found


def _find_in_any_form(folder: Path, name: str) -> Path:
    path = folder / name
    if os.path.lexists(path):
        return path
    try:
        others = sorted(folder.iterdir())
    except OSError:  # who reads the path will say why it cannot be read
        return path
    normal = unicodedata.normalize("NFC", name)
    for other in others:
        if unicodedata.normalize("NFC", other.name) == normal:
            return other
    return path


@dataclass(slots=True)
class _Walk:
    """The state of one walk: what was left out, and which folders were entered."""

    root: Path
    skip: SkipRule
    left_out: list[Fault] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    entered: set[tuple[int, int] | str] = field(default_factory=set)

    def find_files(self) -> Iterator[Path]:
        """Give the files, by their path: what lies in a folder comes in the folder's place."""
        open_folders = [self._list_folder(self.root)]
        while open_folders:
            if not open_folders[-1]:
                open_folders.pop()
                continue
            entry = open_folders[-1].pop()
            path = Path(entry.path)
            kind = self._look_at(entry, path)
            if kind == "file":
                yield path
            elif kind == "folder":
                open_folders.append(self._list_folder(path))

    def _list_folder(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return what is in a folder, the first name last; nothing if it was entered before."""
        try:
            identity = identify_folder(folder)
            if identity in self.entered:
                return []
            self.entered.add(identity)
            with os.scandir(folder) as found:
                return sorted(found, key=_get_name, reverse=True)
        except OSError as error:
            self._leave_out(
                folder, f"the folder cannot be read: {_reason(error)}"
            )
            return []

    def _look_at(
        self, entry: os.DirEntry[str], path: Path
    ) -> Literal["file", "folder", ""]:
        """Tell whether to take a file or to enter a folder; empty for what is neither."""
        if entry.name.startswith("."):
            return ""
        try:
            # Most are known from the folder itself, which saves a call for each file.
            if entry.is_file(follow_symlinks=False):
                return "file"
            if path.is_dir():
                return "folder" if self._may_enter(path) else ""
            if path.is_file():
                return "file"
            if is_special(path):
                self._leave_out(path, SPECIAL)
            elif path.is_symlink():
                self._leave_out(
                    path, "is a link to something that does not exist"
                )
        except OSError as error:
            self._leave_out(path, f"cannot be read: {_reason(error)}")
        return ""

    def _may_enter(self, folder: Path) -> bool:
        if folder.is_symlink():
            target = folder.resolve()
            if folder.parent.resolve().is_relative_to(target):
                self._leave_out(folder, "is a link to a folder that it lies in")
                return False
        reason = self.skip(folder)
        if reason:
            self.skipped.append(self._fault(folder, reason))
        return reason is None

    def _leave_out(self, path: Path, reason: str) -> None:
        self.left_out.append(self._fault(path, reason))

    def _fault(self, path: Path, reason: str) -> Fault:
        return Fault(path.relative_to(self.root).as_posix(), reason)


def _get_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _reason(error: OSError) -> str:
    # Not the text of the error, which quotes the path.
    return error.strerror or type(error).__name__
