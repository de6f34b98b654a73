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
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from medseg._support.files import PART
from medseg._support.platform.files import open_binary, read_at, sync_handle
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.errors import BusyError, OutputError
from medseg.names import LEDGER, is_safe_name
from medseg.quality.estimates import LabelQuality, Quality


def _check_name(name: str) -> str:
    """Return a plain file name as it is.

    Raises:
        ValueError: If it is none.
    """
    if not is_safe_name(name):
        raise ValueError("not a plain file name")
    return name


PlainName = Annotated[str, AfterValidator(_check_name)]
"""A file's name that leads nowhere else."""

State = Literal["done", "failed", "error", "skipped"]

_HALF_WRITTEN = f"{PART}*"

_BLOCK_BYTES = 1 << 16

_FAILED, _GOOD, _NOT_ASKED_FOR = range(3)
"""How scans are ordered for review."""

_NOTHING_FOUND = -1.0
_UNKNOWN_DICE = 2.0
"""Where results without an expected Dice stand when sorted: first, and (older ones) last."""


class QualityEntry(BaseModel):
    """How good a result probably is, estimated without knowing the truth."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    expected_dice: float | None
    """Mean over the structures that were found; `null` if none was."""
    lower_bound: float | None
    """The true Dice is at or above it in the share of scans the bundle states; `null` if the
    bundle is not calibrated."""
    labels: dict[str, tuple[float, float | None]] = {}
    """Label name → expected Dice and its bound, of the structures found."""
    is_calibrated: bool
    """Whether the numbers were learned from held-out cases."""
    review: bool
    """Whether someone should look at this result first."""
    reasons: tuple[str, ...] = ()
    """Why, in plain words."""
    is_made_up: bool = False
    """Whether the bundle was trained on made-up data."""
    is_range_known: bool = False
    """Whether scan and result were compared with what the bundle was validated on."""

    @classmethod
    def from_quality(cls, quality: Quality) -> QualityEntry:
        """Make the ledger's record of an estimated quality."""
        labels = {}
        for name, estimate in quality.labels.items():
            labels[name] = (estimate.expected, estimate.lower)
        return cls(
            expected_dice=quality.expected,
            lower_bound=quality.lower,
            labels=labels,
            is_calibrated=quality.is_calibrated,
            review=quality.review,
            reasons=quality.reasons,
            is_made_up=quality.is_made_up,
            is_range_known=quality.is_range_known,
        )

    def to_quality(self) -> Quality:
        """Return the quality that this is the record of."""
        labels = {}
        for name, (expected, lower) in self.labels.items():
            labels[name] = LabelQuality(expected, lower)
        return Quality(
            expected=self.expected_dice,
            lower=self.lower_bound,
            labels=labels,
            is_calibrated=self.is_calibrated,
            review=self.review,
            reasons=self.reasons,
            is_made_up=self.is_made_up,
            is_range_known=self.is_range_known,
        )


