"""Scans that a CSV lists, a line for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg._support.files import refuse_special
from medseg._support.folders import find_listed
from medseg._support.tables import read_table
from medseg.datasets.scan_candidates import (
    Candidate,
    Search,
    make_series,
    make_single,
    reason_of,
)
from medseg.errors import Fault, MedsegError, ScanError
from medseg.io import find_series
from medseg.names import split_channel


def search_table(path: Path, search: Search) -> None:
    table = read_table(path)
    columns = table.image_columns(single=("scan", "image"))
    listed_before: set[tuple[str, ...]] = set()
    for line, cells in table.rows:
        files = tuple(cells[column] for column in columns)
        name = cells.get("name", "")
        where = name or f"line {line}"
        try:
            if files in listed_before:
                raise ScanError(
                    "is listed before; remove one of the two lines",
                    source=files[0],
                )
            listed_before.add(files)
            candidate = _make_listed(files, name, path.parent, search.channels)
            search.candidates.append(candidate)
        except MedsegError as error:
            fault = Fault.from_error(where, error)
            search.leave_out_line(fault)
        except OSError as error:
            fault = Fault(where, f"cannot be read: {reason_of(error)}")
            search.leave_out_line(fault)


def _make_listed(
    files: Sequence[str], name: str, folder: Path, channels: int
) -> Candidate:
    """Make a scan of one line of a table.

    Raises:
        ScanError: If it cannot be one; says why.
    """
    if not all(files):
        raise ScanError("names no file for one of its columns")
    if len(files) not in (1, channels):
        raise ScanError(
            f"lists {len(files)} files and the bundle has {channels} channels"
        )
    scans = [_make_part(folder, text) for text in files]
    parts = tuple(scan.parts[0] for scan in scans)
    origin = "\n".join([name, *files])
    if name:
        return Candidate(name, origin, parts)
    first = scans[0]
    own_name = first.name
    base, number = split_channel(own_name)
    if len(files) > 1 and number == 0:
        own_name = base
    return Candidate(own_name, origin, parts, is_hashed=first.is_hashed)


def _make_part(folder: Path, text: str) -> Candidate:
    file = find_listed(folder, text)
    if file.is_dir():
        return _make_only_series(file)
    refuse_special(file)
    if not file.is_file():
        raise ScanError("there is no such file or folder", source=text)
    path = Path(text)
    leads_elsewhere = path.is_absolute() or ".." in path.parts
    where = file.name if leads_elsewhere else path.as_posix()
    return make_single(file, where)


def _make_only_series(folder: Path) -> Candidate:
    series, _ = find_series(folder)
    if len(series) != 1:
        raise ScanError(
            f"holds {len(series)} DICOM series; a folder in a table must hold one",
            source=folder,
        )
    return make_series(series[0], folder)
