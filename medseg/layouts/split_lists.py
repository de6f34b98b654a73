"""Files in which people write down how their cases are split for training and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.json_files import parse_json
from medseg._support.tables import read_table, read_text
from medseg.errors import DatasetError
from medseg.layouts.tree_names import find_part

VALIDATION_FOLD, TRAINING_FOLD = 0, 1
"""Folds of a single split, as where folders are called val and train."""

_TEST = -1
"""Stands for the fold of a test set, whose cases are left out."""

NNUNET = "splits_final.json"
"""What nnU-Net calls its split."""

_NAMES = ("name", "case", "case_id", "image_id", "id", "image", "subject")
_PARTS = ("split", "part", "set", "subset")
_TRAIN, _VAL = ("train", "training"), ("val", "validation", "valid")


@dataclass(frozen=True, slots=True)
class StatedSplit:
    """A split as a file states it.

    Attributes:
        folds: Name of a case, as it is written → its fold.
        odd: What medseg cannot keep of it, in sentences that name no case.
    """

    folds: Mapping[str, int]
    odd: tuple[str, ...] = ()


def read_split(path: Path) -> StatedSplit:
    """Read a split.

    Args:
        path: nnU-Net's ``splits_final.json``, or JSON with the lists ``train`` and ``val``; a CSV
            with a column ``name`` and one ``fold`` or ``split`` (train, val, test); or ``val.txt``
            with a name in each line, beside which ``train.txt`` lies.

    Raises:
        DatasetError: If it cannot be read, or is no split.
    """
    ending = path.suffix.lower()
    if ending == ".json":
        return _read_json(path)
    if ending in (".csv", ".tsv"):
        return _read_table(path)
    return _read_lists(path)


def _read_json(path: Path) -> StatedSplit:
    try:
        content = parse_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            "is not valid JSON", source=path, detail=str(error)
        ) from error
    items = content if isinstance(content, list) else [content]
    splits = []
    for item in items:
        train, val = _get_names(item, _TRAIN), _get_names(item, _VAL)
        if train is None or val is None:
            raise DatasetError(
                "a split is a list of objects with the lists 'train' and 'val', as nnU-Net writes "
                "it, or one such object",
                source=path,
            )
        splits.append((train, val))
    return _join(splits, path)


def _get_names(item: Any, keys: Sequence[str]) -> list[str] | None:
    """Return the names under one of some keys; ``None`` where there is no list of texts."""
    if not isinstance(item, dict):
        return None
    for key in keys:
        names = item.get(key)
        if isinstance(names, list) and all(isinstance(n, str) for n in names):
            return names
    return None


def _join(
    splits: Sequence[tuple[Sequence[str], Sequence[str]]], path: Path
) -> StatedSplit:
    """Return the fold of each case: that in which it is held out, or one that never is.

    Raises:
        DatasetError: If a case is held out twice: folds cannot say that.
    """
    folds: dict[str, int] = {}
    for number, (_, val) in enumerate(splits):
        for name in val:
            if name in folds:
                raise DatasetError(
                    "holds out a case more than once, so its parts are no folds; list the cases "
                    "with a fold each in a cases.csv",
                    source=path,
                    detail=name,
                )
            folds[name] = number
    if not folds:
        raise DatasetError("holds out no case", source=path)
    always = len(splits)
    for train, _ in splits:
        for name in train:
            folds.setdefault(name, always)
    differ = 0
    for train, val in splits:
        others = folds.keys() - set(val)
        differ += set(train) != others
    odd: tuple[str, ...] = ()
    if differ:
        odd = (
            f"{differ} of the {len(splits)} splits do not train on all cases that they do not hold "
            "out; here each fold trains on all the others",
        )
    return StatedSplit(folds, odd)


def _read_table(path: Path) -> StatedSplit:
    table = read_table(path)
    name = _find_column(table.columns, _NAMES)
    part = _find_column(table.columns, ("fold", *_PARTS))
    if name is None or part is None:
        raise DatasetError(
            "a table that splits cases has a column 'name' and one 'fold' or 'split'",
            source=path,
            detail=f"its columns are {', '.join(table.columns)}",
        )
    folds: dict[str, int] = {}
    for line, cells in table.rows:
        fold = _parse_part(cells[part])
        if fold is None and cells[part]:
            raise DatasetError(
                f"line {line} has a fold that is neither a number nor train, val or test",
                source=path,
                detail=cells[part],
            )
        if fold is None:
            continue
        case = cells[name]
        if folds.setdefault(case, fold) != fold:
            raise DatasetError(
                f"line {line} puts a case into another fold than a line before",
                source=path,
                detail=case,
            )
    kept = {case: fold for case, fold in folds.items() if fold != _TEST}
    return StatedSplit(kept)


def _find_column(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    there = set(columns)
    return next((column for column in wanted if column in there), None)


def _parse_part(text: str) -> int | None:
    """Return a fold, that of a test set, too; ``None`` for what is neither."""
    if text.isascii() and text.isdigit() and len(text) < 5:
        return int(text)
    parts = {"train": TRAINING_FOLD, "val": VALIDATION_FOLD, "test": _TEST}
    return parts.get(find_part(text) or "")


def _read_lists(path: Path) -> StatedSplit:
    """Read a list of the cases that are held out; beside it, that of the others."""
    held_out = set(_read_lines(path))
    train = find_training_list(path)
    if train is None:
        raise DatasetError(
            "beside this list there must be one of the cases to train on, such as train.txt "
            "beside val.txt",
            source=path,
        )
    trained_on = set(_read_lines(train))
    both = len(held_out & trained_on)
    if both:
        raise DatasetError(
            f"{both} cases are in the list for training, too", source=path
        )
    folds = dict.fromkeys(sorted(held_out), VALIDATION_FOLD)
    folds |= dict.fromkeys(sorted(trained_on), TRAINING_FOLD)
    return StatedSplit(folds)


def find_training_list(path: Path) -> Path | None:
    """Return the list of training cases beside one of validation cases, where there is one."""
    for val in _VAL:
        stem = path.stem.lower()
        if not stem.endswith(val):
            continue
        for train in _TRAIN:
            name = stem.removesuffix(val) + train + path.suffix
            if path.with_name(name).is_file():
                return path.with_name(name)
    return None


def _read_lines(path: Path) -> list[str]:
    """Return the first word of each line: lists of VOC and others have more."""
    lines = (line.split() for line in read_text(path).splitlines())
    return [words[0] for words in lines if words]
