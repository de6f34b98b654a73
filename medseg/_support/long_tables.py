"""Lists of very many files, CSV or Parquet: read row by row, as often as needed."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.tables import (
    Line,
    Row,
    make_empty_error,
    name_cells,
    name_columns,
    parse_lines,
)
from medseg.errors import DatasetError, MissingExtraError

CSV, PARQUET = ".csv", ".parquet"
TABLE_SUFFIXES = (CSV, PARQUET)
"""The endings of tables, in lower case."""

_LONGEST_LINE = 1_000_000
"""Characters; a file without line breaks is no table, and may fill the memory."""

_BATCH_ROWS = 10_000
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class LongTable:
    """A table that stays on the disk.

    Attributes:
        path: Where it is.
        columns: Their names, in lower case.
        noun: What one row of it is called: ``line``, or ``row`` of Parquet.
    """

    path: Path
    columns: tuple[str, ...]
    noun: str

    @property
    def is_parquet(self) -> bool:
        """Whether it is no CSV."""
        return self.noun == "row"

    def read_rows(self, wanted: Collection[str]) -> Iterator[Row]:
        """Give the rows, reading them from the disk: number, and cell by column.

        Lines of a CSV count from 1, that with the names; rows of Parquet from 1, without them.

        Args:
            wanted: The columns that are needed, where they are there: others of Parquet, which
                may hold whole images, are not read.

        Raises:
            DatasetError: If one cannot be read.
        """
        if self.is_parquet:
            return _read_parquet_rows(self, wanted)
        lines = _read_lines(self.path)
        next(lines)
        return name_cells(self.path, self.columns, lines)


def open_table(path: Path) -> LongTable:
    """Open a table whose columns have names, by its ending: ``.csv`` or ``.parquet``.

    Cells of a CSV are separated by commas, semicolons or tabs, whichever the first line has most
    of.

    Raises:
        DatasetError: If it is no such table.
        MissingExtraError: If it is Parquet and pyarrow is not installed.
    """
    if not path.is_file():
        raise DatasetError("there is no such file", source=path)
    if path.suffix.lower() == PARQUET:
        names: Sequence[str] = _open_parquet(path).schema_arrow.names
        return LongTable(path, name_columns(path, names), "row")
    for _, cells in _read_lines(path):
        return LongTable(path, name_columns(path, cells), "line")
    raise make_empty_error(path)


def may_hold(table: LongTable, columns: Collection[str], text: str) -> bool:
    """Tell whether a cell of a table may hold a text: far faster than reading its rows.

    Args:
        table: The table; where it cannot be read, whoever reads its rows says why.
        columns: Where to look, at least.
        text: What to look for.
    """
    if table.is_parquet:
        return _may_parquet_hold(table, columns, text)
    path, wanted = table.path, text.encode()
    end = b""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                if wanted in end + block:
                    return True
                end = block[-len(wanted) :]
    except OSError:
        return False
    return False


def import_pyarrow() -> Any:
    """Return the module that reads and writes Parquet.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow; install it with: pip install pyarrow, or use CSV"
        ) from error
    return pyarrow


# --- CSV ----------------------------------------------------------------------------------


def _read_lines(path: Path) -> Iterator[Line]:
    return parse_lines(path, _read_text_lines(path))


def _read_text_lines(path: Path) -> Iterator[str]:
    """Give the lines of a file with their ends, whichever these are.

    Raises:
        DatasetError: If it cannot be read or is not text.
    """
    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            yield from _limit_lines(path, file, text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"cannot be read: {reason}", source=path) from error


def _limit_lines(
    path: Path, file: io.BufferedReader, text: io.TextIOWrapper
) -> Iterator[str]:
    while True:
        try:
            line = text.readline(_LONGEST_LINE)
        except UnicodeDecodeError as error:
            # The error counts from the begin of what was read last.
            start = file.tell() - len(error.object) + error.start
            raise DatasetError(
                f"is not UTF-8 text (byte {start}); save it as UTF-8",
                source=path,
            ) from error
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise DatasetError(
                f"has a line of {_LONGEST_LINE} characters or more; a list has a line for each "
                "scan",
                source=path,
            )
        yield line


# --- Parquet ------------------------------------------------------------------------------


def _open_parquet(path: Path) -> Any:
    """Open a Parquet file.

    Raises:
        DatasetError: If it is none.
        MissingExtraError: If pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise _make_parquet_error(path, error) from error


def _read_parquet_rows(
    table: LongTable, wanted: Collection[str]
) -> Iterator[Row]:
    columns = [column for column in table.columns if column in wanted]
    # A row of which other columns say something is no empty one.
    has_others = len(columns) < len(table.columns)
    number = 0
    for batch in _read_batches(table, columns):
        cells_by_column = [column.to_pylist() for column in batch.columns]
        for values in zip(*cells_by_column, strict=True):
            number += 1
            cells = [_format_cell(value) for value in values]
            if has_others or any(cells):
                yield number, dict(zip(columns, cells, strict=True))


def _read_batches(table: LongTable, columns: Collection[str]) -> Iterator[Any]:
    """Read some columns, in the order of the table.

    Raises:
        DatasetError: If the file is damaged.
    """
    pyarrow = import_pyarrow()
    file = _open_parquet(table.path)
    names = [
        name for name in file.schema_arrow.names if name.lower() in columns
    ]
    try:
        yield from file.iter_batches(
            _BATCH_ROWS, columns=names, use_threads=False
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise _make_parquet_error(table.path, error) from error


def _may_parquet_hold(
    table: LongTable, columns: Collection[str], text: str
) -> bool:
    pyarrow = import_pyarrow()
    import pyarrow.compute as compute

    try:
        for batch in _read_batches(table, columns):
            for column in batch.columns:
                cells = column.cast(pyarrow.string())
                found = compute.match_substring(cells, text)
                if compute.any(found).as_py():
                    return True
    except DatasetError:
        return False
    except pyarrow.ArrowException:
        return True  # cells of a kind that is no text by itself
    return False


def _format_cell(value: object) -> str:
    is_missing = value is None or value != value
    if is_missing:
        return ""
    if isinstance(value, bytes):  # text, by writers that do not say so
        return os.fsdecode(value).strip()
    return str(value).strip()


def _make_parquet_error(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        "is no Parquet file, or is damaged; write it again",
        source=path,
        detail=str(error),
    )
