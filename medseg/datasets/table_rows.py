"""Rows of a table of scans, and which of them a shard need not look at.

A shard of very many scans would spend its time with the files of others. Where the names of all
results are certain from the table alone, it passes over the rows of others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.clashes import HASH_BITS, find_doubled
from medseg._support.long_tables import LongTable
from medseg.datasets.channel_endings import strip_channel
from medseg.datasets.scan_candidates import Candidate, flatten
from medseg.errors import ScanError
from medseg.names import (
    fold_name,
    has_image_suffix,
    make_former_name,
    make_safe_name,
    split_channel,
    split_suffix,
)

NameRule = Callable[[str], bool]
"""Tells whether a scan of this name is wanted."""


@dataclass(frozen=True, slots=True)
class ScanRow:
    """A row of a table of scans.

    Attributes:
        where: What it is called to the person who wrote the table: its name, or its number.
        name: What it shall be called; empty if the table does not say.
        files: Those of its channels, or the one that holds all.
    """

    where: str
    name: str
    files: tuple[str, ...]

    @property
    def key(self) -> str:
        """What rows share that list the same files: ``./a`` is ``a``."""
        plain = (str(Path(file)) if file else "" for file in self.files)
        return "\n".join(plain)

    @property
    def fault_name(self) -> str:
        """What results call it if it cannot be segmented."""
        stem, _ = split_suffix(self.where)
        return make_safe_name(flatten(stem))


def list_rows(table: LongTable, columns: Sequence[str]) -> Iterator[ScanRow]:
    """Give the rows of a table, reading it from the disk.

    Args:
        table: The table.
        columns: Those of the channels, or the one of the scan.

    Raises:
        DatasetError: If a row cannot be read.
    """
    for number, cells in table.read_rows((*columns, "name")):
        files = tuple(cells[column] for column in columns)
        name = cells.get("name", "")
        yield ScanRow(name or f"{table.noun} {number}", name, files)


def name_case(first: str, count: int, channels: Sequence[str]) -> str:
    """Name a scan that has no name in the table: after its first file, without the channel.

    Args:
        first: What its first file would be called.
        count: How many files it has.
        channels: The names of the bundle's channels.
    """
    base, number = split_channel(first)
    if count < 2:
        return first
    if number == 0:
        return base
    return strip_channel(first, channels)


def name_file(path: Path, text: str) -> str:
    """Return what a file is called that a table lists: by its path there, if it lies below.

    Args:
        path: The file.
        text: Its path as the table has it.
    """
    listed = Path(text)
    leads_elsewhere = listed.is_absolute() or ".." in listed.parts
    return path.name if leads_elsewhere else listed.as_posix()


@dataclass(frozen=True, slots=True)
class RowRule:
    """Tells which rows of a table need a look, where the names of all are certain.

    Attributes:
        channels: The names of the bundle's channels.
        is_wanted: Tells which names are wanted.
    """

    channels: Sequence[str]
    is_wanted: NameRule

    def may_be_wanted(self, row: ScanRow) -> bool:
        """Tell whether a row may be that of a wanted scan."""
        name = _foresee_name(row, self.channels)
        return any(map(self.is_wanted, _list_names(row, name)))


def find_rule(
    table: LongTable,
    columns: Sequence[str],
    channels: Sequence[str],
    is_wanted: NameRule,
) -> RowRule | None:
    """Read the names of a table and return the rule of its rows; 10⁶ of them take 40 MB.

    Returns:
        The rule; ``None`` where names depend on files or on each other, so that each row needs
        a look.

    Raises:
        DatasetError: If the table cannot be read.
    """
    hashes = _Hashes(array("Q"), array("Q"))
    for row in list_rows(table, columns):
        name = _foresee_name(row, channels)
        if not name:
            return None
        hashes.add(row, name)
    return RowRule(channels, is_wanted) if hashes.are_distinct() else None


def check_foreseen(row: ScanRow, candidate: Candidate) -> None:
    """Make sure that a scan is called what it was taken to be called.

    Raises:
        ScanError: If it is not, as a folder is that has the name of a file.
    """
    if candidate.is_hashed:
        raise ScanError(
            "is DICOM with the name of another image; for shards, give it a name in the column "
            "'name'",
            source=row.files[0],
        )


def _foresee_name(row: ScanRow, channels: Sequence[str]) -> str:
    """Return what a scan will be called, before its name is made safe; empty if unknown.

    DICOM is called by its headers, and names beyond ASCII may have another form on the disk.
    """
    if row.name:
        return row.name
    first = row.files[0]
    if not first:
        return row.fault_name
    is_plain = first.isascii() and "\\" not in first
    if not is_plain or not has_image_suffix(first):
        return ""
    stem, _ = split_suffix(name_file(Path(first), first))
    return name_case(flatten(stem), len(row.files), channels)


def _list_names(row: ScanRow, name: str) -> set[str]:
    """Return what a row's result may be called: now, in release 0.1.0, and if it fails."""
    return {make_safe_name(name), make_former_name(name), row.fault_name}


@dataclass(slots=True)
class _Hashes:
    """Hashes of all names and files of a table: much smaller than these."""

    names: array[int]
    files: array[int]

    def add(self, row: ScanRow, name: str) -> None:
        """Add those of a row."""
        folded = {fold_name(each) for each in _list_names(row, name)}
        for each in folded:
            self.names.append(hash(each) & HASH_BITS)
        self.files.append(hash(row.key) & HASH_BITS)

    def are_distinct(self) -> bool:
        """Tell whether no name and no file comes twice."""
        return not find_doubled(self.names) and not find_doubled(self.files)
