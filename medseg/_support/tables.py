"""Lists of files that people write: CSV tables, and text of a size that cannot hurt."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError

MAX_LIST_BYTES = 64_000_000
"""Largest list read: about half a million cases."""

_NUMBERED = re.compile(r"image_(\d+)")

_Line = tuple[int, list[str]]
"""Line number (1-based, of the row's last line) and cells."""


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
    rows: tuple[tuple[int, Mapping[str, str]], ...]

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
        alone = [column for column in self.columns if column in single]
        numbered = sorted(
            column for column in self.columns if _NUMBERED.fullmatch(column)
        )
        expected = tuple(f"image_{number}" for number in range(len(numbered)))
        is_one_kind = len(alone) + bool(numbered) == 1
        has_no_gap = sorted(expected) == numbered
        if not is_one_kind or not has_no_gap:
            raise DatasetError(
                f"one column {' or '.join(single)}, or the columns image_0, image_1, … without "
                "gaps are needed",
                source=self.path,
                detail=f"its columns are {', '.join(self.columns)}",
            )
        return expected or (alone[0],)


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
    lines = _read_lines(path)
    if not lines:
        raise DatasetError(
            "is empty; its first line must name the columns", source=path
        )
    (_, names), *rows = lines
    columns = tuple(name.lower() for name in names)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DatasetError(
            "several columns have the same name",
            source=path,
            detail=f"they are called {', '.join(repeated) or 'nothing'}",
        )
    return Table(path, columns, tuple(_name_cells(path, columns, rows)))


def _read_lines(path: Path) -> list[_Line]:
    """Return the lines that are not empty."""
    text = read_text(path)
    first_line, _, _ = text.lstrip().partition("\n")
    separator = max(",;\t", key=first_line.count)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    lines = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise DatasetError(
            f"line {reader.line_num} is not valid CSV",
            source=path,
            detail=str(error),
        ) from error
    return lines


def _name_cells(
    path: Path, columns: tuple[str, ...], rows: Sequence[_Line]
) -> Iterator[tuple[int, Mapping[str, str]]]:
    for line, cells in rows:
        missing = len(columns) - len(cells)
        if missing < 0:
            raise DatasetError(
                f"line {line} has {len(cells)} cells and the first line names {len(columns)}; put "
                "quotes around text that holds the separator",
                source=path,
            )
        yield line, dict(zip(columns, cells + [""] * missing, strict=True))