class Entry(BaseModel):
    """What became of one scan. It holds no path, no patient's name, and no UID."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    scan: PlainName
    """Its name in this batch."""
    state: State
    """`done`; `failed`: something is wrong with the scan; `error`: a bug in medseg; `skipped`:
    nothing was done, because its result is there already and would be the same (returned to the
    caller, not written), or because it was not asked for."""
    reason: str = ""
    """Why it was not asked for; empty unless that is why it was skipped."""
    files: dict[PlainName, str] = {}
    """Result file → its SHA-256."""
    missing: dict[str, str] = {}
    """Format that was asked for and that the scan has no file of → why."""
    content: str = ""
    """Hash of the scan's files."""
    key: str = ""
    """Hash of the scan's content, the bundle and the options: a result's with the same key would
    be the same. Empty where a file is missing that may well be written next time."""
    volumes_ml: dict[str, float] = {}
    """Label name → millilitres."""
    quality: QualityEntry | None = None
    """How good the result probably is; absent in failed scans and in older ledgers."""
    shape: tuple[int, ...] = ()
    """Voxels along the scan's own axes."""
    spacing_mm: tuple[float, ...] = ()
    """Their sizes."""
    seconds: dict[str, float] = {}
    """Stage → time it took."""
    warnings: tuple[str, ...] = ()
    """What a person should know about the scan."""
    error: str = ""
    """What is wrong, what is allowed, what to do; empty if done."""
    bundle: str = ""
    """The bundle's name and version."""
    origin: Annotated[str, Field(exclude_if=lambda text: not text)] = ""
    """Where the bundle's weights come from, if other software trained them."""
    bundle_hash: str = ""
    """Of its `bundle.json` and weights."""
    medseg: str = ""
    """Version of medseg."""
    device: str = ""
    """Kind of device the network ran on."""
    arithmetic: str = ""
    """The backend that computed it, and its precision."""
    finished: str = ""
    """When, in UTC."""
    searched: str = ""
    """Hash of the path of the folder, file or table in which the scan was found."""

    @property
    def is_good(self) -> bool:
        """Whether there is a result."""
        return self.state in ("done", "skipped") and not self.reason

    @property
    def is_failed(self) -> bool:
        """Whether there should be a result and is none."""
        return self.state in ("failed", "error")

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that a person should know of a result: warnings, and formats without a file."""
        reasons = [
            f"there is no {name} of this scan: {why}"
            for name, why in self.missing.items()
        ]
        return (*self.warnings, *reasons)

    @property
    def is_incomplete(self) -> bool:
        """Whether there is a result, but not in all formats that were asked for."""
        return self.is_good and bool(self.missing)

    @property
    def needs_review(self) -> bool:
        """Whether there is a result that someone should look at first."""
        return self.is_good and self.quality is not None and self.quality.review

    @property
    def review_reasons(self) -> tuple[str, ...]:
        """Why someone should look at the result first."""
        if not self.needs_review or self.quality is None:
            return ()
        return self.quality.reasons


def get_review_order(entry: Entry) -> tuple[int, bool, float, str]:
    """Return the sort key of what to look at first.

    Failed scans come first, then results flagged for review, then all others, each from the worst
    to the best. What was not asked for comes last.
    """
    name = entry.scan.casefold()
    quality = entry.quality
    rank = _FAILED if entry.is_failed else _NOT_ASKED_FOR
    is_quiet = not entry.needs_review
    if not entry.is_good:
        return rank, is_quiet, _UNKNOWN_DICE, name
    if quality is None:
        return _GOOD, is_quiet, _UNKNOWN_DICE, name
    if quality.expected_dice is None:
        return _GOOD, is_quiet, _NOTHING_FOUND, name
    return _GOOD, is_quiet, quality.expected_dice, name


class Ledger:
    """An open ledger. Only the process that opened it can write.

    Args:
        folder: The folder of results.
        handle: The open file.
        entries: Scan → its latest entry so far.
        damaged: How many lines cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        handle: int,
        entries: Mapping[str, Entry],
        damaged: int,
    ) -> None:
        self.folder = folder
        self.damaged = damaged
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
            raise _make_write_error(self.folder / LEDGER, error) from error
        self._entries[entry.scan] = entry


@contextlib.contextmanager
def open_ledger(folder: Path, parts: Sequence[str] = ()) -> Iterator[Ledger]:
    """Open the ledger of a folder for this process alone, and clear what a killed one left.

    Args:
        folder: The folder of results; made if needed.
        parts: Folders in it that hold results, too.

    Raises:
        OutputError: If the folder cannot be written.
        BusyError: If another process works in it.
    """
    path = folder / LEDGER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_binary(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise _make_write_error(path, error) from error
    try:
        with _lock(folder):
            try:
                _cut_torn_line(handle)
                folders = [folder, *(folder / part for part in parts)]
                _remove_half_written(folders)
            except OSError as error:
                raise _make_write_error(path, error) from error
            entries, damaged = read_ledger(path)
            yield Ledger(folder, handle, entries, damaged)
    finally:
        os.close(handle)


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
        entries, _ = read_ledger(folder / LEDGER)
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


def _lock(folder: Path) -> contextlib.ExitStack:
    try:
        return lock_folder(folder)
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
