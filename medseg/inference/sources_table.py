"""A private table of what results were made from: paths and UIDs, which may name patients.

Results, ledger and report name nobody, and so a hospital needs one file that leads back. It is
written on request alone, outside the folder of results, for its owner's eyes.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg._support.files import is_there, write_atomically
from medseg._support.folders import resolve_path
from medseg._support.platform.locks import LockedError, hold_lock
from medseg._support.tables import FORMULA_SIGNS, defuse_cell, read_text
from medseg.datasets.cases import Scan
from medseg.errors import DatasetError, OutputError
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

_Key = tuple[str, str, str]
_Rows = dict[_Key, tuple[str, ...]]


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
            OutputError: If it would lie among the results or below a file, or replace another
                file.
        """
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
        self._read()

    def enter(self, scans: Iterable[Scan]) -> None:
        """Enter scans; rows of others stay.

        Raises:
            OutputError: If it cannot be written.
        """
        entered: _Rows = {}
        for scan in scans:
            entered.update(self._make_rows(scan))
        try:
            with hold_lock(self.path):
                self._merge(entered)
        except (LockedError, OSError) as error:
            raise OutputError(
                "the table of sources cannot be locked against other processes; give a file on "
                "another disk, or wait for the other process",
                source=self.path,
            ) from error

    def _merge(self, entered: _Rows) -> None:
        # A scan may have had more channels before.
        results = {key[:2] for key in entered}
        former = self._read()
        others = {key: former[key] for key in former if key[:2] not in results}
        rows = others | entered
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for key in sorted(rows):
            table.writerow(_write_cell(cell) for cell in (*key, *rows[key]))
        # Names of files may hold bytes that are no text.
        content = text.getvalue().encode(errors="backslashreplace")
        write_atomically(self.path, content, mode=_OWNER_ALONE)

    def _make_rows(self, scan: Scan) -> Iterator[tuple[_Key, tuple[str, ...]]]:
        folder = str(self.out.absolute())
        for number, part in enumerate(scan.parts):
            key = (folder, scan.name, str(number))
            study, series = _read_uids(part[0])
            yield key, (_find_path(part), study, series)

    def _read(self) -> _Rows:
        """Return the rows that are there.

        Raises:
            OutputError: If the file is something else, or cannot be read.
        """
        if not os.path.lexists(self.path):
            return {}
        try:
            text = read_text(self.path)
            heading, *lines = csv.reader(io.StringIO(text, newline=""))
        except (DatasetError, ValueError, csv.Error) as error:
            raise self._make_refusal() from error
        if tuple(heading) != COLUMNS:
            raise self._make_refusal()
        rows: _Rows = {}
        for cells in lines:
            if len(cells) != len(COLUMNS):
                raise self._make_refusal()
            folder, name, channel, *rest = map(_restore, cells)
            rows[folder, name, channel] = tuple(rest)
        return rows

    def _make_refusal(self) -> OutputError:
        return OutputError(
            "this file is no table of sources, or is damaged, and is not replaced; give another "
            "one",
            source=self.path,
        )


def _read_uids(file: Path) -> tuple[str, str]:
    if has_image_suffix(file.name) or not file.is_file():
        return "", ""
    header = read_header(file)
    return ("", "") if header is None else (header.study, header.series)


def _find_path(part: tuple[Path, ...]) -> str:
    """Return the file of a part, or the folder that all its files lie in."""
    files = [str(file.absolute()) for file in part]
    return files[0] if len(files) == 1 else os.path.commonpath(files)


def _write_cell(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, and none for two lines."""
    # Some versions of Python write this sign without quotes, and then refuse to read it.
    return defuse_cell(cell.replace("\r", "\\r"))


def _restore(cell: str) -> str:
    is_defused = cell[:1] == "'" and cell[1:].startswith(FORMULA_SIGNS)
    return cell[1:] if is_defused else cell
