"""The table of a batch: volumes and expected quality of each result, as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from medseg._support.files import atomic_file
from medseg._support.long_tables import import_pyarrow
from medseg._support.tables import defuse_cell
from medseg.inference.batch_overview import BatchOverview
from medseg.inference.ledger_entry import QualityEntry

VOLUMES_PARQUET = "volumes.parquet"

_QUALITY_COLUMNS = ("expected_dice", "lower_bound", "review")
_SHOWN_COLUMNS = ("quality", "reasons")

_GROUP_ROWS = 4096
"""Rows that Parquet keeps together, and that are in memory at once."""

_Cell = str | float | bool | None


def write_volumes_csv(path: Path, overview: BatchOverview) -> None:
    """Write the volumes and the quality of each segmented scan as CSV, sorted by name.

    Columns: ``scan``; ``<label>_ml``, volumes in millilitres; ``expected_dice``,
    ``lower_bound`` and ``review`` (1 or 0) of the whole; ``<label>_expected_dice``; ``quality``,
    what people are shown: where it is words, no number stands in the columns before; and
    ``reasons`` for a review. Where a bundle has regions, these take the place of labels. Cells
    are empty where a value is unknown.

    Raises:
        OutputError: If it cannot be written.
    """
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(map(defuse_cell, _list_columns(overview.names)))
        for row in _make_rows(overview):
            table.writerow(map(_format_cell, row))


def write_volumes_parquet(path: Path, overview: BatchOverview) -> None:
    """Write the same table as Parquet: numbers are doubles, ``review`` is a boolean.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        OutputError: If it cannot be written.
    """
    pyarrow = import_pyarrow()
    texts = {"scan", *_SHOWN_COLUMNS}
    fields = []
    for column in _list_columns(overview.names):
        kind = pyarrow.string() if column in texts else pyarrow.float64()
        if column == "review":
            kind = pyarrow.bool_()
        fields.append(pyarrow.field(column, kind))
    schema = pyarrow.schema(fields)
    rows = _make_rows(overview)
    with (
        atomic_file(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema) as writer,
    ):
        while group := list(islice(rows, _GROUP_ROWS)):
            arrays = [
                pyarrow.array(cells, field.type)
                for cells, field in zip(
                    zip(*group, strict=True), fields, strict=True
                )
            ]
            table = pyarrow.Table.from_arrays(arrays, schema=schema)
            writer.write_table(table)


def _list_columns(names: Sequence[str]) -> list[str]:
    volumes = [f"{name}_ml" for name in names]
    dice = [f"{name}_expected_dice" for name in names]
    return ["scan", *volumes, *_QUALITY_COLUMNS, *dice, *_SHOWN_COLUMNS]


def _make_rows(overview: BatchOverview) -> Iterator[list[_Cell]]:
    """Give a row for each result, sorted by name."""
    names = overview.names
    for place in overview.sorted_results:
        entry = overview.entries[place]
        volumes = [entry.volumes_ml.get(name) for name in names]
        yield [entry.scan, *volumes, *_describe(entry.quality, names)]


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
