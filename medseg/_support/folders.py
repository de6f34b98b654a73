"""What lies in a folder and below, in an order that is always the same."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from medseg._support.files import SPECIAL, is_special
from medseg._support.platform.files import identify_folder
from medseg.errors import Fault, MedsegError, OutputError

_NUMBER_BITS = 64

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


def ignore_folder(folder: Path, names: Sequence[str]) -> None:
    """Do nothing: what a walk tells of a folder unless another is told."""


def list_files(root: Path, skip: SkipRule = enter_all) -> Listing:
    """Find every regular file in ``root`` and the folders below it.

    Links are followed, each folder is entered once, and never one that holds the link itself,
    so a circle of links ends.

    Args:
        root: The folder to search.
        skip: Says why a folder below ``root`` is not entered, or ``None`` where it is.
    """
    walk = FolderWalk(root, skip)
    files = tuple(walk.find_files())
    return Listing(files, walk.list_left_out(), walk.list_skipped())


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


def explain_unreadable(path: Path, *, by_name: bool = False) -> str:
    """Return why a person may not look into a folder, or at a path; empty where they may.

    Args:
        path: It need not exist.
        by_name: Whether files in it are opened by their names alone, and it is never listed.
    """
    try:
        if path.is_dir():
            (path / "any name").exists()
            if not by_name:
                os.scandir(path).close()
    except OSError as error:
        return _reason(error)
    return ""


def refuse_unreadable(
    path: Path, kind: type[MedsegError] = MedsegError, *, by_name: bool = False
) -> None:
    """Make sure that a person may look into a folder, or at a path, before anybody does.

    Args:
        path: It need not exist.
        kind: Of the error.
        by_name: As for ``explain_unreadable``.

    Raises:
        MedsegError: If they may not.
    """
    reason = explain_unreadable(path, by_name=by_name)
    if reason:
        raise kind(f"cannot be read: {reason}", source=path)


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


class FolderWalk:
    """Finds the files of a folder and below, one after the other; it holds only names.

    Args:
        root: The folder to search.
        skip: Says why a folder below ``root`` is not entered, or ``None`` where it is.
        enter: Told each folder and the names of its files, in order, before any of these is
            given, and before any folder in it.
    """

    def __init__(
        self,
        root: Path,
        skip: SkipRule = enter_all,
        enter: Callable[[Path, Sequence[str]], None] = ignore_folder,
    ) -> None:
        self._root = root
        self._skip = skip
        self._enter = enter
        self._left_out: list[Fault] = []
        self._skipped: list[Fault] = []
        self._entered: set[int | str] = set()

    def find_files(self) -> Iterator[Path]:
        """Give the files, by their path: what lies in a folder comes in the folder's place."""
        open_folders = [self._list_folder(self._root)]
        while open_folders:
            folder = open_folders[-1]
            name = folder.take()
            if not name:
                open_folders.pop()
                continue
            path = Path(os.path.join(folder.path, name))  # noqa: PTH118 - quicker
            if folder.is_folder:
                open_folders.append(self._list_folder(path))
            else:
                yield path

    def list_left_out(self) -> tuple[Fault, ...]:
        """Return what could not be looked at, and why."""
        return tuple(sorted(self._left_out, key=str))

    def list_skipped(self) -> tuple[Fault, ...]:
        """Return the folders that were not entered because they are not meant, and why."""
        return tuple(sorted(self._skipped, key=str))

    def _list_folder(self, path: Path) -> _OpenFolder:
        """Look at what is in a folder; nothing is if it was entered before."""
        folder = _OpenFolder(path)
        try:
            identity = _pack(identify_folder(path))
            if identity in self._entered:
                return folder
            self._entered.add(identity)
            with os.scandir(path) as found:
                for entry in found:
                    # Most are known from the folder itself, which saves a call for each.
                    if not entry.is_file(follow_symlinks=False):
                        self._look_at(entry, folder)
                    elif not entry.name.startswith("."):
                        folder.files.append(entry.name)
        except OSError as error:
            self._leave_out(
                path, f"the folder cannot be read: {_reason(error)}"
            )
            return _OpenFolder(path)
        folder.sort()
        self._enter(path, folder.files)
        return folder

    def _look_at(self, entry: os.DirEntry[str], folder: _OpenFolder) -> None:
        """Note a file, or a folder to be entered."""
        if entry.name.startswith("."):
            return
        path = Path(entry.path)
        try:
            if path.is_dir():
                if self._may_enter(path):
                    folder.folders.append(entry.name)
            elif path.is_file():
                folder.files.append(entry.name)
            elif is_special(path):
                self._leave_out(path, SPECIAL)
            elif path.is_symlink():
                self._leave_out(
                    path, "is a link to something that does not exist"
                )
        except OSError as error:
            self._leave_out(path, f"cannot be read: {_reason(error)}")

    def _may_enter(self, folder: Path) -> bool:
        if folder.is_symlink():
            target = folder.resolve()
            if folder.parent.resolve().is_relative_to(target):
                self._leave_out(folder, "is a link to a folder that it lies in")
                return False
        reason = self._skip(folder)
        if reason:
            self._skipped.append(self._fault(folder, reason))
        return reason is None

    def _leave_out(self, path: Path, reason: str) -> None:
        self._left_out.append(self._fault(path, reason))

    def _fault(self, path: Path, reason: str) -> Fault:
        return Fault(path.relative_to(self._root).as_posix(), reason)


@dataclass(slots=True)
class _OpenFolder:
    """A folder that is being gone through.

    Attributes:
        path: The folder.
        files: Names of its files.
        folders: Names of its folders.
        is_folder: Whether what was taken last is a folder.
    """

    path: Path
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    is_folder: bool = False
    _next_file: int = 0

    def sort(self) -> None:
        """Put names in order; the first folder last, since they are taken from the end."""
        self.files.sort()
        self.folders.sort(reverse=True)

    def take(self) -> str:
        """Take the next name of a file or a folder; empty when there is none left."""
        has_file = self._next_file < len(self.files)
        file = self.files[self._next_file] if has_file else ""
        self.is_folder = bool(self.folders)
        if has_file and self.folders:
            self.is_folder = self.folders[-1] < file
        if self.is_folder:
            return self.folders.pop()
        self._next_file += has_file
        return file


def _pack(identity: tuple[int, int] | str) -> int | str:
    """Return a folder's device and number as one number, of which very many take little memory."""
    if isinstance(identity, str):
        return identity
    device, number = identity
    return (device << _NUMBER_BITS) + number


def _reason(error: OSError) -> str:
    # Not the text of the error, which quotes the path.
    return error.strerror or type(error).__name__
