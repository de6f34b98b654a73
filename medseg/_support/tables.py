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
        alone = [column for column in self.columns if column in single]
        numbered = sorted(column for column in self.columns if _NUMBERED.fullmatch(column))
        several = tuple(f"image_{number}" for number in range(len(numbered)))
        if len(alone) + bool(numbered) != 1 or sorted(several) != numbered:
            raise DatasetError(
                f"{self.path}: one column {' or '.join(single)}, or the columns image_0, image_1, "
                f"… without gaps are needed; its columns are {', '.join(self.columns)}"
            )
        return several or (alone[0],)


def read_text(path: Path) -> str:
    """Read a list that a person or a tool wrote, as UTF-8.

    Raises:
        DatasetError: If it cannot be read, is not text, or is far too large for a list.
    """
    try:
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file")
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DatasetError(
                f"{path}: {path.stat().st_size} bytes are too many for a list of cases; at most "
                f"{MAX_LIST_BYTES} are read"
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error


def read_table(path: Path) -> Table:
    """Read a CSV file whose first line names the columns.

    Cells are separated by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        DatasetError: If it is no such table.
    """
    text = read_text(path)
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{path}: line {reader.line_num} is no CSV: {error}") from error
    cells = [(line, row) for line, row in cells if any(row)]
    if not cells:
        raise DatasetError(f"{path}: is empty; its first line must name the columns")
    columns = tuple(name.lower() for name in cells[0][1])
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DatasetError(f"{path}: two columns are called {', '.join(repeated) or 'nothing'}")
    return Table(path, columns, tuple(_rows(path, columns, cells[1:])))


def _rows(
    path: Path, columns: tuple[str, ...], cells: Sequence[tuple[int, list[str]]]
) -> Iterator[tuple[int, Mapping[str, str]]]:
    for line, row in cells:
        if len(row) > len(columns):
            raise DatasetError(
                f"{path}: line {line} has {len(row)} cells and the first line names "
                f"{len(columns)}; put quotes around text that holds the separator"
            )
        yield line, dict(zip(columns, row + [""] * (len(columns) - len(row)), strict=True))
