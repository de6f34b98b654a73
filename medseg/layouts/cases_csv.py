"""Data sets whose cases stand in a CSV table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg._support.folders import list_files
from medseg._support.tables import Table, read_table
from medseg.bundle.spec import ColumnsSpec
from medseg.errors import DatasetError, Fault, MedsegError, ScanError
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.paths import parse_path
from medseg.layouts.structure_masks import (
    choose_structures,
    join_structures,
    warn_of_missing_masks,
)
from medseg.names import has_image_suffix, split_suffix

TABLE = "cases.csv"
"""What the file is called."""

_LABEL = "label"
_STRUCTURE = "label_"
"""Begins the names of columns that hold the mask of one structure each."""
_RENAMED = ("name", "patient", "fold")
_OTHER_NAMES = (
    "where columns have other names, say which hold what, as in "
    "--columns image=scan,label=seg"
)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the columns of a table hold.

    Attributes:
        images: The image of each channel.
        labels: Column of a label map, or of each structure's mask → the structure; ``""`` for a
            label map.
        renamed: What medseg calls a column → what the table calls it.
        channels: Names of the channels, where somebody named the columns.
    """

    images: tuple[str, ...]
    labels: Mapping[str, str]
    renamed: Mapping[str, str]
    channels: tuple[str, ...] = ()

    @property
    def needed(self) -> set[str]:
        """The columns that must be there, since somebody named them."""
        renamed = {
            column for field, column in self.renamed.items() if field != column
        }
        return {*self.images, *self.labels, *renamed}

    @property
    def known(self) -> set[str]:
        """Every column that is no further field."""
        return {*self.images, *self.labels, *self.renamed.values(), "name"}


class CsvLayout:
    """A table with a line for each case.

    Columns: ``image``, or ``image_0``, ``image_1``, …, and ``label``; if wanted ``name``,
    ``fold``, ``patient`` and others. ``data.columns`` names them where they are called otherwise.
    Paths are relative to the file. Instead of a label map there may be one mask per structure: a
    folder of them in ``label``, or columns ``label_liver``, ``label_kidney``, …
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a ``cases.csv``."""
        if root.is_file():
            return root.suffix.lower() == ".csv"
        return (root / TABLE).is_file()

    def list_cases(
        self,
        root: Path,
        selection: Selection,
    ) -> CaseListing:
        """List the cases of the table.

        Raises:
            DatasetError: If there is none, or it is no such table.
        """
        path = root if root.is_file() else root / TABLE
        table = read_table(path)
        columns = _find_columns(table, selection.columns)
        listing = CaseListing(path, has_fields=True)
        if len(columns.channels) > 1:
            listing.channel_names = columns.channels
        masks_of: dict[int, dict[str, Path]] = {}
        for line, cells in table.rows:
            try:
                case, masks = _parse_line(
                    path.parent,
                    columns,
                    cells,
                )
            except ScanError as error:
                where = cells.get(columns.renamed["name"]) or f"line {line}"
                listing.faults.append(Fault.from_error(where, error))
                continue
            if masks:
                masks_of[len(listing.cases)] = masks
            listing.cases.append(case)
        _join_masks(
            listing,
            masks_of,
            selection.labels,
        )
        return listing


def parse_columns(text: str) -> ColumnsSpec:
    """Return the columns that ``image=scan,label=seg`` names; a field may be given several times.

    Raises:
        MedsegError: If it is no such text, or names no image or no label.

    Examples:
        >>> parse_columns("image=t1,image=t2,label=seg").image
        ('t1', 't2')
    """
    named: dict[str, list[str]] = defaultdict(list)
    for part in text.split(","):
        field, equals, column = part.partition("=")
        if equals and column.strip():
            named[field.strip().lower()].append(column.strip())
        else:
            named[""].append(part)
    fields: dict[str, Any] = dict(named)
    for single in _RENAMED:
        if len(named.get(single, ())) == 1:
            (fields[single],) = named[single]
    try:
        return ColumnsSpec.model_validate(fields)
    except ValueError as error:
        raise MedsegError(
            "--columns takes image=COLUMN,label=COLUMN, and name=, patient= and fold= where there "
            "are such columns; image and label may be given several times",
            detail=f"got {text}",
        ) from error


