"""Data sets whose cases stand in a CSV table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg._support.tables import read_table
from medseg.datasets.layouts.contract import CaseListing, ListedCase, Selection
from medseg.datasets.layouts.paths import parse_path
from medseg.errors import DatasetError, Fault, ScanError

TABLE = "cases.csv"
"""What the file is called."""


class CsvLayout:
    """A table with a line for each case.

    Columns: ``image``, or ``image_0``, ``image_1``, …, and ``label``; if wanted ``name``,
    ``fold``, ``patient`` and others. Paths are relative to the file.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a ``cases.csv``."""
        if root.is_file():
            return root.suffix.lower() == ".csv"
        return (root / TABLE).is_file()

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the cases of the table.

        Raises:
            DatasetError: If there is none, or it is no such table.
        """
        path = root if root.is_file() else root / TABLE
        table = read_table(path)
        image_columns = table.image_columns()
        if "label" not in table.columns:
            raise DatasetError(
                "has no column 'label'",
                source=path,
                detail=f"its columns are {', '.join(table.columns)}",
            )
        listing = CaseListing(path, has_fields=True)
        for line, cells in table.rows:
            try:
                listing.cases.append(
                    _parse_line(path.parent, image_columns, cells)
                )
            except ScanError as error:
                where = cells.get("name") or f"line {line}"
                listing.faults.append(Fault.from_error(where, error))
        return listing


def _parse_line(
    folder: Path, image_columns: Sequence[str], cells: Mapping[str, str]
) -> ListedCase:
    """Make a case of one line.

    Raises:
        ScanError: If one of its paths is none.
    """
    images = [
        parse_path(folder, column, cells[column]) for column in image_columns
    ]
    label = parse_path(folder, "label", cells["label"])
    known = {*image_columns, "label", "name"}
    fields = {
        key: cell for key, cell in cells.items() if cell and key not in known
    }
    name = cells.get("name") or None
    return ListedCase(tuple(images), label, name, fields)
