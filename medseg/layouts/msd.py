"""Data sets of the Medical Segmentation Decathlon: a ``dataset.json`` lists their cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg._support.folders import resolve_path
from medseg._support.json_files import describe_kind
from medseg.errors import DatasetError, Fault, ScanError
from medseg.layouts.case_checks import has_field, path_exists
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.dataset_json import (
    LISTING,
    find_ignore_value,
    read_json_object,
)
from medseg.layouts.paths import parse_path
from medseg.layouts.split_lists import TRAINING_FOLD, VALIDATION_FOLD
from medseg.names import abbreviate, split_suffix

_KEY = "training"
_VALIDATION = "validation"


class MsdLayout:
    """A ``dataset.json`` whose ``training`` is a list of cases.

    An item's ``image`` is one file or a list with one file per channel; its other keys are
    fields. Cases under ``validation`` that have labels are held out, as fold 0, where no case names
    its fold. Paths are relative to the list. The bundle says which labels there are; of what the
    file says about them, only the ignore label is handed on.
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether there is a ``dataset.json`` that lists its files by their names."""
        if root.is_file():
            return root.suffix.lower() == ".json"
        listing = root / LISTING
        return listing.is_file() and lists_files(
            read_json_object(listing), root
        )

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the ``training`` items.

        Raises:
            DatasetError: If there is no such list.
        """
        path = root if root.is_file() else root / LISTING
        content = read_json_object(path)
        items = _training_items(content, path)
        listing = CaseListing(
            path, has_fields=True, ignore=find_ignore_value(content)
        )
        for number, item in enumerate(items):
            try:
                listing.cases.append(_parse_item(path.parent, item))
            except ScanError as error:
                listing.faults.append(
                    Fault.from_error(f"{_KEY}.{number}", error)
                )
        _keep_validation(listing, path, content)
        listing.warnings.extend(_warn_of_unlisted(path, listing.cases))
        return listing


def lists_files(content: Mapping[str, Any], root: Path) -> bool:
    """Tell whether a ``dataset.json`` lists files as they are called.

    nnU-Net's first version lists its images without their channel numbers, so that none of them
    exists; such a folder is one of nnU-Net's.
    """
    if _KEY not in content:
        return False
    image = _first_image(content[_KEY])
    if image is None or path_exists(root / image):
        return True
    stem, suffix = split_suffix(image)
    numbered = root / f"{stem}_0000{suffix}"
    return not path_exists(numbered)


def _first_image(items: Any) -> str | None:
    """Return the image of the first item; ``None`` where that is no path."""
    if not isinstance(items, list) or not items:
        return None
    first = items[0]
    image = first.get("image") if isinstance(first, dict) else None
    return image if isinstance(image, str) else None


def _training_items(content: Mapping[str, Any], path: Path) -> Sequence[Any]:
    items = content.get(_KEY)
    if isinstance(items, list):
        return items
    kind = describe_kind(items) if _KEY in content else "missing"
    raise DatasetError(
        f"'{_KEY}' must be a list of objects with 'image' and 'label'; it is {kind}",
        source=path,
    )


def _parse_item(folder: Path, item: Any) -> ListedCase:
    """Make a case of one item.

    Raises:
        ScanError: If it cannot be one.
    """
    if not isinstance(item, dict):
        kind = describe_kind(item)
        raise ScanError(
            f"must be an object with 'image' and 'label', is {kind}"
        )
    fields = {key.lower(): value for key, value in item.items()}
    image = item.get("image")
    images = image if isinstance(image, list) else [image]
    if not images:
        raise ScanError(
            "'image' must be a path or a list with one path per channel, is empty"
        )
    paths = [parse_path(folder, "image", each) for each in images]
    label = parse_path(folder, "label", item.get("label"))
    for key in ("image", "label"):
        del fields[key]
    return ListedCase(tuple(paths), label, fields=fields)


def _warn_of_unlisted(path: Path, cases: Sequence[ListedCase]) -> Iterator[str]:
    """Say which images lie beside the listed ones without being listed."""
    listed: set[Path] = set()
    folders: set[Path] = set()
    for case in cases:
        for file in (*case.images, case.label):
            listed.add(resolve_path(file))
            folders.add(file.parent)
    folders.discard(path.parent)
    beside = []
    for folder in sorted(folders):
        for file in _images_in(folder):
            if resolve_path(file) not in listed:
                beside.append(file.name)
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


def _keep_validation(
    listing: CaseListing, path: Path, content: Mapping[str, Any]
) -> None:
    """Hold out the cases under ``validation``, where they have labels and nobody names folds."""
    items = content.get(_VALIDATION)
    if not isinstance(items, list) or not items:
        return
    cases = [_parse_labelled(path.parent, item) for item in items]
    whole = [case for case in cases if case is not None]
    has_folds = any(has_field(case, "fold") for case in listing.cases)
    if has_folds or len(whole) < len(cases):
        listing.warnings.append(
            f"{path.name} lists {len(items)} cases under '{_VALIDATION}', which are not used; list "
            f"them under '{_KEY}', each case with its 'fold'"
        )
        return
    training = [_put_in_fold(case, TRAINING_FOLD) for case in listing.cases]
    held_out = [_put_in_fold(case, VALIDATION_FOLD) for case in whole]
    listing.cases = training + held_out


def _parse_labelled(folder: Path, item: Any) -> ListedCase | None:
    """Make a case of one item; ``None`` where it cannot be one, or is not labelled."""
    try:
        return _parse_item(folder, item)
    except ScanError:
        return None


def _put_in_fold(case: ListedCase, fold: int) -> ListedCase:
    return replace(case, fields={**case.fields, "fold": fold})
