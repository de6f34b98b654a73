"""The cases of a training run: found, checked, cached and split."""

from __future__ import annotations

import hashlib
from collections.abc import (
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medseg._support.cluster_nodes import await_sight
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import (
    CachedCase,
    is_entry,
    make_entry_key,
    read_entry,
    write_entry,
)
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.case_workers import HERE, CaseWorkers
from medseg.datasets.cases import Case, CaseList, find_cases
from medseg.datasets.folds import assign_folds, split_cases
from medseg.datasets.integrity import (
    check_cases,
    describe_absent_labels,
    warn_of_outliers,
)
from medseg.datasets.label_encoding import Indices
from medseg.datasets.measures import CaseMeasures
from medseg.datasets.statements import find_standing
from medseg.errors import DatasetError, Fault, OutputError, join_faults
from medseg.events import Listener, Notice, notify
from medseg.preprocessing.case_input import Preprocessing
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

    @property
    def measures(self) -> list[CaseMeasures]:
        """What was measured of every case."""
        cases = (*self.training, *self.validation)
        measures = [case.measures for case in cases]
        return [each for each in measures if each is not None]


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
    trust_values: bool = False,
    workers: CaseWorkers = HERE,
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Find, check, preprocess and split the cases; an unchanged case is read once and for all.

    Args:
        data: The data folder, or the cases that were found in it.
        spec: The bundle.
        fold: The fold to hold out; ``None`` holds out none.
        cache: The folder in which preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        trust_values: Whether the bundle counts, whatever the data set calls its values and
            channels.
        workers: Who checks and preprocesses cases that the cache does not hold yet.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    if not isinstance(data, CaseList):
        data = find_cases(data, spec, trust_values=trust_values)
    cases = _prepare_cases(
        data, spec, cache, skip_bad_cases, workers, listeners
    )
    training, validation = split_cases(cases.usable, spec.data, fold)
    folds: tuple[int, ...] = ()
    if fold is not None:
        folds = assign_folds(cases.usable, spec.data)
    return Dataset(
        training=cases.look_up(training),
        validation=cases.look_up(validation),
        held_out=validation,
        content_hash=cases.hash_contents(folds),
    )


def find_folds(
    data: Path | CaseList,
    spec: BundleSpec,
    cache: Path,
    *,
    skip_bad_cases: bool = False,
    trust_values: bool = False,
    workers: CaseWorkers = HERE,
    listeners: Sequence[Listener] = (),
) -> Folds:
    """Find, check and preprocess the cases; return the folds that hold usable ones.

    Args:
        data: The data folder, or the cases that were found in it.
        spec: The bundle.
        cache: The folder in which preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        trust_values: Whether the bundle counts, whatever the data set calls its values and
            channels.
        workers: Who checks and preprocesses cases that the cache does not hold yet.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    if not isinstance(data, CaseList):
        data = find_cases(data, spec, trust_values=trust_values)
    cases = _prepare_cases(
        data, spec, cache, skip_bad_cases, workers, listeners
    )
    folds = assign_folds(cases.usable, spec.data)
    numbers = sorted(set(folds))
    if len(numbers) < 2:
        count = len(cases.usable)
        raise DatasetError(
            f"all {count} usable cases are in one fold; list at least two"
        )
    return Folds(tuple(numbers), cases.hash_contents(folds))


@dataclass(frozen=True, slots=True)
class _PreparedCases:
    """The cases without a fault.

    Attributes:
        usable: The cases, in the order in which they were found.
        cached: Each by its name, as the cache holds it.
    """

    usable: Sequence[Case]
    cached: Mapping[str, CachedCase]

    def look_up(self, cases: Sequence[Case]) -> list[CachedCase]:
        """Return some cases as the cache holds them."""
        return [self.cached[case.name] for case in cases]

    def hash_contents(self, folds: Sequence[int]) -> str:
        """Return a hash of what is learned from and what is held out, whatever its names.

        Args:
            folds: The fold of each usable case, or nothing where all are trained on.
        """
        parts = []
        for number, case in enumerate(self.look_up(self.usable)):
            part = f"{case.case_id} {case.label_id}"
            if folds:
                part += f" {folds[number]}"
            parts.append(part)
        text = "\n".join(sorted(parts))
        digest = hashlib.sha256(text.encode())
        return digest.hexdigest()[:_HASH_DIGITS]


def _prepare_cases(
    found: CaseList,
    spec: BundleSpec,
    cache: Path,
    skip_bad_cases: bool,
    workers: CaseWorkers,
    listeners: Sequence[Listener],
) -> _PreparedCases:
    """Check and preprocess what the cache does not hold yet.

    Raises:
        DatasetError: If cases are bad and not to be skipped, or the data set and the bundle
            contradict each other.
        OutputError: If the cache cannot be written.
    """
    # What no file can settle is said before cases are read.
    every_index = range(1, len(spec.labels) + 1)
    refuse_contradictions(found, every_index)
    entries: dict[str, Path] = {}
    unread = []
    for case in found.cases:
        entry = cache / make_entry_key(case, spec)
        entries[case.name] = entry
        if not is_entry(entry):
            unread.append(case)
    to_check = CaseList(tuple(unread), found.faults, found.warnings)
    keep = _Keeper(cache.absolute(), spec)
    checked = check_cases(to_check, spec, listeners, keep, workers)
    _require_entries(entries[case.name] for case in checked.good)
    faults = [fault for fault in checked.faults if not _is_kept(fault, entries)]
    report_faults(faults, skip_bad_cases, listeners)
    usable = []
    cached = {}
    present: set[int] = set()
    for case in found.cases:
        entry = entries[case.name]
        if is_entry(entry):
            usable.append(case)
            cached[case.name] = read_entry(entry)
            present.update(cached[case.name].foreground)
    refuse_contradictions(found, present)
    absent = describe_absent_labels(present, spec)
    known = _list_known_warnings(cached, checked.good)
    measures = {
        name: case.measures for name, case in cached.items() if case.measures
    }
    apart = warn_of_outliers(measures, spec)
    for warning in (*known, *checked.warnings, *apart, *absent):
        notify(listeners, Notice(warning))
    return _PreparedCases(usable, cached)


def _list_known_warnings(
    cached: Mapping[str, CachedCase], told: Sequence[Case]
) -> Iterator[str]:
    """Yield what was odd about cases when they were read, but for those that were told of now."""
    read_now = {case.name for case in told}
    known = {
        name: case.warnings
        for name, case in cached.items()
        if name not in read_now
    }
    yield from list_warnings(known, len(known))


def _is_kept(fault: Fault, entries: Mapping[str, Path]) -> bool:
    """Tell whether a case is in the cache, whole: only then did its process die."""
    entry = entries.get(fault.where)
    return entry is not None and is_entry(entry)


class _Keeper:
    """Preprocesses a case and keeps it in its entry of the cache; other processes can be given it.

    Args:
        cache: The folder in which preprocessed cases are kept.
        spec: The bundle.
    """

    def __init__(self, cache: Path, spec: BundleSpec) -> None:
        self._cache = cache
        self._spec = spec
        self._preprocess = Preprocessing(spec, with_label=True)

    def __reduce__(self) -> tuple[type[_Keeper], tuple[Path, BundleSpec]]:
        return _Keeper, (self._cache, self._spec)

    def __call__(
        self, case: Case, volume: Volume, label: Indices, measures: CaseMeasures
    ) -> None:
        """Keep one case."""
        entry = self._cache / make_entry_key(case, self._spec)
        ignored = self._spec.label_set.ignore_index
        write_entry(
            entry, case, volume, label, measures, self._preprocess, ignored
        )


def _require_entries(entries: Iterable[Path]) -> None:
    """Make sure that this process sees what others have put into the cache.

    Raises:
        OutputError: If it does not.
    """
    for entry in entries:
        if not await_sight(partial(is_entry, entry)):
            raise OutputError(
                "a case that was just preprocessed is not in the cache: its files were changed "
                "meanwhile, or a node of the cluster does not see data and cache as this machine "
                "does; put --cache on a disk that all nodes share, and the data at the same path",
                source=entry.parent,
            )


def refuse_contradictions(found: CaseList, present: Collection[int]) -> None:
    """Refuse a data set that says something else than the bundle.

    Args:
        found: Its cases.
        present: Indices of the labels that its label files hold.

    Raises:
        DatasetError: Names everything.
    """
    standing = find_standing(found.contradictions, present)
    if standing:
        raise DatasetError(
            "the data set and the bundle contradict each other:", standing
        )


def report_faults(
    faults: Sequence[Fault], skip_bad_cases: bool, listeners: Sequence[Listener]
) -> None:
    """Refuse bad cases, or say that they are left out.

    Raises:
        DatasetError: If they are not to be skipped.
    """
    if faults and not skip_bad_cases:
        noun = "case" if len(faults) == 1 else "cases"
        raise DatasetError(
            f"{len(faults)} bad {noun} in the data; fix them, or pass --skip-bad-cases:",
            faults,
        )
    for line in join_faults(faults):
        notify(listeners, Notice(f"left out: {line}"))
