"""``ScanList``: the scans that can be labelled, as the store lists them for every process."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from medseg._support.platform.files import rename, sync
from medseg.datasets.cases import Scan
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.label_server.store import Store
from medseg.names import fold_name, normalize_name

_NO_MARK = 0
"""Of a store whose list was not written by this release, or not at all."""
_HIGHEST_MARK = 2**31 - 1


class ScanList:
    """The list of scans.

    Args:
        store: Where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark = _NO_MARK
        self._scans: dict[str, Scan] = {}

    def list_names(self) -> list[str]:
        """Return the name of every scan, sorted.

        Raises:
            OutputError: If there is none, which a server does not start with.
        """
        names = list(self._read())
        if not names:
            raise OutputError(
                "the list of cases is empty; start medseg label again"
            )
        return names

    def get(self, name: str) -> Scan:
        """Return a scan.

        Raises:
            DatasetError: If there is none of this name.
        """
        scan = self._read().get(normalize_name(name))
        if scan is None:
            raise DatasetError("there is no such case", detail=name[:100])
        return scan

    def list_all(self) -> list[Scan]:
        """Return every scan."""
        return list(self._read().values())

    def _read(self) -> dict[str, Scan]:
        """Return the scans by name, sorted; they are read again when the list has changed."""
        with self._store.read() as connection:
            connection.execute("BEGIN")
            mark = _read_mark(connection)
            if mark != _NO_MARK and mark == self._mark:
                return self._scans
            rows = connection.execute(
                "SELECT name, parts, volume, warnings FROM scans"
            ).fetchall()
        parsed = [_parse_scan(row) for row in sorted(rows)]
        scans = {scan.name: scan for scan in parsed}
        self._scans = scans
        self._mark = mark
        return scans

    def read_stamps(self) -> dict[str, str]:
        """Return name → sizes and times of the files as they were checked."""
        with self._store.read() as connection:
            return dict(connection.execute("SELECT name, stamp FROM scans"))

    def set_found(self, scans: Sequence[Scan]) -> None:
        """List these scans, and no others."""
        rows = [_make_row(scan) for scan in scans]
        with self._store.write() as connection:
            connection.execute("DELETE FROM scans")
            connection.executemany(
                "INSERT INTO scans VALUES (?, ?, ?, ?, ?)", rows
            )
            _set_mark(connection)

    def add(self, scan: Scan, part: Path) -> None:
        """List another scan, and give its file its name, in one step.

        Args:
            scan: The scan, of one file.
            part: That file under a temporary name in the same folder.

        Raises:
            MedsegError: If there is a scan of this name.
        """
        (file,) = scan.files
        with self._store.write() as connection:
            taken = _read_names(connection)
            if fold_name(scan.name) in {fold_name(name) for name in taken}:
                raise MedsegError(
                    "there is a case of this name already; give another",
                    detail=scan.name,
                )
            rename(part, file)
            sync(file.parent)
            connection.execute(
                "INSERT INTO scans VALUES (?, ?, ?, ?, ?)", _make_row(scan)
            )
            _set_mark(connection)


def make_stamp(scan: Scan) -> str:
    """Return sizes and times of files, which tell whether a scan is the one that was checked."""
    stats = [file.stat() for file in scan.files]
    total = sum(stat.st_size for stat in stats)
    newest = max(stat.st_mtime_ns for stat in stats)
    return f"{len(stats)} {total} {newest}"


def _read_mark(connection: sqlite3.Connection) -> int:
    """Return what is another number after each change of the list."""
    # Asked of SQLite: whoever opens and closes its file beside it ends this process's locks on it.
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    return int(mark)


def _set_mark(connection: sqlite3.Connection) -> None:
    mark = 1 + secrets.randbelow(_HIGHEST_MARK)
    connection.execute(f"PRAGMA application_id = {mark}")


def _read_names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM scans")]


def _make_row(scan: Scan) -> tuple[str, ...]:
    parts = [_list_paths(part) for part in scan.parts]
    return (
        scan.name,
        json.dumps(parts, ensure_ascii=False),
        scan.volume,
        make_stamp(scan),
        json.dumps(scan.warnings, ensure_ascii=False),
    )


def _list_paths(files: Sequence[Path]) -> list[str]:
    return [str(file.absolute()) for file in files]


def _parse_scan(row: Sequence[str]) -> Scan:
    name, parts_text, volume, warnings = row
    parts = [tuple(map(Path, files)) for files in json.loads(parts_text)]
    return Scan(name, tuple(parts), volume, tuple(json.loads(warnings)))
