"""The split that people made themselves is kept: cases get its folds, whatever their layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medseg.errors import DatasetError
from medseg.layouts.case_checks import has_field, name_cases
from medseg.layouts.contract import CaseListing, ListedCase
from medseg.layouts.split_lists import (
    NNUNET,
    TRAINING_FOLD,
    VALIDATION_FOLD,
    read_split,
)
from medseg.names import abbreviate, fold_name, split_channel, split_suffix

_FOLD = "fold"
_PREPROCESSED = "nnUNet_preprocessed"
"""The variable by which nnU-Net knows where its preprocessed data are, and their usual folder."""
_LISTS = (
    "val.txt",
    "splits/val.txt",
    "ImageSets/Segmentation/val.txt",
    "ImageSets/Main/val.txt",
    "meta.csv",
)
"""Where data sets have lists of their split, below their folder."""


def keep_split(listing: CaseListing, root: Path, path: str) -> None:
    """Give each case the fold that a split names for it; cases that it does not name go.

    Args:
        listing: The cases.
        root: The data set.
        path: The split's file, relative to the data folder.

    Raises:
        DatasetError: If the file cannot be read, is no split, or names none of the cases.
    """
    folder = root if root.is_dir() else root.parent
    # Such paths were made relative to where the folder leads.
    file = Path(os.path.normpath(folder.resolve() / path))
    stated = read_split(file)
    numbers = _match(listing, stated.folds)
    found = [number for number in numbers if number is not None]
    if not found:
        raise DatasetError(
            "the split names none of the cases of the data set", source=file
        )
    names = name_cases(listing.cases)
    kept, left_out = [], []
    for case, name, number in zip(listing.cases, names, numbers, strict=True):
        if number is None:
            left_out.append(name)
            continue
        fields = {**case.fields, _FOLD: number}
        kept.append(replace(case, fields=fields))
    listing.cases = kept
    listing.has_fields = True
    listing.warnings.extend(stated.odd)
    if left_out:
        listing.warnings.append(
            f"{len(left_out)} cases are not in the split and are left out: {abbreviate(left_out)}"
        )
    absent = len(stated.folds) - len(found)
    if absent > 0:
        listing.warnings.append(
            f"{absent} of the {len(stated.folds)} cases that the split names are not in the data"
        )


def find_split(listing: CaseListing, root: Path) -> str | None:
    """Return the file that splits a data set, where it or nnU-Net has one that names its cases.

    Args:
        listing: The cases; where they have folds already, nothing is searched for.
        root: The data set.
    """
    if not root.is_dir() or not listing.cases:
        return None
    if any(has_field(case, _FOLD) for case in listing.cases):
        return None
    for file in _list_candidates(root):
        if file.is_file() and _names_most(listing, file):
            return relate_split(file, root)
    return None


def relate_split(file: Path, root: Path) -> str:
    """Return the path of a split's file as ``data.splits`` has it: relative to the data folder."""
    folder = root if root.is_dir() else root.parent
    try:
        relative = os.path.relpath(file.resolve(), folder.resolve())
    except ValueError:  # on another drive of Windows
        return str(file.resolve())
    return Path(relative).as_posix()


def describe_folds(folds: Sequence[int]) -> str:
    """Say how a data set is split by itself.

    Args:
        folds: The fold of each case.
    """
    counts = Counter(folds)
    if set(counts) == {VALIDATION_FOLD, TRAINING_FOLD}:
        return (
            f"the split is kept: fold 0 is the validation set ({counts[VALIDATION_FOLD]}), fold 1 "
            f"the training set ({counts[TRAINING_FOLD]}). Train with --fold 0"
        )
    sizes = ", ".join(str(counts[fold]) for fold in sorted(counts))
    return (
        f"the split is kept: {len(counts)} folds of {sizes} cases. Train with --fold K to hold out "
        "fold K"
    )


def _list_candidates(root: Path) -> Iterator[Path]:
    yield root / NNUNET
    name = root.resolve().name
    preprocessed = os.environ.get(_PREPROCESSED)
    if preprocessed:
        yield Path(preprocessed) / name / NNUNET
    beside = root.resolve().parent.parent / _PREPROCESSED
    yield beside / name / NNUNET
    for path in _LISTS:
        yield root / path


def _names_most(listing: CaseListing, file: Path) -> bool:
    """Tell whether a file splits most of the cases; one that is no split is none."""
    try:
        folds = read_split(file).folds
    except DatasetError:
        return False
    numbers = _match(listing, folds)
    named = [number for number in numbers if number is not None]
    return 2 * len(named) > len(numbers) and len(set(named)) > 1


def _match(listing: CaseListing, folds: Mapping[str, int]) -> list[int | None]:
    """Return the fold of each case; ``None`` for one that the split does not name."""
    names = name_cases(listing.cases)
    keys = []
    for case, name in zip(listing.cases, names, strict=True):
        texts = _list_names(case, name)
        keys.append([key for text in texts for key in _list_keys(text)])
    return [
        None if text is None else folds[text]
        for text in _find_texts(keys, folds)
    ]


def _find_texts(
    keys: Sequence[Sequence[str]], written: Iterable[str]
) -> list[str | None]:
    """Return the text that means each case, as a path first and then as a mere name."""
    texts = list(written)
    whole = {_list_keys(text)[0]: text for text in texts}
    found = [_find_first(each, whole) for each in keys]
    # A file that lies elsewhere is known by its name; not site2/a, where site1/a is named.
    unused = set(texts) - set(found)
    short = {_list_keys(text)[-1]: text for text in sorted(unused)}
    return [
        text or _find_first(each, short)
        for text, each in zip(found, keys, strict=True)
    ]


def _list_names(case: ListedCase, name: str) -> list[str]:
    """Return what a split may call a case."""
    image = case.images[0].name
    stem, _ = split_suffix(image)
    # nnU-Net's images have a channel's number behind the case's name.
    base, _ = split_channel(stem)
    return [case.name or name, name, image, case.label.name, base]


def _find_first(keys: Iterable[str], written: Mapping[str, str]) -> str | None:
    return next((written[key] for key in keys if key in written), None)


def _list_keys(text: str) -> list[str]:
    """Return what a case may be called after: a path and a name, without ending."""
    path = PurePosixPath(text.replace("\\", "/"))
    stems = [split_suffix(each)[0] for each in (str(path), path.name)]
    return [fold_name(stem) for stem in stems]
