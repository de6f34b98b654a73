"""The table of a batch: volumes and expected quality of each result, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from medseg._support.files import atomic_file
from medseg._support.long_tables import import_pyarrow
from medseg._support.tables import defuse_cell
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.report_rows import list_label_names
from medseg.labels import LabelSet

VOLUMES_PARQUET = "volumes.parquet"

_QUALITY_COLUMNS = ("expected_dice", "lower_bound", "review")
_SHOWN_COLUMNS = ("quality", "reasons")

_Cell = str | float | bool | None


def format_volumes_csv(entries: Collection[Entry], label_set: LabelSet) -> str:
    """Return the volumes and the quality of each segmented scan as CSV, sorted by name.

    Columns: ``scan``; ``<label>_ml``, volumes in millilitres; ``expected_dice``,
    ``lower_bound`` and ``review`` (1 or 0) of the whole; ``<label>_expected_dice``; ``quality``,
    what people are shown: where it is words, no number stands in the columns before; and
    ``reasons`` for a review. Where a bundle has regions, these take the place of labels. Cells
    are empty where a value is unknown.
    """
    names = list_label_names(filter(_is_good, entries), label_set)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(defuse_cell, _list_columns(names)))
    for row in _list_rows(entries, names):
        table.writerow(map(_format_cell, row))
    return text.getvalue()


def write_volumes_parquet(
    path: Path, entries: Collection[Entry], label_set: LabelSet
) -> None:
    """Write the same table as Parquet: numbers are doubles, ``review`` is a boolean.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        OutputError: If it cannot be written.
    """
    pyarrow = import_pyarrow()
    names = list_label_names(filter(_is_good, entries), label_set)
    columns = _list_columns(names)
    texts = {"scan", *_SHOWN_COLUMNS}
    fields = []
    for column in columns:
        kind = pyarrow.string() if column in texts else pyarrow.float64()
        if column == "review":
            kind = pyarrow.bool_()
        fields.append(pyarrow.field(column, kind))
    cells_by_column = zip(*_list_rows(entries, names), strict=True)
    cells = list(cells_by_column) or [()] * len(columns)
    arrays = [
        pyarrow.array(column, field.type)
        for column, field in zip(cells, fields, strict=True)
    ]
    table = pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields))
    with atomic_file(path) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _list_columns(names: Sequence[str]) -> list[str]:
    volumes = [f"{name}_ml" for name in names]
    dice = [f"{name}_expected_dice" for name in names]
    return ["scan", *volumes, *_QUALITY_COLUMNS, *dice, *_SHOWN_COLUMNS]


def _list_rows(
    entries: Iterable[Entry], names: Sequence[str]
) -> list[list[_Cell]]:
    """Return a row for each result, sorted by name."""
    rows: list[list[_Cell]] = []
    for entry in filter(_is_good, entries):
        volumes = [entry.volumes_ml.get(name) for name in names]
        rows.append([entry.scan, *volumes, *_describe(entry.quality, names)])
    rows.sort(key=lambda row: str(row[0]).casefold())
    return rows


def _is_good(entry: Entry) -> bool:
    return entry.is_good


def _describe(
    quality: QualityEntry | None, names: Sequence[str]
) -> Iterator[_Cell]:
    """Give the cells of a result's quality, empty where it was not estimated."""
    if quality is None:
        count = len(_QUALITY_COLUMNS) + len(names) + len(_SHOWN_COLUMNS)
        yield from [None] * count
        return
    shown = quality.to_quality().shown
    yield shown.expected
    yield shown.lower
    yield quality.review
    for name in names:
        yield shown.labels.get(name)
    yield shown.text
    yield "; ".join(shown.reasons)


def _format_cell(cell: _Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    return defuse_cell(cell) if isinstance(cell, str) else f"{cell:.4f}"
