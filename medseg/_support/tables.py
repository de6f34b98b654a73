"""Lists of files that people write: CSV tables, and text of a size that cannot hurt."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError

MAX_LIST_BYTES = 64_000_000
"""Largest list read: about half a million cases."""

_NUMBERED = re.compile(r"image_(\d+)")


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

    def image_columns(self, single: Sequence[str] = ("image",)) -> tuple[str, ...]:
        """Return the columns that hold the channels' files, in channel order.

        Args:
            single: What the column may be called where a scan is one file.

        Raises:
            DatasetError: If there is none, or the numbers have a gap, or both kinds stand
                beside each other.
        """
        whole = [column for column in self.columns if column in single]
        numbered = [column for column in self.columns if _NUMBERED.fullmatch(column)]
        wanted = [f"image_{number}" for number in range(len(numbered))]
        has_gap = sorted(numbered) != sorted(wanted)
        kinds = len(whole) + bool(numbered)
        if kinds != 1 or has_gap:
            raise DatasetError(
                f"one column {' or '.join(single)}, or the columns image_0, image_1, … without "
                "gaps are needed",
                source=self.path,
                detail=f"its columns are {', '.join(self.columns)}",
            )
        return tuple(wanted) or (whole[0],)


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
        raise DatasetError(f"the file cannot be read: {reason}", source=path) from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"the file is not UTF-8 text (byte {error.start}); save it as UTF-8", source=path
        ) from error


def read_table(path: Path) -> Table:
    """Read a CSV file whose first line names the columns.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        DatasetError: If it is no such table.
    """
    lines = _read_cells(path, read_text(path))
    if not lines:
        raise DatasetError("the table is empty; its first line must name the columns", source=path)
    _, names = lines[0]
    columns = tuple(name.lower() for name in names)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DatasetError(
            "several columns have the same name; give each its own",
            source=path,
            detail=", ".join(repeated) or "they have no name",
        )
    rows = [(line, _make_row(path, columns, line, cells)) for line, cells in lines[1:]]
    return Table(path, columns, tuple(rows))


def _read_cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Return the cells of each line that is not empty, and the line's number."""
    first_line, _, _ = text.lstrip().partition("\n")
    separator = max(",;\t", key=first_line.count)
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
    lines = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise DatasetError(
            f"line {reader.line_num} is no CSV", source=path, detail=str(error)
        ) from error
    return lines


def _make_row(
    path: Path, columns: tuple[str, ...], line: int, cells: list[str]
) -> Mapping[str, str]:
    missing = len(columns) - len(cells)
    if missing < 0:
        raise DatasetError(
            f"line {line} has {len(cells)} cells and the first line names {len(columns)}; put "
            "quotes around text that holds the separator",
            source=path,
        )
    return dict(zip(columns, [*cells, *[""] * missing], strict=True))
