"""A private table of what results were made from: paths and UIDs, which may name patients.

Results, ledger and report name nobody, and so a hospital needs one file that leads back. It is
written on request alone, outside the folder of results, for its owner's eyes.
"""

from __future__ import annotations

import csv
import heapq
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg._support.addresses import refuse_address
from medseg._support.files import atomic_file, is_there
from medseg._support.folders import resolve_path
from medseg._support.long_sort import sort_long
from medseg._support.platform.locks import LockedError, hold_lock
from medseg._support.tables import FORMULA_SIGNS, defuse_cell
from medseg.datasets.cases import Scan
from medseg.errors import OutputError
from medseg.io.dicom.headers import read_header
from medseg.names import has_image_suffix

COLUMNS = (
    "results",
    "name",
    "channel",
    "path",
    "StudyInstanceUID",
    "SeriesInstanceUID",
)
"""Folder of results, name there, number of the channel, and what it was made from."""

_OWNER_ALONE = 0o600

_Row = tuple[str, ...]
"""The cells of ``COLUMNS``; the first three tell rows apart."""


@dataclass(frozen=True, slots=True)
class SourcesTable:
    """The table, and the folder of results whose scans are entered.

    Attributes:
        path: Where it lies.
        out: The folder of results.
    """

    path: Path
    out: Path

    def check(self) -> None:
        """Refuse a place where others would see it, or where something else lies.

        Raises:
            OutputError: If it would lie among the results, below a file or in an object store,
                or replace another file.
        """
        refuse_address(self.path)
        if resolve_path(self.path).is_relative_to(resolve_path(self.out)):
            raise OutputError(
                "the table of sources may name patients, and results are made to be passed on; "
                "give a file outside of the folder of results",
                source=self.path,
            )
        for folder in self.path.absolute().parents:
            if is_there(folder) and not folder.is_dir():
                raise OutputError(
                    "the table of sources would lie below a file; give a file in a folder",
                    source=self.path,
                )
        for _ in self._read():
            pass

    def enter(self, scans: Iterable[Scan]) -> None:
        """Enter scans; rows of others stay.

        Raises:
            OutputError: If it cannot be written.
        """
        entered = sort_long(self._make_rows(scans), key=_get_key)
        try:
            with hold_lock(self.path):
                self._merge(entered)
        except (LockedError, OSError) as error:
            raise OutputError(
                "the table of sources cannot be locked against other processes; give a file on "
                "another disk, or wait for the other process",
                source=self.path,
            ) from error

    def _merge(self, entered: Iterable[_Row]) -> None:
        # People may have put the rows in another order.
        former = sort_long(self._read(), key=_get_key)
        before = ((row, False) for row in former)
        now = ((row, True) for row in entered)
        rows = heapq.merge(before, now, key=_get_key_of_either)
        with (
            atomic_file(self.path, mode=_OWNER_ALONE) as path,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            for _, of_scan in itertools.groupby(rows, _get_scan):
                for row in _choose_rows(of_scan):
                    table.writerow(map(defuse_cell, row))

    def _make_rows(self, scans: Iterable[Scan]) -> Iterator[_Row]:
        folder = str(self.out.absolute())
        for scan in scans:
            for number, part in enumerate(scan.parts):
                key = (folder, scan.name, str(number))
                cells = (*key, _find_path(part), *_read_uids(part[0]))
                # As they will be read again, so that a scan is told to be the same.
                yield tuple(map(_make_writable, cells))

    def _read(self) -> Iterator[_Row]:
        """Give the rows that are there, however many.

        Raises:
            OutputError: If the file is something else, or cannot be read.
        """
        if not os.path.lexists(self.path):
            return
        if not self.path.is_file():
            raise self._make_refusal()
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                lines = csv.reader(file)
                if tuple(next(lines, ())) != COLUMNS:
                    raise self._make_refusal()
                for cells in lines:
                    if len(cells) != len(COLUMNS):
                        raise self._make_refusal()
                    yield tuple(map(_restore, cells))
        except (OSError, ValueError, csv.Error) as error:
            raise self._make_refusal() from error

    def _make_refusal(self) -> OutputError:
        return OutputError(
            "this file is no table of sources, or is damaged, and is not replaced; give another "
            "one",
            source=self.path,
        )


def _get_key(row: _Row) -> _Row:
    return row[:3]


def _get_key_of_either(entry: tuple[_Row, bool]) -> _Row:
    return _get_key(entry[0])


def _get_scan(entry: tuple[_Row, bool]) -> _Row:
    return entry[0][:2]


def _choose_rows(of_scan: Iterable[tuple[_Row, bool]]) -> Iterable[_Row]:
    """Return the rows of a scan: those entered now, as it may have had more channels before."""
    former: dict[_Row, _Row] = {}
    entered: dict[_Row, _Row] = {}
    for row, is_new in of_scan:
        rows = entered if is_new else former
        rows[_get_key(row)] = row
    return (entered or former).values()


def _read_uids(file: Path) -> tuple[str, str]:
    if has_image_suffix(file.name) or not file.is_file():
        return "", ""
    header = read_header(file)
    return ("", "") if header is None else (header.study, header.series)


def _find_path(part: tuple[Path, ...]) -> str:
    """Return the file of a part, or the folder that all its files lie in."""
    files = [str(file.absolute()) for file in part]
    return files[0] if len(files) == 1 else os.path.commonpath(files)


def _make_writable(cell: str) -> str:
    """Return a cell that is text, and one line: names of files may hold bytes that are no text."""
    text = cell.encode(errors="backslashreplace").decode()
    # Some versions of Python write this sign without quotes, and then refuse to read it.
    return text.replace("\r", "\\r")


def _restore(cell: str) -> str:
    is_defused = cell[:1] == "'" and cell[1:].startswith(FORMULA_SIGNS)
    return cell[1:] if is_defused else cell
