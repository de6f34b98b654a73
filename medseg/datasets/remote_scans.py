"""Scans in an object store: which there are.

A table lists anything: files, and folders that hold a DICOM series. Below an address, image files
are found by their endings. Every scan must be known by its name, before anything is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from medseg._support.addresses import (
    find_place,
    hide_credentials,
    is_address,
    join_address,
)
from medseg._support.long_tables import TABLE_SUFFIXES, may_hold, open_table
from medseg._support.object_listing import list_objects
from medseg._support.object_store import StoredObject, fetch, look_at
from medseg._support.spool import Spool
from medseg.datasets.scan_candidates import flatten
from medseg.datasets.scan_tables import find_scan_columns
from medseg.errors import DatasetError, MedsegError
from medseg.names import (
    LEDGER,
    fold_name,
    has_image_suffix,
    make_safe_name,
    split_suffix,
)


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
    scans: Sequence[RemoteScan]
    notes: tuple[str, ...] = ()


def find_remote_scans(
    scans: str,
    folder: Path,
    is_wanted: Callable[[str], bool],
    channels: Sequence[str] = (),
) -> RemoteScans:
    """List the scans of a table, or below an address.

    Args:
        scans: The path or address of a table, or the address of an image or of a folder.
        folder: Where a table is fetched to.
        is_wanted: Tells which names are wanted.
        channels: What the bundle calls its channels.

    Raises:
        DatasetError: If there is none, or two have the same name.
        StorageError: If the store cannot be read.
    """
    root = find_place(scans)
    if PurePosixPath(root).suffix.lower() in TABLE_SUFFIXES:
        return _read_table(scans, folder, is_wanted, channels)
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
    below = _search(scans, names)
    _refuse_parts(below.scans, channels, scans)
    return below


def _search(address: str, names: _Names) -> RemoteScans:
    """Find the images below an address, but those in folders of results."""
    others = 0
    results: list[str] = []
    images: Spool[RemoteScan] = Spool()
    for stored in list_objects(address):
        place = find_place_below(address, stored)
        if has_image_suffix(place):
            images.append(RemoteScan(_name(place), (stored.address,), place))
            continue
        others += bool(place)
        folder, _, name = f"/{place}".rpartition("/")
        if name == LEDGER:
            results.append(f"{folder}/"[1:])
    notes = []
    if others:
        notes.append(
            f"{others} other objects are passed over; DICOM is listed in a table, with a name and "
            "the folder of each series"
        )
    if results:
        notes += _describe_results(results, address)
        images = _leave_out(images, tuple(results))
    chosen = Spool(filter(names.take, images))
    names.refuse_none(address)
    return RemoteScans(("scan",), chosen, tuple(notes))


def _refuse_parts(
    scans: Iterable[RemoteScan], channels: Sequence[str], address: str
) -> None:
    """Refuse files of single channels: what belongs together is only seen where all files lie.

    Raises:
        DatasetError: If all are such files, and each channel has some.
    """
    if len(channels) < 2:
        return
    named = [f"_{name.lower()}" for name in channels]
    numbered = [f"_{number:04}" for number in range(len(channels))]
    for endings in (named, numbered):
        met = {_find_ending(scan.name, endings) for scan in scans}
        if met == set(endings):
            raise DatasetError(
                "there is a file for each channel here; give a table with a row for each scan, and "
                f"the columns name, {', '.join(channels)}",
                source=hide_credentials(address),
            )


def _find_ending(name: str, endings: Iterable[str]) -> str:
    return next(filter(name.lower().endswith, endings), "")


def _describe_results(folders: Sequence[str], address: str) -> list[str]:
    if "" in folders:
        raise DatasetError(
            f"this folder holds results of medseg ({LEDGER}), not scans; give the folder of scans",
            source=hide_credentials(address),
        )
    reason = "holds results of medseg, which are not segmented again"
    return [f"{folder} {reason}" for folder in folders]


def _leave_out(
    scans: Iterable[RemoteScan], folders: tuple[str, ...]
) -> Spool[RemoteScan]:
    return Spool(scan for scan in scans if not scan.place.startswith(folders))


def lists_addresses(scans: str, channels: Sequence[str] = ()) -> bool:
    """Tell whether a table of this machine lists addresses; who reads it says what it lacks.

    Args:
        scans: Its path.
        channels: What the bundle calls its channels.
    """
    path = Path(scans)
    is_table = path.suffix.lower() in TABLE_SUFFIXES and path.is_file()
    if not is_table:
        return False
    try:
        table = open_table(path)
        columns = find_scan_columns(table, channels)
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


def find_place_below(address: str, stored: StoredObject) -> str:
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
    scans: str,
    folder: Path,
    is_wanted: Callable[[str], bool],
    channels: Sequence[str],
) -> RemoteScans:
    path, base = Path(scans), str(Path(scans).parent.absolute())
    if is_address(scans):
        base, _, name = find_place(scans).rpartition("/")
        path = folder / name
        fetch(look_at(scans), path)
    table = open_table(path)
    columns = find_scan_columns(table, channels)
    names = _Names(is_wanted)
    chosen: Spool[RemoteScan] = Spool()
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
    return RemoteScans(columns, chosen)


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
