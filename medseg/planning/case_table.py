"""Drafts a ``cases.csv``: the cases that were found, or every image with its label left open."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import list_files
from medseg.errors import DatasetError
from medseg.layouts.cases_csv import TABLE
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.mask_files import MaskFiles
from medseg.layouts.registry import AUTO, list_cases
from medseg.names import has_image_suffix

_FIELDS = ("patient", "fold")

_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DraftTable:
    """A table of cases.

    Attributes:
        text: The CSV.
        lines: How many cases it has.
        is_complete: Whether every case has its label.
    """

    text: str
    lines: int
    is_complete: bool


def draft_case_table(
    root: Path, folder: Path, selection: Selection
) -> DraftTable:
    """Draft the table of a data folder.

    Args:
        root: The data folder.
        folder: Where the table will lie: paths are relative to it.
        selection: Patterns of images and labels, if there are some.

    Raises:
        DatasetError: If it holds no image, or DICOM, which says itself what belongs together.
    """
    try:
        listing = list_cases(
            root,
            AUTO,
            selection,
        )
    except DatasetError:
        images = [
            file
            for file in list_files(root).files
            if has_image_suffix(file.name)
        ]
        if not images:
            raise
        rows: list[_Row] = [
            {"image": _relate(image, folder), "label": ""} for image in images
        ]
        return _write(rows, is_complete=False)
    if any(case.series for case in listing.cases):
        raise DatasetError(
            f"DICOM says itself which labels belong to which series; it needs no {TABLE}",
            source=root,
        )
    rows = [_make_row(case, folder) for case in listing.cases]
    rows += _list_faults(listing)
    return _write(rows, is_complete=not listing.faults)


def _make_row(
    case: ListedCase,
    folder: Path,
) -> _Row:
    row = {"name": case.name} if case.name else {}
    numbers = len(case.images) > 1
    for number, image in enumerate(case.images):
        column = f"image_{number}" if numbers else "image"
        row[column] = _relate(image, folder)
    source = case.label_source
    if isinstance(source, MaskFiles):
        for file, name in source.files:
            row[f"label_{name}"] = _relate(file, folder)
    else:
        row["label"] = _relate(case.label, folder)
    for field in _FIELDS:
        if field in case.fields:
            row[field] = str(case.fields[field])
    return row


def _list_faults(listing: CaseListing) -> list[_Row]:
    """Return a line for each case that something is missing of; it is to be filled in."""
    wheres = sorted({fault.where for fault in listing.faults})
    return [{"name": where} for where in wheres]


def _relate(
    file: Path,
    folder: Path,
) -> str:
    path = os.path.relpath(file.resolve(), folder.resolve())
    return Path(path).as_posix()


def _write(
    rows: Sequence[_Row],
    *,
    is_complete: bool,
) -> DraftTable:
    columns = _list_columns(rows)
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        columns,
        restval="",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)
    return DraftTable(
        text.getvalue(),
        len(rows),
        is_complete,
    )


def _list_columns(rows: Iterable[_Row]) -> list[str]:
    """Return every column, fields last."""
    columns: dict[str, None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
    fields = [column for column in columns if column in _FIELDS]
    return [column for column in columns if column not in _FIELDS] + fields
