"""The cases of a training: found, checked, preprocessed and split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a run, preprocessed.

    Attributes:
        training: To learn from.
        validation: To score on.
        held_out: The same validation cases as they lie on disk.
        fingerprint: Hash of the content of all, images and labels, and of how they are split.
    """

    training: Sequence[CachedCase]
    validation: Sequence[CachedCase]
    held_out: Sequence[Case]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds of a cross-validation.

    Attributes:
        numbers: Those that hold usable cases.
        fingerprint: Hash of the content of all cases, images and labels, and of their folds.
    """

    numbers: tuple[int, ...]
    fingerprint: str


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
        fold: The fold to hold back; ``None`` holds back none.
        cache: Where preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    usable, ready = _usable_cases(data, spec, cache, skip_bad_cases, listeners)
    training, validation = split_cases(usable, spec.data, fold)
    return Dataset(
        [ready[case.name] for case in training],
        [ready[case.name] for case in validation],
        validation,
        _fingerprint(usable, ready, () if fold is None else assign_folds(usable, spec.data)),
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
        cache: Where preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    usable, ready = _usable_cases(data, spec, cache, skip_bad_cases, listeners)
    fold_of = assign_folds(usable, spec.data)
    folds = sorted(set(fold_of))
    if len(folds) < 2:
        raise DatasetError(f"all {len(usable)} usable cases are in one fold; list at least two")
    return Folds(tuple(folds), _fingerprint(usable, ready, fold_of))


def _usable_cases(
    data: Path | CaseList,
    spec: BundleSpec,
    cache: Path,
    skip_bad_cases: bool,
    listeners: Sequence[Listener],
) -> tuple[list[Case], dict[str, CachedCase]]:
    """Return the cases without a fault, and each by its name as it was preprocessed."""
    found = data if isinstance(data, CaseList) else find_cases(data, spec)
    entries = {case.name: cache / make_entry_key(case, spec) for case in found.cases}
    unread = tuple(case for case in found.cases if not is_entry(entries[case.name]))
    chain = Preprocessing(spec, with_label=True)

    def keep(case: Case, volume: Volume, label: Indices) -> None:
        entry = entries[case.name]
        write_entry(entry, case, volume, label, chain, spec.label_set.ignore_index)

    checked = check_cases(
        CaseList(unread, found.faults, found.warnings), spec, listeners, keep=keep
    )
    _report_faults(checked.faults, skip_bad_cases, listeners)
    ready = {name: read_entry(entry) for name, entry in entries.items() if is_entry(entry)}
    present = {index for case in ready.values() for index in case.foreground}
    for warning in (*checked.warnings, *describe_absent_labels(present, spec)):
        notify(listeners, Notice(warning))
    usable = [case for case in found.cases if case.name in ready]
    return usable, ready


def _report_faults(
    faults: Sequence[Fault], skip_bad_cases: bool, listeners: Sequence[Listener]
) -> None:
    if faults and not skip_bad_cases:
        raise DatasetError(
            f"{len(faults)} bad case{'s' * (len(faults) > 1)} in the data; mend them, or go on "
            "without them by --skip-bad-cases:",
            faults,
        )
    for fault in faults:
        notify(listeners, Notice(f"left out: {fault}"))


def _fingerprint(
    cases: Sequence[Case], ready: Mapping[str, CachedCase], folds: Sequence[int]
) -> str:
    """Return a hash of what is learned from and what is held back; names have no part in it."""
    kept = [ready[case.name] for case in cases]
    parts = [f"{one.case_id} {one.label_id}" for one in kept]
    if folds:
        parts = [f"{part} {fold}" for part, fold in zip(parts, folds, strict=True)]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
