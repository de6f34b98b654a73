"""Data sets whose cases stand in a list: MSD's ``dataset.json``, and CSV tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg._support.folders import resolve_path
from medseg._support.tables import read_table, read_text
from medseg.datasets.layouts.dataset_json import ignored_value
from medseg.datasets.layouts.entries import CaseListing, ListedCase
from medseg.datasets.names import abbreviate, split_suffix
from medseg.errors import DatasetError, Fault


def read_json_list(path: Path) -> Mapping[str, Any]:
    """Read a ``dataset.json``.

    Raises:
        DatasetError: If it is no JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except RecursionError as error:
        raise DatasetError(f"{path}: is nested too deeply for a list of cases") from error
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: must hold a JSON object {{…}}, holds {_kind(content)}")
    return content


def msd(path: Path) -> CaseListing:
    """List the ``training`` items of a Medical Segmentation Decathlon ``dataset.json``.

    An item's ``image`` is one file or a list with one file per channel; its other keys are
    fields. Paths are relative to the list. The bundle says which labels there are; of what the file
    says about them, only the value to ignore is handed on.

    Raises:
        DatasetError: If there is no such list.
    """
    content = read_json_list(path)
    items = content.get("training")
    if not isinstance(items, list):
        raise DatasetError(
            f"{path}: 'training' must be a list of objects with 'image' and 'label'; it is "
            f"{_kind(items) if 'training' in content else 'missing'}"
        )
    found = CaseListing(path, has_fields=True, ignore=ignored_value(content))
    for number, item in enumerate(items):
        try:
            found.rows.append(_msd_row(path.parent, item))
        except ValueError as error:
            found.faults.append(Fault(f"training.{number}", str(error)))
    found.warnings.extend(_unlisted(path, found.rows))
    others = content.get("validation")
    if isinstance(others, list) and others:
        found.warnings.append(
            f"{path.name} lists {len(others)} cases under 'validation', which are not used; list "
            "them under 'training', each case with its 'fold'"
        )
    return found


def _msd_row(folder: Path, item: Any) -> ListedCase:
    if not isinstance(item, dict):
        raise ValueError(f"must be an object with 'image' and 'label', is {_kind(item)}")
    images = item.get("image")
    images = images if isinstance(images, list) else [images]
    if not images:
        raise ValueError("'image' must be a path or a list with one path per channel, is empty")
    fields = {key.lower(): value for key, value in item.items() if key not in ("image", "label")}
    return ListedCase(
        tuple(_path(folder, "image", image) for image in images),
        _path(folder, "label", item.get("label")),
        fields=fields,
    )


def _unlisted(path: Path, rows: Sequence[ListedCase]) -> Iterator[str]:
    """Say which images lie beside the listed ones without being listed."""
    listed = {resolve_path(file) for row in rows for file in (*row.images, row.label)}
    folders = {file.parent for row in rows for file in (*row.images, row.label)}
    beside = [
        file.name
        for folder in sorted(folders)
        if folder != path.parent and folder.is_dir()
        for file in sorted(folder.iterdir())
        if not file.name.startswith(".")
        and split_suffix(file.name)[1]
        and resolve_path(file) not in listed
    ]
    if beside:
        yield (
            f"{path.name} does not list {len(beside)} of the image files beside those it lists; "
            f"they are not used: {abbreviate(beside)}"
        )


def table(path: Path) -> CaseListing:
    """List the cases of a CSV file.

    Columns: ``image``, or ``image_0``, ``image_1``, …, and ``label``; if wanted ``name``,
    ``fold``, ``patient`` and others. Paths are relative to the file.

    Raises:
        DatasetError: If it is no such table.
    """
    content = read_table(path)
    columns = content.image_columns()
    if "label" not in content.columns:
        raise DatasetError(
            f"{path}: has no column 'label'; its columns are {', '.join(content.columns)}"
        )
    found = CaseListing(path, has_fields=True)
    for line, cells in content.rows:
        try:
            images = tuple(_path(path.parent, column, cells[column]) for column in columns)
            label = _path(path.parent, "label", cells["label"])
        except ValueError as error:
            found.faults.append(Fault(cells.get("name") or f"line {line}", str(error)))
            continue
        known = (*columns, "label", "name")
        fields = {key: cell for key, cell in cells.items() if cell and key not in known}
        found.rows.append(ListedCase(images, label, cells.get("name") or None, fields))
    return found


def _path(folder: Path, what: str, text: Any) -> Path:
    if not isinstance(text, str):
        raise ValueError(f"'{what}' must be a path, is {_kind(text)}")
    if not text.strip() or not text.isprintable():
        raise ValueError(f"'{what}' must be a path, is {text[:40]!r}")
    return folder / text


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "nothing"}
    return kinds.get(type(value), "a number")
