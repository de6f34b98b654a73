"""Lists of very many files, CSV or Parquet: read row by row, as often as needed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
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

    def read_rows(self) -> Iterator[Row]:
        """Give the rows, reading them from the disk: number, and cell by column.

        Lines of a CSV count from 1, that with the names; rows of Parquet from 1, without them.

        Raises:
            DatasetError: If one cannot be read.
        """
        if self.noun == "row":
            return _read_parquet_rows(self.path, self.columns)
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


def may_hold(path: Path, text: str) -> bool:
    """Tell whether a cell of a table may hold a text: far faster than reading its rows.

    Args:
        path: The table; where it cannot be read, whoever opens it says why.
        text: What to look for.
    """
    if path.suffix.lower() == PARQUET:
        return _may_parquet_hold(path, text)
    wanted = text.encode()
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


def _read_parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    pyarrow = import_pyarrow()
    file = _open_parquet(path)
    number = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
            cells_by_column = [column.to_pylist() for column in batch.columns]
            for values in zip(*cells_by_column, strict=True):
                number += 1
                cells = [_format_cell(value) for value in values]
                if any(cells):
                    yield number, dict(zip(columns, cells, strict=True))
    except (OSError, pyarrow.ArrowException) as error:
        raise _make_parquet_error(path, error) from error


def _may_parquet_hold(path: Path, text: str) -> bool:
    pyarrow = import_pyarrow()
    import pyarrow.compute as compute

    try:
        for batch in _open_parquet(path).iter_batches(use_threads=False):
            for column in batch.columns:
                cells = column.cast(pyarrow.string())
                found = compute.match_substring(cells, text)
                if compute.any(found).as_py():
                    return True
    except DatasetError:
        return False
    except (OSError, pyarrow.ArrowException):
        return True  # cells of a kind that is no text by itself
    return False


def _format_cell(value: object) -> str:
    return "" if value is None else str(value).strip()


def _make_parquet_error(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        "is no Parquet file, or is damaged; write it again",
        source=path,
        detail=str(error),
    )
