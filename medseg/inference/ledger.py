"""The ledger of a batch: one JSON line per scan worked on, appended and never changed.

A line is written in one piece and is on disk before the next scan's is. What a killed process
left half-written is cut off when the ledger is opened again. A lock keeps two processes from
working in one folder, and is free as soon as its process is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from medseg._support.files import PART
from medseg._support.platform.files import open_binary, read_at, sync_handle
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.errors import BusyError, OutputError
from medseg.inference.ledger_entry import Entry
from medseg.inference.shards import (
    PATIENCE_SECONDS,
    SHORT_PATIENCE_SECONDS,
    Shard,
    list_ledger_folders,
    refuse_others,
)
from medseg.names import LEDGER

_HALF_WRITTEN = f"{PART}*"

_BLOCK_BYTES = 1 << 16


class Ledger:
    """An open ledger. Only the process that opened it can write.

    Args:
        folder: The folder of results.
        path: The file.
        handle: The same, open.
        entries: Scan → its latest entry so far.
        damaged: How many lines cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        path: Path,
        handle: int,
        entries: Mapping[str, Entry],
        damaged: int,
    ) -> None:
        self.folder = folder
        self.damaged = damaged
        self.path = path
        self._handle = handle
        self._entries = dict(entries)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Scan → its latest entry, in the order in which scans first came."""
        return self._entries

    def enter(self, entry: Entry) -> None:
        """Add an entry; it is on disk when this returns.

        Raises:
            OutputError: If it cannot be written; the ledger is as it was before.
        """
        line = entry.model_dump_json().encode() + b"\n"
        size = os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(0, "the disk is full")
            sync_handle(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, size)
            raise _make_write_error(self.path, error) from error
        self._entries[entry.scan] = entry


@contextlib.contextmanager
def open_ledger(
    folder: Path, parts: Sequence[str] = (), shard: Shard | None = None
) -> Iterator[Ledger]:
    """Open the ledger of a folder for this process alone, and clear what a killed one left.

    What any ledger of the folder knows is known; entries are added to the own one.

    Args:
        folder: The folder of results; made if needed.
        parts: Folders in it that hold results, too.
        shard: Whose ledger to open. What killed shards left half-written is cleared by who works
            on all scans: others may still be writing.

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
            try:
                _cut_torn_line(handle)
                if shard is None:
                    folders = [folder, *(folder / part for part in parts)]
                    _remove_half_written(folders)
                else:
                    # It marks a folder of results.
                    (folder / LEDGER).touch()
            except OSError as error:
                raise _make_write_error(path, error) from error
            entries, damaged = read_ledgers(folder)
            yield Ledger(folder, path, handle, entries, damaged)
    finally:
        os.close(handle)


def read_ledgers(folder: Path) -> tuple[dict[str, Entry], int]:
    """Read the ledgers of a folder, its own and those of its shards, even while batches write.

    Returns:
        Scan → its latest entry in any ledger, in the order in which scans first came; and how many
        lines were passed over because they are damaged.

    Raises:
        OutputError: If a file cannot be read.
    """
    merged: dict[str, Entry] = {}
    damaged = 0
    for place in list_ledger_folders(folder):
        path = place / LEDGER
        # A shard makes its folder before its ledger.
        entries, bad = read_ledger(path) if path.is_file() else ({}, 0)
        damaged += bad
        for name, entry in entries.items():
            known = merged.get(name)
            if known is None or _is_later(entry, known):
                merged[name] = entry
    return merged, damaged


def _is_later(entry: Entry, other: Entry) -> bool:
    """Tell whether an entry is newer than one of another ledger; of the same second, if it is good.

    All times are UTC in one form, so that their texts have their order.
    """
    if entry.finished == other.finished:
        return entry.is_good and not other.is_good
    return entry.finished > other.finished


def read_ledger(path: Path) -> tuple[dict[str, Entry], int]:
    """Read a ledger, even while a batch writes it.

    Returns:
        Scan → its latest entry, in the order in which scans first came; and how many lines were
        passed over because they are damaged. A last line without its end is not counted.

    Raises:
        OutputError: If the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise OutputError(
            "the ledger cannot be read", source=path, detail=error.strerror
        ) from error
    entries: dict[str, Entry] = {}
    damaged = 0
    for line in filter(None, lines):
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            damaged += 1
        else:
            entries[entry.scan] = entry
    return entries, damaged


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
