"""Scans in an object store: which there are, and their files fetched for a while.

A table lists anything: files, and folders that hold a DICOM series. Below an address, image files
are found by their endings. Every scan must be known by its name, before anything is fetched.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medseg._support.long_tables import TABLE_SUFFIXES, may_hold, open_table
from medseg._support.object_store import (
    NoAnswerError,
    NoObjectError,
    StorageError,
    StoredObject,
    fetch,
    find_place,
    hide_credentials,
    is_address,
    is_https,
    join_address,
    list_objects,
    look_at,
)
from medseg._support.tables import find_image_columns
from medseg.datasets.label_recognition import set_labels_apart
from medseg.datasets.scan_candidates import flatten
from medseg.errors import DatasetError, MedsegError
from medseg.io.voxel_files import find_voxel_file
from medseg.names import (
    fold_name,
    has_image_suffix,
    make_safe_name,
    split_suffix,
)

MOST_SILENT = 3
"""Scans in succession for which a store has no answer, after which it is not asked for more."""

_SINGLE = ("scan", "image")


@dataclass(frozen=True, slots=True)
class RemoteScan:
    """A scan by the addresses of its files.

    Attributes:
        name: What results call it.
        cells: The address of each channel, or of all; paths of this machine stay as they are.
        place: Its path below the address that was searched; empty for a row of a table.
    """

    name: str
    cells: tuple[str, ...]
    place: str = ""


@dataclass(frozen=True, slots=True)
class RemoteScans:
    """What to segment.

    Attributes:
        columns: What a table of them calls their cells.
        scans: The scans.
        notes: What was passed over.
    """

    columns: tuple[str, ...]
    scans: tuple[RemoteScan, ...]
    notes: tuple[str, ...] = ()


def find_remote_scans(
    scans: str, folder: Path, is_wanted: Callable[[str], bool]
) -> RemoteScans:
    """List the scans of a table, or below an address.

    Args:
        scans: The path or address of a table, or the address of an image or of a folder.
        folder: Where a table is fetched to.
        is_wanted: Tells which names are wanted.

    Raises:
        DatasetError: If there is none, or two have the same name.
        StorageError: If the store cannot be read.
    """
    root = find_place(scans)
    if PurePosixPath(root).suffix.lower() in TABLE_SUFFIXES:
        return _read_table(scans, folder, is_wanted)
    names = _Names(is_wanted)
    if has_image_suffix(root):
        place = root.rpartition("/")[2]
        found = [RemoteScan(_name(place), (scans,), place)]
        return RemoteScans(("scan",), tuple(filter(names.take, found)))
    if not is_address(scans):
        raise DatasetError(
            "results in an object store need a table of the scans of a folder of this machine; "
            "its column 'scan' has the path of each, and 'name' what to call it",
            source=scans,
        )
    others = 0
    chosen: list[RemoteScan] = []
    for stored in list_objects(scans):
        place = _find_place_below(scans, stored)
        if not place:
            continue
        if not has_image_suffix(place):
            others += 1
            continue
        scan = RemoteScan(_name(place), (stored.address,), place)
        if names.take(scan):
            chosen.append(scan)
    names.refuse_none(scans)
    notes = []
    if others:
        notes.append(
            f"{others} other objects are passed over; DICOM is listed in a table, with a name and "
            "the folder of each series"
        )
    return RemoteScans(("scan",), tuple(chosen), tuple(notes))


def lists_addresses(scans: str) -> bool:
    """Tell whether a table of this machine lists addresses; who reads it says what it lacks."""
    path = Path(scans)
    is_table = path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
    if not is_table:
        return False
    try:
        table = open_table(path)
        columns = find_image_columns(path, table.columns, _SINGLE)
        if not may_hold(table, columns, "://"):
            return False
        for _, cells in table.read_rows(columns):
            if any(is_address(cells[column]) for column in columns):
                return True
    except MedsegError:
        return False
    return False


def _name(place: str) -> str:
    stem, _ = split_suffix(place)
    return make_safe_name(flatten(stem))


def _find_place_below(address: str, stored: StoredObject) -> str:
    """Return the path that an object has on this machine, below that of an address.

    It is empty for what is hidden, or is the address itself. A store's names may be such as no
    folder has: an empty part (``a//b``) becomes ``_``, as ``\\`` does.
    """
    key = stored.address[len(address.rstrip("/")) + 1 :]
    if not key:
        return ""
    parts = [part.replace("\\", "_") or "_" for part in key.split("/")]
    is_hidden = any(part[0] == "." for part in parts)
    return "" if is_hidden else "/".join(parts)


def _read_table(
    scans: str, folder: Path, is_wanted: Callable[[str], bool]
) -> RemoteScans:
    path, base = Path(scans), str(Path(scans).parent.absolute())
    if is_address(scans):
        base, _, name = find_place(scans).rpartition("/")
        path = folder / name
        fetch(look_at(scans), path)
    table = open_table(path)
    columns = find_image_columns(path, table.columns, _SINGLE)
    names = _Names(is_wanted)
    chosen: list[RemoteScan] = []
    for number, cells in table.read_rows((*columns, "name")):
        listed = [cells[column] for column in columns]
        name = cells.get("name", "") or _name_cell(listed[0])
        if not name or not all(listed):
            raise DatasetError(
                f"{table.noun} {number} lacks a file or a name; scans in an object store need a "
                "name in the column 'name' unless their ending says that they are images",
                source=hide_credentials(scans),
            )
        files = tuple(_resolve(base, cell) for cell in listed)
        scan = RemoteScan(make_safe_name(name), files)
        if names.take(scan):
            chosen.append(scan)
    names.refuse_none(scans)
    return RemoteScans(columns, tuple(chosen))


def _name_cell(cell: str) -> str:
    place = find_place(cell)
    if not has_image_suffix(place):
        return ""
    if is_address(cell):
        place = place.rpartition("/")[2]
    stem, _ = split_suffix(place)
    return flatten(stem)


def _resolve(base: str, cell: str) -> str:
    if is_address(cell) or Path(cell).is_absolute():
        return cell
    if is_address(base):
        return join_address(base, cell)
    return str(Path(base) / cell)


@dataclass(slots=True)
class _Names:
    """Chooses scans by name, and sees to it that no two share one."""

    is_wanted: Callable[[str], bool]
    taken: set[int] = field(default_factory=set)

    def take(self, scan: RemoteScan) -> bool:
        """Take a scan's name; tell whether it is wanted.

        Raises:
            DatasetError: If another scan has it.
        """
        key = hash(fold_name(scan.name))
        if key in self.taken:
            raise DatasetError(
                "two scans would have results of one name; give a table with a column 'name'",
                source=hide_credentials(scan.cells[0]),
                detail=scan.name,
            )
        self.taken.add(key)
        return self.is_wanted(scan.name)

    def refuse_none(self, where: str) -> None:
        """Make sure that there was a scan.

        Raises:
            DatasetError: If there was none.
        """
        if not self.taken:
            raise DatasetError(
                "no scan was found", source=hide_credentials(where)
            )


# --- fetched scans ------------------------------------------------------------------------


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
            paths.append(str(self._fetch(cell, self.folder / place)))
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
        voxels = find_voxel_file(path)
        if voxels != path and voxels.parent == path.parent:
            beside = join_address(address.rpartition("/")[0], voxels.name)
            self._fetch_voxels(beside, voxels)
        return path

    def _fetch_voxels(self, address: str, path: Path) -> None:
        try:
            self._fetch_object(look_at(address), path)
        except NoObjectError:
            self.missing.append(address)

    def _fetch_folder(self, address: str, path: Path) -> None:
        count = 0
        for stored in list_objects(f"{address.rstrip('/')}/"):
            place = _find_place_below(address, stored)
            if place:
                self._fetch_object(stored, path / place)
                count += 1
        if not count:
            self.missing.append(address)

    def _fetch_object(self, stored: StoredObject, path: Path) -> None:
        fetch(stored, path)
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
