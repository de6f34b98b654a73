"""The ledger of a batch: one JSON line per scan worked on, appended and never changed.

A line is written in one piece and is on disk before the next scan's is. What a killed process
left half-written is cut off when the ledger is opened again. A lock keeps two processes from
working in one folder, and is free as soon as its process is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from pathlib import Path

from pydantic import ValidationError

from medseg._support.files import PART
from medseg._support.platform.files import open_binary, read_at, sync_handle
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.errors import BusyError, OutputError
from medseg.inference.entries import Entries
from medseg.inference.ledger_entry import Entry
from medseg.inference.shards import (
    PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    Shard,
    list_ledger_folders,
    list_shards,
    refuse_others,
)
from medseg.inference.times import add_second
from medseg.names import LEDGER

_HALF_WRITTEN = f"{PART}*"

_BLOCK_BYTES = 1 << 16

_NAME = re.compile(rb'\{"scan":"([^"\\]+)"')
"""How a line begins; names hold no sign that JSON writes in another form."""


class Ledger:
    """An open ledger. Only the process that opened it can write.

    Args:
        folder: The folder of results.
        path: The file.
        handle: The same, open.
        entries: Scan → its latest entry so far.
        damaged: How many lines cannot be read.
        result_folders: Where nobody else writes results.
    """

    def __init__(
        self,
        folder: Path,
        path: Path,
        handle: int,
        entries: Entries,
        damaged: int,
        result_folders: Sequence[Path] = (),
    ) -> None:
        self.folder = folder
        self._result_folders = result_folders
        self.damaged = damaged
        self.path = path
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self._entries = entries

    @property
    def entries(self) -> Entries:
        """Scan → its latest entry, in the order in which scans first came."""
        return self._entries

    def enter(self, entry: Entry) -> Entry:
        """Add an entry; it is on disk when this returns.

        Returns:
            The entry as it was added: never of an earlier time than what it takes the place of.

        Raises:
            OutputError: If it cannot be written; the ledger is as it was before.
            BusyError: If somebody else has written into it.
        """
        self._require_in_place()
        entry = self._put_later(entry)
        text = entry.model_dump_json().encode()
        line = text + b"\n"
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(0, "the disk is full")
            sync_handle(self._handle)
        except OSError as error:
            # Where that fails, too, who opens it next cuts off what is half-written.
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise _make_write_error(self.path, error) from error
        self._size += len(line)
        self._entries.add(entry, text)
        return entry

    def _require_in_place(self) -> None:
        """Make sure that what is written is what others read.

        Raises:
            OutputError: If the file, or its folder, was removed, renamed or replaced.
            BusyError: If it was changed.
        """
        try:
            own, other = os.fstat(self._handle), self.path.stat()
        except OSError as error:
            raise _make_write_error(self.path, error) from error
        if own.st_size != self._size:
            raise BusyError(
                "another process writes into this ledger, too, or it was edited; where locks do "
                "not hold between machines, start each shard once. Run the same command again",
                source=self.path,
            )
        # Some network drives number a file anew while it is open.
        has_own_number = os.path.samestat(own, other)
        if not has_own_number and own.st_size != other.st_size:
            raise OutputError(
                "the ledger was replaced while this call worked; run the same command again",
                source=self.path,
            )

    def _put_later(self, entry: Entry) -> Entry:
        """Return an entry that counts more than what any ledger knows of its scan.

        Clocks of machines differ, and are set back.
        """
        known = self._entries.get(entry.scan)
        if known is None or _is_later(entry, known):
            return entry
        later = add_second(known.finished)
        return entry.model_copy(update={"finished": later})

    def remove_half_written(self) -> None:
        """Remove what killed processes left half-written; nothing where others still write.

        Raises:
            OutputError: If it cannot be removed.
        """
        try:
            _remove_half_written(self._result_folders)
        except OSError as error:
            raise _make_write_error(self.path, error) from error


@contextlib.contextmanager
def open_ledger(
    folder: Path,
    parts: Sequence[str] = (),
    shard: Shard | None = None,
    renamed: Collection[str] = (),
) -> Iterator[Ledger]:
    """Open the ledger of a folder for this process alone, and clear what a killed one left.

    What any ledger of the folder knows is known, of a shard's own scans; entries are added to the
    own one.

    Args:
        folder: The folder of results; made if needed.
        parts: Folders in it that hold results, too.
        shard: Whose ledger to open. What killed shards left half-written is cleared by who works
            on all scans: others may still be writing.
        renamed: Names that count, too, since scans of the shard may have had them.

    Raises:
        OutputError: If the folder cannot be written.
        BusyError: If another process works in it on the same scans.
    """
    own = folder if shard is None else folder / shard.folder
    path = own / LEDGER
    try:
        own.mkdir(parents=True, exist_ok=True)
        handle = open_binary(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise _make_write_error(path, error) from error
    try:
        patience = SHORT_PATIENCE_SECONDS if shard is None else PATIENCE_SECONDS
        with _lock(own, patience):
            refuse_others(folder, shard)
            folders: list[Path] = []
            try:
                _cut_torn_line(handle)
                if shard is None:
                    folders = [folder, *(folder / part for part in parts)]
                    _remove_half_written(folders)
                else:
                    # It marks a folder of results.
                    (folder / LEDGER).touch()
                    _remove_half_written([own])
            except OSError as error:
                raise _make_write_error(path, error) from error
            if shard is None:
                entries, damaged = read_ledgers(folder)
            else:
                entries, damaged = _read_own(folder, shard, renamed)
            yield Ledger(folder, path, handle, entries, damaged, folders)
    finally:
        os.close(handle)


def read_ledgers(folder: Path) -> tuple[Entries, int]:
    """Read the ledgers of a folder, its own and those of its shards, even while batches write.

    Returns:
        Scan → its latest entry in any ledger, in the order in which scans first came; and how many
        lines were passed over because they are damaged.

    Raises:
        OutputError: If a file cannot be read.
    """
    return _merge(list_ledger_folders(folder))


def _read_own(
    folder: Path, shard: Shard, renamed: Collection[str]
) -> tuple[Entries, int]:
    """Read what is known of the scans of a shard: a thousandth of it all, of a thousand shards."""

    def is_own(name: str) -> bool:
        return name in renamed or shard.holds(name)

    others = [other for other in list_shards(folder) if other != shard]
    if not renamed:
        # Of as many shards, each keeps to its own scans.
        others = [other for other in others if other.count != shard.count]
    places = [folder / other.folder for other in others]
    return _merge([folder, *places, folder / shard.folder], is_own)


def _merge(
    places: Iterable[Path], is_wanted: Callable[[str], bool] | None = None
) -> tuple[Entries, int]:
    merged = Entries()
    damaged = 0
    for place in places:
        path = place / LEDGER
        # A shard makes its folder before its ledger.
        if not path.is_file():
            continue
        entries, bad = read_ledger(path, is_wanted)
        damaged += bad
        if not merged:
            merged = entries
            continue
        for name in entries:
            if name not in merged or _is_later(entries[name], merged[name]):
                merged.take(entries, name)
    return merged, damaged


def _is_later(entry: Entry, other: Entry) -> bool:
    """Tell whether an entry is newer than one of another ledger; of the same second, if it is good.

    All times are UTC in one form, so that their texts have their order.
    """
    if entry.finished == other.finished:
        return entry.is_good and not other.is_good
    return entry.finished > other.finished


def read_ledger(
    path: Path, is_wanted: Callable[[str], bool] | None = None
) -> tuple[Entries, int]:
    """Read a ledger, even while a batch writes it.

    Args:
        path: The file.
        is_wanted: Tells of which scans to read the entries; of all unless given.

    Returns:
        Scan → its latest entry, in the order in which scans first came; and how many lines were
        passed over because they are damaged. A last line without its end is not counted.

    Raises:
        OutputError: If the file cannot be read.
    """
    entries = Entries()
    damaged = 0
    for line in _read_lines(path):
        if is_wanted is not None and _is_of_other(line, is_wanted):
            continue
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            damaged += 1
        else:
            entries.add(entry, line.rstrip())
    return entries, damaged


def _read_lines(path: Path) -> Iterator[bytes]:
    """Give the lines that are whole and not empty.

    Raises:
        OutputError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and line != b"\n":
                    yield line
    except OSError as error:
        raise OutputError(
            "the ledger cannot be read", source=path, detail=error.strerror
        ) from error


