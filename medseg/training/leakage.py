"""Which cases a bundle has learned from: measured on those, it would seem better than it is.

A case is known again by the hash of its image files' bytes. A copy in another format, and another
scan of the same patient, are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.bundle.bundle import TRAINED_FILE, Bundle
from medseg.bundle.hashes import hash_file
from medseg.datasets.cache import CachedCase
from medseg.datasets.dataset import Dataset
from medseg.layouts.dataset_json import LISTING, find_listing
from medseg.training.lineage import Lineage
from medseg.training.report import (
    LEARNED_DATA_SETS,
    LEARNED_FROM,
    UNKNOWN_CASES,
)
from medseg.training.run_folder import RunFolder

_NO_RECORD = (
    "the bundle keeps no record of the cases that it learned from; what is said of its results "
    "holds only if none of these cases is one of them"
)
_NO_RECORD_OF_OTHERS = (
    "the bundle began with weights of another one that keeps no record of the cases that it "
    "learned from; what is said of its results holds only if none of these cases is one of them"
)


@dataclass(frozen=True, slots=True)
class LearnedCases:
    """Which of some cases a bundle has learned from.

    Attributes:
        learned: Their ids.
        held_out: Ids of those that it was validated on when it was trained.
        remark: What a person should know; empty if everything is known.
    """

    learned: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()
    remark: str = ""


def list_learned_cases(
    training: Iterable[CachedCase], lineage: Lineage | None
) -> tuple[str, ...]:
    """Return the ids of the cases that a run learns from, those of its parent among them.

    ``UNKNOWN_CASES`` is among them where the parent has no record of its own.
    """
    ids = {case.case_id for case in training}
    if lineage is not None:
        parent = _read_metrics(Path(lineage.place))
        recorded = _list_texts(parent, LEARNED_FROM)
        ids.update(recorded or [UNKNOWN_CASES])
    return tuple(sorted(ids))


def list_learned_data_sets(lineage: Lineage | None) -> tuple[str, ...]:
    """Return hashes of the ``dataset.json`` of data sets that a run's parent learned from."""
    if lineage is None:
        return ()
    return tuple(sorted(_list_data_sets(Path(lineage.place))))


def count_known_to_parent(
    dataset: Dataset, lineage: Lineage | None, data: Path
) -> int:
    """Count the held-out cases that a run's parent is known to have learned from.

    Args:
        dataset: The cases of the run.
        lineage: Its parent, if it has one.
        data: Where the cases lie.
    """
    if lineage is None:
        return 0
    parent = Path(lineage.place)
    held_out = {case.case_id for case in dataset.validation}
    stated = count_stated_cases(data)
    total = len(dataset.training) + len(dataset.validation)
    if _is_stated(data, parent) and stated in (None, total):
        return len(held_out)
    learned = held_out & _list_texts(_read_metrics(parent), LEARNED_FROM)
    return len(learned)


def explain_known_to_parent(count: int) -> str:
    """Say what it means that a run's parent had learned from some of its held-out cases."""
    return (
        f"the weights that this training began with had learned from {count} of the held-out "
        "cases, so scores and estimates of quality are better than they will be for new scans"
    )


def join_learned_cases(folds: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return the ids of the cases that any network of a cross-validation learned from.

    Args:
        folds: Those of each; none of a fold that release 0.1.0 trained, which has no record.
    """
    learned: set[str] = set()
    for recorded in folds:
        learned.update(recorded or [UNKNOWN_CASES])
    return tuple(sorted(learned))


def find_learned_cases(bundle: Bundle, ids: Sequence[str]) -> LearnedCases:
    """Find the cases that a bundle has learned from, by what its training wrote.

    Bundles of release 0.1.0 say only which cases were held out. If some of those are here, the
    others are of the same data set, and count as learned from.

    Args:
        bundle: A trained bundle.
        ids: Of the cases, as ``hash_content`` makes them.
    """
    metrics = _read_metrics(bundle.folder)
    given = frozenset(ids)
    validated = given & _list_validated(metrics)
    recorded = _list_texts(metrics, LEARNED_FROM)
    if UNKNOWN_CASES in recorded:
        learned = given & recorded
        if "folds" in metrics:
            learned |= validated
        return LearnedCases(learned, validated - learned, _NO_RECORD_OF_OTHERS)
    if recorded:
        learned = given & recorded
        return LearnedCases(learned, validated - learned)
    if "folds" in metrics:  # each was held out once, and learned from otherwise
        return LearnedCases(validated, remark=_NO_RECORD)
    learned = given - validated if validated else frozenset()
    return LearnedCases(learned, validated, _NO_RECORD)


def states_training_set(bundle: Bundle, data: Path) -> bool:
    """Tell whether a data set is stated to be the one that an imported model was trained on.

    nnU-Net keeps a copy of the data set's ``dataset.json`` with the model; an import keeps its
    hash, and so does what was trained from the import.
    """
    return _is_stated(data, bundle.folder)


def _is_stated(data: Path, bundle: Path) -> bool:
    listing = find_listing(data)
    if not listing.is_file():
        return False
    return not _list_data_sets(bundle).isdisjoint(_hash_json(listing))


def _list_data_sets(bundle: Path) -> set[str]:
    """Return hashes of the ``dataset.json`` that a bundle's folder knows of its training."""
    known = set(_list_texts(_read_metrics(bundle), LEARNED_DATA_SETS))
    origin = _read_json(bundle / TRAINED_FILE).get("origin")
    files = origin.get("files") if isinstance(origin, dict) else None
    for name, digest in (files if isinstance(files, dict) else {}).items():
        if PurePosixPath(name).name == LISTING:
            known.add(str(digest))
    return known


def count_stated_cases(data: Path) -> int | None:
    """Return how many training cases the ``dataset.json`` of a folder states."""
    content = _read_json(find_listing(data))
    count = content.get("numTraining")
    return count if isinstance(count, int) else None


def _hash_json(file: Path) -> set[str]:
    """Return hashes of a JSON file: as it is, and as nnU-Net would write it."""
    text = json.dumps(_read_json(file), indent=4)
    rewritten = hashlib.sha256(text.encode()).hexdigest()
    return {hash_file(file), rewritten}


def _read_metrics(folder: Path) -> Mapping[str, Any]:
    return _read_json(RunFolder(folder).metrics)


def _read_json(file: Path) -> Mapping[str, Any]:
    """Return the object in a file; nothing where it is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _list_texts(content: Mapping[str, Any], key: str) -> frozenset[str]:
    values = content.get(key)
    if not isinstance(values, list):
        return frozenset()
    return frozenset(map(str, values))


def _list_validated(metrics: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of the cases that were held out."""
    cases = metrics.get("cases")
    if not isinstance(cases, list):
        return frozenset()
    ids = [case.get("case") for case in cases if isinstance(case, dict)]
    return frozenset(map(str, ids))
