"""The cases of a training run: found, checked, cached and split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import (
    CachedCase,
    is_entry,
    make_entry_key,
    read_entry,
    write_entry,
)
from medseg.datasets.cases import Case, CaseList, assign_folds, find_cases, split_cases
from medseg.datasets.integrity import check_cases, describe_absent_labels
from medseg.datasets.label_encoding import Indices
from medseg.errors import DatasetError, Fault
from medseg.events import Listener, Notice, notify
from medseg.preprocessing.transforms import Preprocessing
from medseg.volume import Volume

_HASH_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a training run.

    Attributes:
        training: To learn from, from the cache.
        validation: To score on, from the cache.
        held_out: The same validation cases as they lie on disk.
        content_hash: Hash of the content of all, images and labels, and of how they are split.
    """

    training: Sequence[CachedCase]
    validation: Sequence[CachedCase]
    held_out: Sequence[Case]
    content_hash: str


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds of a cross-validation.

    Attributes:
        numbers: Those that hold usable cases.
        content_hash: Hash of the content of all cases, images and labels, and of their folds.
    """

    numbers: tuple[int, ...]
    content_hash: str


def open_dataset(
    data: Path | CaseList,
    spec: BundleSpec,
    fold: int | None,
    cache: Path,
    *,
    skip_bad_cases: bool = False,
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Find, check, preprocess and split the cases; an unchanged case is read once and for all.

    Args:
        data: The data folder, or the cases that were found in it.
        spec: The bundle.
        fold: The fold to hold out; ``None`` holds out none.
        cache: The folder in which preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    usable, cached = _prepare_cases(data, spec, cache, skip_bad_cases, listeners)
    training, validation = split_cases(usable, spec.data, fold)
    folds = () if fold is None else assign_folds(usable, spec.data)
    return Dataset(
        training=[cached[case.name] for case in training],
        validation=[cached[case.name] for case in validation],
        held_out=validation,
        content_hash=_hash_contents([cached[case.name] for case in usable], folds),
    )


def find_folds(
    data: Path | CaseList,
    spec: BundleSpec,
    cache: Path,
    *,
    skip_bad_cases: bool = False,
    listeners: Sequence[Listener] = (),
) -> Folds:
    """Find, check and preprocess the cases; return the folds that hold usable ones.

    Args:
        data: The data folder, or the cases that were found in it.
        spec: The bundle.
        cache: The folder in which preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    usable, cached = _prepare_cases(data, spec, cache, skip_bad_cases, listeners)
    folds = assign_folds(usable, spec.data)
    numbers = sorted(set(folds))
    if len(numbers) < 2:
        raise DatasetError(f"all {len(usable)} usable cases are in one fold; list at least two")
    content_hash = _hash_contents([cached[case.name] for case in usable], folds)
    return Folds(tuple(numbers), content_hash)


def _prepare_cases(
    data: Path | CaseList,
    spec: BundleSpec,
    cache: Path,
    skip_bad_cases: bool,
    listeners: Sequence[Listener],
) -> tuple[list[Case], dict[str, CachedCase]]:
    """Return the cases without a fault, and each by its name as the cache holds it."""
    found = data if isinstance(data, CaseList) else find_cases(data, spec)
    entries = {case.name: cache / make_entry_key(case, spec) for case in found.cases}
    unread = tuple(case for case in found.cases if not is_entry(entries[case.name]))
    preprocess = Preprocessing(spec, with_label=True)
    ignored = spec.label_set.ignore_index

    def keep(case: Case, volume: Volume, label: Indices) -> None:
        write_entry(entries[case.name], case, volume, label, preprocess, ignored)

    to_check = CaseList(unread, found.faults, found.warnings)
    checked = check_cases(to_check, spec, listeners, handle_case=keep)
    _report_faults(checked.faults, skip_bad_cases, listeners)
    cached = {name: read_entry(entry) for name, entry in entries.items() if is_entry(entry)}
    present: set[int] = set()
    for case in cached.values():
        present.update(case.foreground)
    for warning in (*checked.warnings, *describe_absent_labels(present, spec)):
        notify(listeners, Notice(warning))
    usable = [case for case in found.cases if case.name in cached]
    return usable, cached


def _report_faults(
    faults: Sequence[Fault], skip_bad_cases: bool, listeners: Sequence[Listener]
) -> None:
    if faults and not skip_bad_cases:
        noun = "case" if len(faults) == 1 else "cases"
        raise DatasetError(
            f"{len(faults)} bad {noun} in the data; fix them, or pass --skip-bad-cases:", faults
        )
    for fault in faults:
        notify(listeners, Notice(f"left out: {fault}"))


def _hash_contents(cases: Sequence[CachedCase], folds: Sequence[int]) -> str:
    """Return a hash of what is learned from and what is held out; names have no part in it.

    Args:
        cases: All usable cases.
        folds: The fold of each, or nothing where all are trained on.
    """
    parts = [f"{case.case_id} {case.label_id}" for case in cases]
    if folds:
        parts = [f"{part} {fold}" for part, fold in zip(parts, folds, strict=True)]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:_HASH_DIGITS]