def _is_of_other(line: bytes, is_wanted: Callable[[str], bool]) -> bool:
    """Tell from the begin of a line whether it is of a scan that is not wanted."""
    match = _NAME.match(line)
    if match is None:
        return False
    return not is_wanted(match[1].decode(errors="replace"))


def read_review_reasons(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return result file → why someone should look at it first, of the results in a folder.

    Returns:
        Those flagged for review; nothing where the folder has no ledger that can be read.
    """
    try:
        entries, _ = read_ledgers(folder)
    except OutputError:
        return {}
    reasons: dict[str, tuple[str, ...]] = {}
    for entry in entries.values():
        if entry.needs_review:
            reasons |= dict.fromkeys(entry.files, entry.review_reasons)
    return reasons


def _make_write_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "the ledger cannot be written", source=path, detail=error.strerror
    )


def _remove_half_written(folders: Sequence[Path]) -> None:
    for folder in folders:
        for file in folder.glob(_HALF_WRITTEN):
            file.unlink()


def _lock(folder: Path, patience: float) -> contextlib.ExitStack:
    try:
        return lock_folder(folder, patience=patience)
    except LockedError as error:
        raise BusyError(
            "another process is segmenting into this folder; wait for it, stop it, or give "
            "another folder",
            source=folder,
        ) from error
    except OSError as error:
        raise OutputError(
            "this folder cannot be locked against other processes; give one on another disk",
            source=folder,
            detail=error.strerror,
        ) from error


def _cut_torn_line(handle: int) -> None:
    """Cut off what follows the last line's end."""
    size = os.fstat(handle).st_size
    end = _find_end_of_last_line(handle, size)
    if end < size:
        os.ftruncate(handle, end)
        sync_handle(handle)


def _find_end_of_last_line(handle: int, size: int) -> int:
    """Search backwards for the last line break; return where the next line would begin."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        block = read_at(handle, end - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
