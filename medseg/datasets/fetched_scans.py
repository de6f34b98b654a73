"""Scans of an object store whose files are fetched for a while, some scans at a time."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg._support.addresses import (
    find_place,
    hide_credentials,
    is_address,
    is_https,
    join_address,
)
from medseg._support.object_listing import list_objects
from medseg._support.object_store import StoredObject, fetch, look_at
from medseg._support.store_errors import (
    NoAnswerError,
    NoObjectError,
    StorageError,
)
from medseg.datasets.label_recognition import set_labels_apart
from medseg.datasets.remote_scans import RemoteScan, find_place_below
from medseg.errors import OutputError
from medseg.io.voxel_files import name_voxel_files

MOST_SILENT = 3
"""Scans in succession for which a store has no answer, after which it is not asked for more."""

_NO_SUCH_NAMES = (
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)
"""What systems say of files that cannot have such a name, or not beside the others."""


@dataclass(slots=True)
class FetchedScans:
    """Some scans, fetched into a folder.

    Attributes:
        folder: The folder.
        scans: The scans, with the paths of what was fetched.
        size: Their bytes.
        labels: Files that hold labels rather than scans.
        missing: Addresses at which there is nothing.
        failed: Scan → why it could not be fetched.
    """

    folder: Path
    scans: list[RemoteScan] = field(default_factory=list)
    size: int = 0
    labels: tuple[Path, ...] = ()
    missing: list[str] = field(default_factory=list)
    failed: dict[str, StorageError] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many scans there are, those that failed among them."""
        return len(self.scans) + len(self.failed)

    def add(self, scan: RemoteScan) -> None:
        """Fetch a scan.

        Raises:
            StorageError: If the store cannot be read.
        """
        number = self.count
        paths = []
        for channel, cell in enumerate(scan.cells):
            if not is_address(cell):
                paths.append(cell)
                continue
            name = find_place(cell).rpartition("/")[2]
            place = scan.place or f"{number}/{channel}/{name}"
            path = _make_path(self.folder, place, cell)
            paths.append(str(self._fetch(cell, path)))
        self.scans.append(RemoteScan(scan.name, tuple(paths), scan.place))

    def _fetch(self, address: str, path: Path) -> Path:
        try:
            self._fetch_object(look_at(address), path)
        except NoObjectError:
            if is_https(address):
                self.missing.append(address)
            else:
                self._fetch_folder(address, path)
            return path
        names = name_voxel_files(path)
        if names and not any(
            self._fetch_beside(address, _make_path(path.parent, name, address))
            for name in names
        ):
            self.missing.append(_find_beside(address, names[0]))
        return path

    def _fetch_beside(self, address: str, path: Path) -> bool:
        """Fetch what lies beside an object, if it is there."""
        try:
            stored = look_at(_find_beside(address, path.name))
        except NoObjectError:
            return False
        self._fetch_object(stored, path)
        return True

    def _fetch_folder(self, address: str, path: Path) -> None:
        count = 0
        for stored in list_objects(f"{address.rstrip('/')}/"):
            place = find_place_below(address, stored)
            if place:
                file = _make_path(path, place, stored.address)
                if os.path.lexists(file):
                    raise _make_name_error(stored.address)
                self._fetch_object(stored, file)
                count += 1
        if not count:
            self.missing.append(address)

    def _fetch_object(self, stored: StoredObject, path: Path) -> None:
        if stored.size > shutil.disk_usage(self.folder.parent).free:
            raise StorageError(
                f"an object of {stored.size} bytes does not fit into the folder for temporary "
                "files; make room there, or name another one in TMPDIR",
                source=hide_credentials(stored.address),
            )
        try:
            fetch(stored, path)
        except OutputError as error:
            if getattr(error.__cause__, "errno", 0) not in _NO_SUCH_NAMES:
                raise
            raise _make_name_error(stored.address) from None
        self.size += path.stat().st_size

    def set_labels_apart(self) -> None:
        """Leave out label maps that were found beside scans, as in a folder of this machine."""
        files = [Path(scan.cells[0]) for scan in self.scans if scan.place]
        there = [file for file in files if file.is_file()]
        sorted_files = set_labels_apart(self.folder, there)
        self.labels = (*sorted_files.named, *sorted_files.unnamed)
        labels = set(map(str, self.labels))
        self.scans = [
            scan for scan in self.scans if scan.cells[0] not in labels
        ]

    def write_table(self, path: Path, columns: Sequence[str]) -> None:
        """Write a table of the scans."""
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["name", *columns])
            for scan in self.scans:
                table.writerow([scan.name, *scan.cells])


def _make_path(folder: Path, place: str, address: str) -> Path:
    """Return where an object is to lie; Windows has names that lead out of a folder.

    Raises:
        StorageError: If that would be elsewhere, or can be nowhere.
    """
    path = folder / place
    is_below = path.is_relative_to(folder) and "\0" not in place
    if not is_below or ".." in path.relative_to(folder).parts:
        raise _make_name_error(address)
    return path


def _make_name_error(address: str) -> StorageError:
    return StorageError(
        "no file of this machine can be called as this object is, or not beside the others; give "
        "the object another name",
        source=hide_credentials(address),
    )


def _find_beside(address: str, name: str) -> str:
    """Return the address of what lies beside an object; a signature may be that of the folder."""
    place = find_place(address)
    query = address.removeprefix(place)
    return join_address(place.rpartition("/")[0], name) + query


def fetch_rounds(
    scans: Iterable[RemoteScan],
    make_folder: Callable[[], Path],
    *,
    most_scans: int,
    most_bytes: int,
) -> Iterator[FetchedScans]:
    """Fetch scans, some at a time, as late as possible; of none, give one empty round.

    A scan that cannot be fetched fails alone, but where some in succession find no answer, nothing
    says that the store will answer for others.

    Args:
        scans: The scans.
        make_folder: Makes an empty folder.
        most_scans: Scans of one round at most.
        most_bytes: Bytes after which a round ends.

    Raises:
        StorageError: If the store does not answer any more; what was fetched is given before.
    """
    is_first = True
    fetched = FetchedScans(make_folder())
    silence: list[NoAnswerError] = []
    for scan in scans:
        _fetch_scan(scan, fetched, silence)
        if len(silence) >= MOST_SILENT:
            break
        if fetched.count >= most_scans or fetched.size >= most_bytes:
            yield fetched
            is_first = False
            fetched = FetchedScans(make_folder())
    if fetched.count or is_first:
        yield fetched
    if len(silence) >= MOST_SILENT:
        raise silence[-1]


def _fetch_scan(
    scan: RemoteScan, fetched: FetchedScans, silence: list[NoAnswerError]
) -> None:
    """Fetch a scan, or note why it cannot be.

    Args:
        scan: The scan.
        fetched: Takes it.
        silence: The errors of scans in succession for which the store had no answer.
    """
    try:
        fetched.add(scan)
    except StorageError as error:
        fetched.failed[scan.name] = error
        if isinstance(error, NoAnswerError):
            silence.append(error)
            return
    silence.clear()
