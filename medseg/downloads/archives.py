"""Unpack a tar or zip archive. An archive is others' data: nothing in it is trusted.

Every name is checked before the first file is written, and only regular files are made: no links,
no devices, no names that lead out of the folder, none that two systems would take for one.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from medseg.errors import DownloadError
from medseg.events import Listener, Progress, notify
from medseg.names import fold_name, is_device_name

TASK = "unpacking"
"""The name under which progress is reported."""

_MOST_FILES = 1_000_000
_MOST_FOLDERS = 32
"""Folders within each other."""
_CHUNK = 1 << 20
_BAD_SIGN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f\ud800-\udfff]')
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive.

    Attributes:
        parts: Its folders and its name.
        size: As the archive says.
        open: Opens it.
    """

    parts: tuple[str, ...]
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def unpack(
    archive: Path,
    folder: Path,
    most_bytes: int,
    listeners: Sequence[Listener] = (),
) -> dict[str, int]:
    """Unpack an archive into a folder; a folder that holds all the rest is left out.

    Files that systems leave in archives (``._x``, ``__MACOSX``, ``.DS_Store``) are left out, too.

    Args:
        archive: A tar, compressed or not, or a zip.
        folder: Where to; it exists and is empty.
        most_bytes: More than so many, of all files together, are refused.
        listeners: Told of progress.

    Returns:
        The path of each file, relative to the folder, and its size.

    Raises:
        DownloadError: If the archive is damaged, or holds anything but plain files.
    """
    try:
        with _open(archive) as members:
            _check(members, most_bytes)
            shared = _count_shared_folders(members)
            return _write(members, shared, folder, most_bytes, listeners)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        EOFError,
        NotImplementedError,
    ) as error:
        raise DownloadError(
            "the archive is damaged or of an unknown kind", source=archive
        ) from error


@contextmanager
def _open(archive: Path) -> Iterator[list[_Member]]:
    """Open an archive; give its files."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield list(_list_zip(zipped))
        return
    with tarfile.open(archive) as tape:
        yield list(_list_tar(tape))


def _list_tar(tape: tarfile.TarFile) -> Iterator[_Member]:
    for number, info in enumerate(tape):
        # A size below zero leads back to where the tape was already, again and again.
        if info.size < 0 or number > _MOST_FILES:
            raise _refuse("too many files, or sizes that make no sense")
        parts = _split(info.name)
        if info.isdir() or _is_left_behind(parts):
            continue
        if not info.isreg() or info.issparse():
            raise _refuse("a link, a device or a file with holes")
        yield _Member(parts, info.size, _open_in_tar(tape, info))


def _open_in_tar(
    tape: tarfile.TarFile, info: tarfile.TarInfo
) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    def open_file() -> AbstractContextManager[IO[bytes]]:
        stream = tape.extractfile(info)
        if stream is None:
            raise _refuse("something that is no file")
        return stream

    return open_file


def _list_zip(zipped: zipfile.ZipFile) -> Iterator[_Member]:
    for info in zipped.infolist():
        parts = _split(info.filename)
        if info.is_dir() or _is_left_behind(parts):
            continue
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise _refuse("a link or a device")
        if info.flag_bits & _ENCRYPTED:
            raise _refuse("an encrypted file")
        yield _Member(parts, info.file_size, _open_in_zip(zipped, info))


def _open_in_zip(
    zipped: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    def open_file() -> AbstractContextManager[IO[bytes]]:
        return zipped.open(info)

    return open_file


def _split(name: str) -> tuple[str, ...]:
    """Return the folders and the name of a file, all of them plain.

    Raises:
        DownloadError: If it leads out of the folder, or some system cannot have it.
    """
    if name.startswith("/"):
        raise _refuse("a file with an absolute name")
    parts = tuple(
        part for part in name.rstrip("/").split("/") if part not in ("", ".")
    )
    if len(parts) > _MOST_FOLDERS:
        raise _refuse("folders too deep in each other")
    for part in parts:
        if part == ".." or _BAD_SIGN.search(part):
            raise _refuse("a file whose name leads elsewhere")
        if part[-1] in " ." or is_device_name(part):
            raise _refuse("a file whose name Windows cannot have")
    return parts


def _is_left_behind(parts: Sequence[str]) -> bool:
    if not parts:
        return True
    is_companion = parts[-1].startswith("._") or parts[-1] == ".DS_Store"
    return is_companion or "__MACOSX" in parts


def _check(members: Sequence[_Member], most_bytes: int) -> None:
    """Refuse an archive before anything of it is written.

    Raises:
        DownloadError: If it holds nothing, too much, or two files of one name.
    """
    if not members:
        raise _refuse("nothing")
    if len(members) > _MOST_FILES:
        raise _refuse("too many files")
    if sum(member.size for member in members) > most_bytes:
        raise _refuse("more than the data set has")
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        name = fold_name("/".join(member.parts))
        if name in files:
            raise _refuse("two files of one name")
        files.add(name)
        while "/" in name:
            name, _, _ = name.rpartition("/")
            folders.add(name)
    if files & folders:
        raise _refuse("a file and a folder of one name")


def _count_shared_folders(members: Sequence[_Member]) -> int:
    """Return how many folders at the top hold all the rest: one, or none."""
    tops = {member.parts[0] for member in members}
    is_shared = all(len(member.parts) > 1 for member in members)
    return 1 if is_shared and len(tops) == 1 else 0


def _write(
    members: Sequence[_Member],
    shared: int,
    folder: Path,
    most_bytes: int,
    listeners: Sequence[Listener],
) -> dict[str, int]:
    written: dict[str, int] = {}
    left = most_bytes
    for done, member in enumerate(members, start=1):
        parts = member.parts[shared:]
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _copy(member, path, left)
        left -= size
        written["/".join(parts)] = size
        notify(listeners, Progress(TASK, done, len(members)))
    return written


def _copy(member: _Member, path: Path, most_bytes: int) -> int:
    """Write a file; return its size, which is counted and not believed."""
    size = 0
    with member.open() as source, path.open("xb") as target:
        while piece := source.read(_CHUNK):
            size += len(piece)
            if size > most_bytes:
                raise _refuse("more than the data set has")
            target.write(piece)
    if size != member.size:
        raise _refuse("a file that ends early")
    return size


def _refuse(what: str) -> DownloadError:
    return DownloadError(
        f"the archive holds {what}, so it is not unpacked; fetch it from its own source"
    )
