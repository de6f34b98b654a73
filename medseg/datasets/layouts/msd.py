"""Data sets of the Medical Segmentation Decathlon: a ``dataset.json`` lists their cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg._support.folders import resolve_path
from medseg.datasets.layouts.case_checks import path_exists
from medseg.datasets.layouts.contract import CaseListing, ListedCase, Selection
from medseg.datasets.layouts.dataset_json import (
    LISTING,
    describe_kind,
    find_ignore_value,
    read_json_object,
)
from medseg.datasets.layouts.paths import parse_path
from medseg.datasets.names import abbreviate, split_suffix
from medseg.errors import DatasetError, Fault, ScanError

_KEY = "training"


class MsdLayout:
    """A ``dataset.json`` whose ``training`` is a list of cases.

    An item's ``image`` is one file or a list with one file per channel; its other keys are
    fields. Paths are relative to the list. The bundle says which labels there are; of what the
    file says about them, only the ignore label is handed on.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a ``dataset.json`` that lists its files by their names."""
        if root.is_file():
            return root.suffix.lower() == ".json"
        listing = root / LISTING
        return listing.is_file() and lists_files(read_json_object(listing), root)

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the ``training`` items.

        Raises:
            DatasetError: If there is no such list.
        """
        path = root if root.is_file() else root / LISTING
        content = read_json_object(path)
        items = _training_items(content, path)
        listing = CaseListing(path, has_fields=True, ignore=find_ignore_value(content))
        for number, item in enumerate(items):
            try:
                listing.cases.append(_parse_item(path.parent, item))
            except ScanError as error:
                listing.faults.append(Fault.from_error(f"{_KEY}.{number}", error))
        listing.warnings.extend(_warn_of_unlisted(path, listing.cases))
        listing.warnings.extend(_warn_of_validation(path, content))
        return listing


def lists_files(content: Mapping[str, Any], root: Path) -> bool:
    """Tell whether a ``dataset.json`` lists files as they are called.

    nnU-Net's first version lists its images without their channel numbers, so that none of them
    exists; such a folder is one of nnU-Net's.
    """
    if _KEY not in content:
        return False
    items = content[_KEY]
    first = items[0] if isinstance(items, list) and items else None
    image = first.get("image") if isinstance(first, dict) else None
    if not isinstance(image, str) or path_exists(root / image):
        return True
    stem, suffix = split_suffix(image)
    return not path_exists(root / f"{stem}_0000{suffix}")


def _training_items(content: Mapping[str, Any], path: Path) -> Sequence[Any]:
    items = content.get(_KEY)
    if isinstance(items, list):
        return items
    kind = describe_kind(items) if _KEY in content else "missing"
    raise DatasetError(
        f"'{_KEY}' must be a list of objects with 'image' and 'label'; it is {kind}", source=path
    )


def _parse_item(folder: Path, item: Any) -> ListedCase:
    """Make a case of one item.

    Raises:
        ScanError: If it cannot be one.
    """
    if not isinstance(item, dict):
        kind = describe_kind(item)
        raise ScanError(f"must be an object with 'image' and 'label', is {kind}")
    image = item.get("image")
    images = image if isinstance(image, list) else [image]
    if not images:
        raise ScanError("'image' must be a path or a list with one path per channel, is empty")
    paths = tuple(parse_path(folder, "image", each) for each in images)
    label = parse_path(folder, "label", item.get("label"))
    fields = {key.lower(): value for key, value in item.items() if key not in ("image", "label")}
    return ListedCase(paths, label, fields=fields)


def _warn_of_unlisted(path: Path, cases: Sequence[ListedCase]) -> Iterator[str]:
    """Say which images lie beside the listed ones without being listed."""
    files = [file for case in cases for file in (*case.images, case.label)]
    listed = {resolve_path(file) for file in files}
    folders = sorted({file.parent for file in files} - {path.parent})
    beside: list[str] = []
    for folder in folders:
        beside.extend(file.name for file in _images_in(folder) if resolve_path(file) not in listed)
    if beside:
        yield (
            f"{path.name} does not list {len(beside)} of the image files beside those it lists; "
            f"they are not used: {abbreviate(beside)}"
        )


def _images_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        has_suffix = split_suffix(file.name)[1] != ""
        if has_suffix and not file.name.startswith("."):
            yield file


def _warn_of_validation(path: Path, content: Mapping[str, Any]) -> Iterator[str]:
    others = content.get("validation")
    if isinstance(others, list) and others:
        yield (
            f"{path.name} lists {len(others)} cases under 'validation', which are not used; list "
            f"them under '{_KEY}', each case with its 'fold'"
        )
