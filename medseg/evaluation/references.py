"""References in a data set whose folders hold images and labels together."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import list_files
from medseg.errors import DatasetError
from medseg.layouts import LabelSource, ListedCase, Selection, list_cases
from medseg.layouts.case_checks import name_cases
from medseg.layouts.patterns import parse_pattern
from medseg.layouts.registry import AUTO
from medseg.layouts.tree import find_named_form
from medseg.names import make_safe_name, normalize_name, split_suffix


@dataclass(frozen=True, slots=True)
class Reference:
    """The label map of one case.

    Attributes:
        name: Of the case, as its prediction is called.
        file: Its label file, or the first of its masks.
        source: Its masks, where it has one file for each structure.
    """

    name: str
    file: Path
    source: LabelSource | None


def holds_cases(root: Path) -> bool:
    """Tell whether a folder holds labels together with their images, by their names."""
    if not root.is_dir():
        return False
    form = find_named_form(root)
    if form is None:
        return False
    # A file that is called label and nothing else is no label of the one beside it.
    for case in form.cases:
        lies_beside = any(label.file.parent == root for label in case.labels)
        if lies_beside and not case.key:
            return False
    return True


def fits_pattern(root: Path, pattern: str) -> bool:
    """Tell whether a folder holds files that a bundle's ``data.labels`` names."""
    if not pattern or not root.is_dir():
        return False
    parsed = parse_pattern(pattern)
    for file in list_files(root).files:
        path = file.relative_to(root).as_posix()
        if parsed.match(path) is not None:
            return True
    return False


def list_references(
    root: Path,
    predicted: Set[str],
    selection: Selection,
) -> list[Reference]:
    """Return the references in a data set.

    Args:
        root: The data folder.
        predicted: Names of predictions.
        selection: What a bundle says of its data; its labels give masks their values.

    Raises:
        DatasetError: If the data set cannot be understood, or has masks and there are no labels.
    """
    listing = list_cases(root, AUTO, selection)
    references = []
    names = name_cases(listing.cases)
    for case, name in zip(listing.cases, names, strict=True):
        if case.label_source is not None and not selection.labels:
            raise DatasetError(
                "has one mask per structure; name the bundle whose labels these are, by --bundle",
                source=root,
            )
        own = _choose_name(root, case, name, predicted)
        reference = Reference(own, case.label, case.label_source)
        references.append(reference)
    return references


def _choose_name(
    root: Path,
    case: ListedCase,
    name: str,
    predicted: Set[str],
) -> str:
    """Return what the prediction of a case is called, where there is one of a certain name."""
    for candidate in _list_names(root, case, name):
        if candidate in predicted:
            return candidate
    return name


def _list_names(root: Path, case: ListedCase, name: str) -> Iterator[str]:
    """Yield what ``medseg segment`` may call a case: by its path in the data set, and its file.

    A case of several files is called after what their paths share.
    """
    image = case.images[0]
    path = image.relative_to(root)
    if len(case.images) > 1:
        shared = path.parent / name
        if path.parent.name == name:
            shared = path.parent
        yield _flatten(shared.as_posix())
    for text in (path.as_posix(), image.name):
        stem, _ = split_suffix(text)
        yield _flatten(stem)


def _flatten(path: str) -> str:
    return normalize_name(make_safe_name(path.replace("/", "_")))
