"""Lists of files that people write: CSV tables, and text of a size that cannot hurt."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError

MAX_LIST_BYTES = 64_000_000
"""Largest list read: about half a million cases."""

_MOST_NAMED = 20

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute, or run a program for."""

_NUMBERED = re.compile(r"image_(\d+)")

Line = tuple[int, list[str]]
"""Line number (1-based, of the row's last line) and cells."""

Row = tuple[int, Mapping[str, str]]
"""The same, with cells by column."""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file.

    Attributes:
        path: Where it was read from.
        columns: Their names, in lower case.
        rows: Line number (1-based, of the row's last line) and cell by column; a cell the
            line lacks is empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def image_columns(
        self, single: Sequence[str] = ("image",)
    ) -> tuple[str, ...]:
        """Return the columns that hold the channels' files, in channel order.

        Args:
            single: What the column may be called where a scan is one file.

        Raises:
            DatasetError: If there is none, or the numbers have a gap, or both kinds stand
                beside each other.
        """
        return find_image_columns(self.path, self.columns, single)


def find_image_columns(
    path: Path, columns: Sequence[str], single: Sequence[str] = ("image",)
) -> tuple[str, ...]:
    """Return which columns of a table hold the channels' files: see ``Table.image_columns``.

    Raises:
        DatasetError: As that does.
    """
    alone = [column for column in columns if column in single]
    numbered = sorted(
        column for column in columns if _NUMBERED.fullmatch(column)
    )
    expected = tuple(f"image_{number}" for number in range(len(numbered)))
    is_one_kind = len(alone) + bool(numbered) == 1
    has_no_gap = sorted(expected) == numbered
    if not is_one_kind or not has_no_gap:
        raise DatasetError(
            f"one column {' or '.join(single)}, or the columns image_0, image_1, … without "
            "gaps are needed",
            source=path,
            detail=f"its columns are {_list_some(columns)}",
        )
    return expected or (alone[0],)


def _list_some(columns: Sequence[str]) -> str:
    text = ", ".join(columns[:_MOST_NAMED])
    return f"{text}, …" if len(columns) > _MOST_NAMED else text


def defuse_cell(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe says that it is text.

    Examples:
        >>> defuse_cell("=1+1")
        "'=1+1"
    """
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell


def read_text(path: Path) -> str:
    """Read a list that a person or a tool wrote, as UTF-8.

    Raises:
        DatasetError: If it cannot be read, is not text, or is far too large for a list.
    """
    try:
        if not path.is_file():
            raise DatasetError("there is no such file", source=path)
        size = path.stat().st_size
        if size > MAX_LIST_BYTES:
            raise DatasetError(
                f"{size} bytes are too many for a list of cases; at most {MAX_LIST_BYTES} are read",
                source=path,
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"cannot be read: {reason}", source=path) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"is not UTF-8 text (byte {error.start}); save it as UTF-8",
            source=path,
        ) from error


def read_table(path: Path) -> Table:
    """Read a CSV file whose first line names the columns.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        DatasetError: If it is no such table.
    """
    lines = list(parse_lines(path, io.StringIO(read_text(path), newline="")))
    if not lines:
        raise make_empty_error(path)
    (_, names), *rows = lines
    columns = name_columns(path, names)
    return Table(path, columns, tuple(name_cells(path, columns, rows)))


def make_empty_error(path: Path) -> DatasetError:
    """Make the error of a table that has no line."""
    return DatasetError(
        "is empty; its first line must name the columns", source=path
    )


def name_columns(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns in lower case.

    Raises:
        DatasetError: If two are the same.
    """
    columns = tuple(name.lower() for name in names)
    counts = Counter(columns)
    repeated = sorted(name for name in counts if counts[name] > 1)
    if repeated:
        raise DatasetError(
            "several columns have the same name",
            source=path,
            detail=f"they are called {_list_some(repeated) or 'nothing'}",
        )
    return columns


def parse_lines(path: Path, text: Iterable[str]) -> Iterator[Line]:
    """Give the lines of CSV text that are not empty, as they are read.

    Args:
        path: What errors name.
        text: The lines, with their ends.

    Raises:
        DatasetError: If it is not valid CSV.
    """
    lines = iter(text)
    before: list[str] = []
    for line in lines:
        before.append(line)
        if line.strip():
            break
    first_line = "".join(before).lstrip()
    reader = csv.reader(
        itertools.chain(before, lines),
        delimiter=max(",;\t", key=first_line.count),
        skipinitialspace=True,
        strict=True,
    )
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DatasetError(
            f"line {reader.line_num} is not valid CSV",
            source=path,
            detail=str(error),
        ) from error


def name_cells(
    path: Path, columns: Sequence[str], rows: Iterable[Line]
) -> Iterator[Row]:
    """Give rows by the names of their columns.

    Raises:
        DatasetError: If a line has more cells than there are columns.
    """
    for line, cells in rows:
        missing = len(columns) - len(cells)
        if missing < 0:
            raise DatasetError(
                f"line {line} has {len(cells)} cells and the first line names {len(columns)}; put "
                "quotes around text that holds the separator",
                source=path,
            )
        yield line, dict(zip(columns, cells + [""] * missing, strict=True))
