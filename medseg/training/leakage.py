"""Which cases a bundle has learned from: measured on those, it would seem better than it is.

A case is known again by the hash of its image files' bytes. A copy in another format, and another
scan of the same patient, are not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_file
from medseg.datasets.cache import CachedCase
from medseg.layouts.dataset_json import find_listing
from medseg.training.lineage import Lineage
from medseg.training.report import LEARNED_FROM, UNKNOWN_CASES
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
    hash.
    """
    origin = bundle.trained.origin
    listing = find_listing(data)
    if origin is None or not listing.is_file():
        return False
    known = set(origin.files.values())
    return not known.isdisjoint(_hash_json(listing))


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
