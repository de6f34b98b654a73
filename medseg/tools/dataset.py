"""The cases of a training: found, checked, preprocessed and split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medseg.tools.cases import Case, find_cases, split
from medseg.tools.inspection import open_case
from medseg.tools.preprocessed import PreprocessedCase, prepare
from medseg.words.config import BundleSpec
from medseg.words.errors import DatasetError, Fault, ScanError
from medseg.words.events import Listener, Progress, Warned, tell


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of a run, preprocessed.

    Attributes:
        training: To learn from.
        validation: To score on.
        held_back: The same validation cases as they lie on disk.
        fingerprint: Hash of the content of all.
    """

    training: Sequence[PreprocessedCase]
    validation: Sequence[PreprocessedCase]
    held_back: Sequence[Case]
    fingerprint: str


def open_dataset(
    root: Path,
    spec: BundleSpec,
    fold: int | None,
    cache: Path,
    *,
    skip_bad_cases: bool = False,
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Find, check, preprocess and split the cases; an unchanged case is read once and for all.

    Args:
        root: The data folder.
        spec: The bundle.
        fold: The fold to hold back; ``None`` holds back none.
        cache: Where preprocessed cases are kept.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or too few are left.
        OutputError: If the cache cannot be written.
    """
    found = find_cases(root, spec)
    for warning in found.warnings:
        tell(listeners, Warned(warning))
    faults = list(found.faults)
    ready: dict[str, PreprocessedCase] = {}
    attempt = partial(_try_to_prepare, spec=spec, cache=cache)
    tell(listeners, Progress("preparing cases", 0, len(found.cases)))
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, (case, result) in enumerate(
            zip(found.cases, pool.map(attempt, found.cases), strict=True), start=1
        ):
            if isinstance(result, Fault):
                faults.append(result)
            else:
                ready[case.name] = result
            tell(listeners, Progress("preparing cases", done, len(found.cases)))
    _report_faults(faults, skip_bad_cases, listeners)
    usable = [case for case in found.cases if case.name in ready]
    training, validation = split(usable, spec.data, fold)
    return Dataset(
        [ready[case.name] for case in training],
        [ready[case.name] for case in validation],
        validation,
        _fingerprint(ready.values()),
    )


def _try_to_prepare(case: Case, spec: BundleSpec, cache: Path) -> PreprocessedCase | Fault:
    try:
        return prepare(case, cache, spec, partial(open_case, spec=spec))
    except ScanError as error:
        return Fault(case.name, str(error))


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
        tell(listeners, Warned(f"left out: {fault}"))


def _fingerprint(cases: Iterable[PreprocessedCase]) -> str:
    ids = sorted(case.case_id for case in cases)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
