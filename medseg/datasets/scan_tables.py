"""Scans that a table lists, CSV or Parquet: a row for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

from medseg._support.clashes import find_clashes
from medseg._support.files import refuse_special
from medseg._support.folders import find_listed
from medseg._support.long_tables import LongTable, open_table
from medseg._support.tables import find_image_columns
from medseg.datasets.channel_ways import describe_missing
from medseg.datasets.scan_candidates import (
    Candidate,
    Search,
    make_series,
    make_single,
    reason_of,
)
from medseg.datasets.scan_folders import search_folder
from medseg.datasets.table_rows import (
    NameRule,
    ScanRow,
    check_foreseen,
    find_rule,
    list_rows,
    name_case,
    name_file,
)
from medseg.errors import DatasetError, Fault, MedsegError, ScanError
from medseg.io import find_series
from medseg.layouts.channel_names import find_channels

_SINGLE = ("scan", "image")
"""Columns that hold a scan in one file or folder."""


def search_table(
    path: Path, search: Search, is_wanted: NameRule | None = None
) -> None:
    """Make scans of the rows of a table.

    Args:
        path: The table, CSV or Parquet.
        search: Takes them.
        is_wanted: Tells which names are wanted. Rows of others may be passed over, without a look
            at their files, where every row's name is known.
    """
    table = open_table(path)
    columns = find_scan_columns(table, search.channel_names)
    rule = None
    if is_wanted is not None:
        rule = find_rule(table, columns, search.channel_names, is_wanted)
    doubles = _Doubles()
    if rule is None:
        doubles.find(table, columns)
    for row in list_rows(table, columns):
        if rule is not None and not rule.may_be_wanted(row):
            search.passed_over += 1
            continue
        try:
            doubles.refuse(row)
            candidate = _make_listed(row.files, row.name, path.parent, search)
            if rule is not None:
                check_foreseen(row, candidate)
            search.candidates.append(candidate)
        except MedsegError as error:
            fault = Fault.from_error(row.where, error)
            search.leave_out_line(fault)
        except OSError as error:
            fault = Fault(row.where, f"cannot be read: {reason_of(error)}")
            search.leave_out_line(fault)


class _Doubles:
    """Finds files that are listed twice; it holds no others."""

    def __init__(self) -> None:
        self._all: Set[str] = frozenset()
        self._met: set[str] = set()

    def find(self, table: LongTable, columns: Sequence[str]) -> None:
        """Look through a table."""

        def list_keys() -> Iterator[str]:
            for row in list_rows(table, columns):
                yield row.key

        self._all = find_clashes(list_keys)

    def refuse(self, row: ScanRow) -> None:
        """Refuse a row that is not the first of its files.

        Raises:
            ScanError: If it is not.
        """
        if row.key in self._met:
            raise ScanError(
                "is listed before; remove one of the two lines",
                source=row.files[0],
            )
        if row.key in self._all:
            self._met.add(row.key)


def find_scan_columns(
    table: LongTable, names: Sequence[str]
) -> tuple[str, ...]:
    """Return the column of each channel, or the one that holds all.

    Args:
        table: The table.
        names: What the bundle calls its channels.

    Raises:
        DatasetError: If there is none.
    """
    try:
        return find_image_columns(table.path, table.columns, _SINGLE)
    except DatasetError as error:
        if len(names) < 2:
            raise
        named = find_channels(names, table.columns)
        if named is not None:
            return named
        raise DatasetError(
            f"{error.message}; or, for the bundle's channels, the columns {', '.join(names)}",
            source=error.source,
            detail=error.detail,
        ) from error


def _make_listed(
    files: Sequence[str], name: str, folder: Path, search: Search
) -> Candidate:
    """Make a scan of one line of a table.

    Raises:
        ScanError: If it cannot be one; says why.
    """
    _check_files(files, search)
    origin = "\n".join([name, *files])
    found = _find_case(files, folder, search)
    if found is not None:
        return replace(found, name=name or found.name, origin=origin)
    scans = [_make_part(folder, text) for text in files]
    first = scans[0]
    own_name = name or first.name
    if not name and not first.is_hashed:
        own_name = name_case(first.name, len(files), search.channel_names)
    modalities: list[str] = []
    for scan in scans:
        modalities += scan.modalities
    return Candidate(
        own_name,
        origin,
        parts=tuple(scan.parts[0] for scan in scans),
        is_hashed=first.is_hashed and not name,
        modalities=tuple(modalities),
    )


def _check_files(files: Sequence[str], search: Search) -> None:
    """Refuse a line whose files are not those of every channel.

    Raises:
        ScanError: If some are missing; says which, where columns are channels.
    """
    if len(files) not in (1, search.channels):
        raise ScanError(
            f"lists {len(files)} files and the bundle has {search.channels} channels"
        )
    if all(files):
        return
    channels = search.channel_names
    if len(files) != len(channels) or len(files) < 2:
        raise ScanError("names no file for one of its columns")
    pairs = zip(channels, files, strict=True)
    found = [channel for channel, file in pairs if file]
    raise ScanError(describe_missing(channels, found))


def _find_case(
    files: Sequence[str], listed_in: Path, search: Search
) -> Candidate | None:
    """Return the scan whose channels lie in the folder that a line names, if it names one.

    Raises:
        ScanError: If the folder does not hold one scan.
    """
    folder = find_listed(listed_in, files[0])
    if len(search.specs) < 2 or len(files) > 1 or not folder.is_dir():
        return None
    inner = Search(search.channels, search.split_4d, search.specs)
    search_folder(folder, inner, _ignore_progress)
    if len(inner.candidates) == 1 and not inner.left_out:
        return inner.candidates[0]
    for entry in inner.left_out:
        raise ScanError(entry.reason, source=folder, detail=entry.detail)
    raise ScanError(
        f"holds {len(inner.candidates)} scans; a folder in a table must hold one",
        source=folder,
    )


def _ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


def _make_part(folder: Path, text: str) -> Candidate:
    file = find_listed(folder, text)
    if file.is_dir():
        return _make_only_series(file)
    refuse_special(file)
    if not file.is_file():
        raise ScanError("there is no such file or folder", source=text)
    return make_single(file, name_file(file, text))


def _make_only_series(folder: Path) -> Candidate:
    series, _ = find_series(folder)
    if len(series) != 1:
        raise ScanError(
            f"holds {len(series)} DICOM series; a folder in a table must hold one",
            source=folder,
        )
    return make_series(series[0], folder)