def _find_columns(
    table: Table,
    spec: ColumnsSpec | None,
) -> _Columns:
    """Return what the columns of a table hold.

    Raises:
        DatasetError: If one is missing.
    """
    if spec is None:
        return _find_usual_columns(table)
    columns = _name_columns(spec)
    missing = sorted(columns.needed - {*table.columns})
    if not missing:
        return columns
    # A table that medseg itself wrote has its own columns, whatever the first one had.
    if _LABEL in table.columns:
        return _find_usual_columns(table)
    raise DatasetError(
        "a column that data.columns or --columns names is not in the table",
        source=table.path,
        detail=f"there is no {', '.join(missing)} among {', '.join(table.columns)}",
    )


def _find_usual_columns(table: Table) -> _Columns:
    renamed = {field: field for field in _RENAMED}
    try:
        images = table.image_columns()
    except DatasetError as error:
        raise DatasetError(
            f"{error.message}; {_OTHER_NAMES}",
            source=table.path,
            detail=error.detail,
        ) from error
    labels = _find_label_columns(table)
    return _Columns(images, labels, renamed)


def _name_columns(spec: ColumnsSpec) -> _Columns:
    """Return the columns that a person named; tables are read with columns in lower case."""
    renamed = {field: field for field in _RENAMED}
    for field in _RENAMED:
        column = getattr(spec, field)
        if column is not None:
            renamed[field] = column.lower()
    images = tuple(column.lower() for column in spec.image)
    labels = {column.lower(): column for column in spec.label}
    if len(labels) == 1:
        labels = dict.fromkeys(labels, "")
    return _Columns(
        images,
        labels,
        renamed,
        channels=spec.image,
    )


def _find_label_columns(table: Table) -> Mapping[str, str]:
    if _LABEL in table.columns:
        return {_LABEL: ""}
    structures = {
        column: column.removeprefix(_STRUCTURE)
        for column in table.columns
        if column.startswith(_STRUCTURE) and column != _STRUCTURE
    }
    if structures:
        return structures
    raise DatasetError(
        f"has no column 'label'; {_OTHER_NAMES}",
        source=table.path,
        detail=f"its columns are {', '.join(table.columns)}",
    )


def _parse_line(
    folder: Path, columns: _Columns, cells: Mapping[str, str]
) -> tuple[ListedCase, dict[str, Path]]:
    """Make a case of one line; return its masks by structure, where it has masks.

    Raises:
        ScanError: If one of its paths is none.
    """
    images = [
        parse_path(
            folder,
            column,
            cells[column],
        )
        for column in columns.images
    ]
    label, masks = _parse_label(
        folder,
        columns,
        cells,
    )
    fields = {
        key: cell
        for key, cell in cells.items()
        if cell and key not in columns.known
    }
    for field in ("patient", "fold"):
        cell = cells.get(columns.renamed[field])
        if cell:
            fields[field] = cell
    name = cells.get(columns.renamed["name"]) or None
    return ListedCase(
        tuple(images),
        label,
        name,
        fields,
    ), masks


def _parse_label(
    folder: Path, columns: _Columns, cells: Mapping[str, str]
) -> tuple[Path, dict[str, Path]]:
    """Return the label file of a line, and its masks by structure, where it has masks.

    Raises:
        ScanError: If there is none.
    """
    (first, *others) = columns.labels
    if not others and not columns.labels[first]:
        label = parse_path(
            folder,
            first,
            cells[first],
        )
        masks = _list_masks(label) if label.is_dir() else {}
        return next(iter(masks.values()), label), masks
    masks = {}
    for column, structure in columns.labels.items():
        # A structure that a case does not have has an empty cell.
        if cells[column]:
            masks[structure] = parse_path(
                folder,
                column,
                cells[column],
            )
    if not masks:
        raise ScanError("names no mask of any structure")
    return next(iter(masks.values())), masks


def _list_masks(folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by the names of their structures."""
    masks = {}
    for file in list_files(folder).files:
        if has_image_suffix(file.name):
            stem, _ = split_suffix(file.name)
            masks[stem] = file
    return masks


def _join_masks(
    listing: CaseListing,
    masks_of: Mapping[int, Mapping[str, Path]],
    wanted: Mapping[str, int],
) -> None:
    """Make one label map of the masks of each case that has masks."""
    names: set[str] = set()
    for masks in masks_of.values():
        names.update(masks)
    values = choose_structures(
        names,
        wanted,
        listing,
    )
    if not values:
        return
    listed = []
    for number, case in enumerate(listing.cases):
        if number not in masks_of:
            listed.append(case)
            continue
        try:
            source = join_structures(masks_of[number], values)
            listed.append(replace(case, label_source=source))
        except ScanError as error:
            where = case.name or f"case {number + 1}"
            listing.faults.append(Fault.from_error(where, error))
    listing.cases = listed
    warn_of_missing_masks(values, listing)
