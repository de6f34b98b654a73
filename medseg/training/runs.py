"""A training as it was asked for: a new one, or one to go on with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medseg.bundle.bundle import (
    Bundle,
    differences,
    load_bundle,
    parse_spec,
    spec_json,
    write_bundle,
)
from medseg.bundle.spec import FITTED, BundleSpec
from medseg.errors import BundleError, CheckpointError, Fault
from medseg.training.lineage import Lineage, read_lineage
from medseg.training.run_folder import RunFolder

RUNS = Path("runs")
"""Where runs go unless the user says otherwise."""
FOLDS = "folds"
"""Where in its folder a cross-validation has the runs of its folds."""
ALL: Literal["all"] = "all"
"""Stands for the fold of a cross-validation."""

FINGERPRINT = "data_fingerprint"
"""What a run notes of its data when it begins."""
_BUNDLE = "bundle"

Fold = int | Literal["all"] | None
"""The fold held back; ``all`` holds back each in turn, ``None`` holds back none."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training, as it was asked for.

    Attributes:
        folder: The run folder.
        spec: The resolved bundle.
        data: The data folder.
        fold: The fold held back; ``None`` trains on every case, ``all`` on each fold's rest.
        run_id: Names it for good.
        lineage: The trained bundle it started from, if any.
        whole: The folder of the cross-validation that this is a fold of.
    """

    folder: RunFolder
    spec: BundleSpec
    data: Path
    fold: Fold
    run_id: str
    lineage: Lineage | None = None
    whole: Path | None = None

    @property
    def home(self) -> Path:
        """Where runs, their MLflow store and preprocessed cases live side by side."""
        folder = (self.whole or self.folder.path).absolute()
        return RUNS.absolute() if RUNS.absolute() in folder.parents else folder.parent


def plan_run(
    asked: Bundle,
    data: Path | None,
    out: Path | None,
    fold: Fold,
    lineage: Lineage | None = None,
) -> TrainingRun:
    """Plan a run in a new or empty folder; nothing is written yet.

    Args:
        asked: The bundle to train.
        data: The data folder; the bundle's own unless given.
        out: The run folder; ``runs/<name>/<time>-fold<K>`` unless given.
        fold: The fold to hold back.
        lineage: The trained bundle to start from.

    Raises:
        OutputError: If the folder holds something already.
    """
    stamp = datetime.now(tz=UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    part = "all" if fold is None else FOLDS if fold == ALL else f"fold{fold}"
    folder = RunFolder(out or RUNS / asked.spec.name / f"{stamp}-{part}")
    folder.require_empty()
    return TrainingRun(folder, asked.spec, data or asked.data_root, fold, uuid.uuid4().hex, lineage)


def find_resumable_run(asked: Bundle, data: Path | None, out: Path | None) -> TrainingRun:
    """Find a run to go on with.

    Args:
        asked: The bundle, which must be the one the run began with.
        data: The data folder, where it has moved since.
        out: The run folder; the newest unfinished run of this bundle unless given.

    Raises:
        CheckpointError: If there is no run to resume.
        BundleError: If the bundle has changed; every change is named.
    """
    folder = RunFolder(out or _newest_unfinished(asked.spec.name))
    facts = folder.read_info()
    spec = _spec_of(folder, facts)
    changed = differences(spec, _as_fitted(asked.spec, spec))
    if changed:
        raise BundleError(
            f"the run in {folder.path} began with another bundle, and going on would mix two; "
            "resume with the same bundle and --set, or start a new run. What changed:",
            [Fault(*change.split(": ", 1)) for change in changed],
        )
    place = data or Path(facts["data"])
    return TrainingRun(folder, spec, place, facts["fold"], facts["run_id"], read_lineage(facts))


def _spec_of(folder: RunFolder, facts: Mapping[str, Any]) -> BundleSpec:
    """Return the bundle of a run that began, with what its time budget decided since.

    Raises:
        BundleError: If it was changed by hand: networks and schedules would be of two bundles.
    """
    spec = load_bundle(folder.bundle).spec
    began = facts.get(_BUNDLE)
    if began is None:  # as earlier versions began one
        return spec
    changed = differences(_as_fitted(parse_spec(began, str(folder.run)), spec), spec)
    if changed:
        raise BundleError(
            f"{folder.bundle} was changed after its run began, and going on would mix two; change "
            "it back, or start a new run. What changed:",
            [Fault(*change.split(": ", 1)) for change in changed],
        )
    return spec


def _as_fitted(asked: BundleSpec, began: BundleSpec) -> BundleSpec:
    """Return a bundle with what the time budget of its run decided when that began."""
    budget = began.training.budget_minutes
    if budget is None or asked.training.budget_minutes != budget:
        return asked
    fitted = {field: getattr(began.training, field) for field in FITTED}
    copies = min(asked.quality.corrupted_copies, began.quality.corrupted_copies)
    training = asked.training.model_copy(update=fitted)
    quality = asked.quality.model_copy(update={"corrupted_copies": copies})
    return asked.model_copy(update={"training": training, "quality": quality})


def _newest_unfinished(name: str) -> Path:
    runs = [RunFolder(path) for path in sorted((RUNS / name).glob("*"))]
    unfinished = [run.path for run in runs if run.has_begun and not run.is_finished]
    if not unfinished:
        raise CheckpointError(
            f"{RUNS / name} holds no unfinished run to resume; name its folder with --out, or "
            "start a run without --resume"
        )
    return unfinished[-1]


def open_fold_run(whole: TrainingRun, fold: int) -> TrainingRun:
    """Return the run of one fold of a cross-validation, new or begun before.

    One that began keeps its own bundle: a time budget has set its steps.
    """
    folder = RunFolder(whole.folder.path / FOLDS / f"fold_{fold}")
    spec, run_id = whole.spec, uuid.uuid4().hex
    if folder.has_begun:
        facts = folder.read_info()
        spec, run_id = _spec_of(folder, facts), facts["run_id"]
    return TrainingRun(
        folder, spec, whole.data, fold, run_id, whole.lineage, whole=whole.folder.path
    )


def require_same_cases(run: TrainingRun, fingerprint: str) -> None:
    """Make sure that a run goes on with the cases it began with.

    Args:
        run: One that is gone on with.
        fingerprint: Hash of the data that was found now.

    Raises:
        CheckpointError: If cases were added, removed or changed, or are split otherwise: cases
            would be scored by networks that have learned from them.
    """
    began = run.folder.read_info().get(FINGERPRINT)
    if began is not None and began != fingerprint:
        raise CheckpointError(
            f"the run in {run.folder.path} began with other cases, labels or folds than there are "
            "now, and going on would mix two, or score cases that it has learned from; bring the "
            "data back to what it was, or start a new run"
        )


def begin_run(run: TrainingRun, fingerprint: str | None = None) -> None:
    """Make the run folder, with the resolved bundle and what a resume needs to know.

    Args:
        run: A new one.
        fingerprint: Hash of its data, where that is known.
    """
    facts: dict[str, Any] = {"run_id": run.run_id, "data": str(run.data), "fold": run.fold}
    facts[_BUNDLE] = json.loads(spec_json(run.spec))
    if fingerprint is not None:
        facts[FINGERPRINT] = fingerprint
    if run.lineage is not None:
        facts["from"] = asdict(run.lineage)
    write_bundle(run.spec, run.folder.bundle)
    run.folder.write_info(facts)  # last: where it stands, the run can be resumed
