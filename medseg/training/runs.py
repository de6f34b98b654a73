"""A training run as it was requested: a new one, or one to resume."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medseg.bundle.bundle import Bundle, load_bundle, parse_spec
from medseg.bundle.spec import FITTED, BundleSpec
from medseg.bundle.spec_files import format_spec, list_differences, write_bundle
from medseg.errors import BundleError, CheckpointError, Fault
from medseg.training.lineage import Lineage, read_lineage
from medseg.training.run_folder import RunFolder

RUNS = Path("runs")
"""Where runs go unless the user says otherwise."""
FOLDS = "folds"
"""Where in its folder a cross-validation has the runs of its folds."""
ALL: Literal["all"] = "all"
"""Stands for the fold of a cross-validation."""

Fold = int | Literal["all"] | None
"""The held-out fold; ``all`` holds out each in turn, ``None`` holds out none."""

_FINGERPRINT = "data_fingerprint"
"""Key of the data's fingerprint in ``run.json``."""
_BUNDLE = "bundle"
"""Key of the bundle that a run began with."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training run, as it was requested.

    Attributes:
        folder: The run folder.
        spec: The resolved bundle.
        data: The data folder.
        fold: The held-out fold; ``None`` trains on every case, ``all`` on each fold's rest.
        run_id: Identifies the run, across resumes.
        lineage: The trained bundle whose weights it started from, if any.
        cross_validation: The folder of the cross-validation that this is a fold of, if any.
        cache_folder: Where this machine keeps preprocessed cases; beside the run folder unless
            given.
    """

    folder: RunFolder
    spec: BundleSpec
    data: Path
    fold: Fold
    run_id: str
    lineage: Lineage | None = None
    cross_validation: Path | None = None
    cache_folder: Path | None = None

    @property
    def home(self) -> Path:
        """The folder that holds runs, their MLflow store and the cache of cases side by side."""
        outermost = self.cross_validation or self.folder.path
        folder = outermost.absolute()
        default = RUNS.absolute()
        return default if default in folder.parents else folder.parent

    @property
    def cache(self) -> Path:
        """Where preprocessed cases are cached."""
        return self.cache_folder or self.home / "preprocessed"

    def adapt(self, data: Path | None, cache: str | Path | None) -> TrainingRun:
        """Return the run with where this machine has the data and keeps preprocessed cases.

        Args:
            data: The data folder, if it is not the run's.
            cache: The folder of preprocessed cases, if it is not the usual one.
        """
        own_cache = None if cache is None else Path(cache)
        return replace(self, data=data or self.data, cache_folder=own_cache)


def plan_run(
    bundle: Bundle,
    data: Path | None,
    out: Path | None,
    fold: Fold,
    lineage: Lineage | None = None,
) -> TrainingRun:
    """Plan a run in a new or empty folder; nothing is written yet.

    The usual folder is named after the time, and another run may have it: ``RunFolder.claim``.

    Args:
        bundle: The bundle to train.
        data: The data folder; the bundle's own unless given.
        out: The run folder; ``runs/<name>/<time>-fold<K>`` unless given.
        fold: The fold to hold out.
        lineage: The trained bundle to start from.

    Raises:
        BundleError: If every fold of an interactive bundle is asked for.
        OutputError: If the folder given is not empty.
    """
    if fold == ALL and bundle.spec.training.clicks is not None:
        what = (
            "an ensemble takes as many times as long to follow a click as it has networks; train "
            "one fold (--fold 0), or the ensemble without clicks"
        )
        fault = Fault("training.clicks", what)
        raise BundleError("no ensemble is trained for clicks", [fault])
    if out is None:
        folder = RunFolder(RUNS / bundle.spec.name / _default_name(fold))
    else:
        folder = RunFolder(out)
        folder.require_empty()
    return TrainingRun(
        folder=folder,
        spec=bundle.spec,
        data=data or bundle.data_root,
        fold=fold,
        run_id=uuid.uuid4().hex,
        lineage=lineage,
    )


def _default_name(fold: Fold) -> str:
    local_time = datetime.now(tz=UTC).astimezone()
    stamp = local_time.strftime("%Y%m%d-%H%M%S")
    # As the command line has it: --fold none, all or a number.
    name = "none" if fold is None else fold
    return f"{stamp}-fold{name}"


def find_resumable_run(
    bundle: Bundle, data: Path | None, out: Path | None
) -> TrainingRun:
    """Find a run to resume.

    Args:
        bundle: The bundle, which must be the one the run began with.
        data: The data folder, where it has moved since.
        out: The run folder; the newest unfinished run of this bundle unless given.

    Raises:
        CheckpointError: If there is no run to resume.
        BundleError: If the bundle has changed; every change is named.
    """
    folder = RunFolder(out or _newest_unfinished(bundle.spec.name))
    info = folder.read_info()
    spec = _read_spec(folder, info)
    changes = list_differences(spec, _apply_fitted(bundle.spec, spec))
    if changes:
        raise BundleError(
            "the run began with another bundle, and resuming would mix the two; resume with the "
            "same bundle and --set, or start a new run. What changed:",
            _faults(changes),
            source=folder.path,
        )
    return TrainingRun(
        folder=folder,
        spec=spec,
        data=data or Path(info["data"]),
        fold=info["fold"],
        run_id=info["run_id"],
        lineage=read_lineage(info),
    )


def _read_spec(folder: RunFolder, info: Mapping[str, Any]) -> BundleSpec:
    """Return the bundle of a run that began, with what its time budget decided since.

    Raises:
        BundleError: If it was edited: networks and schedules of two bundles would be mixed.
    """
    restore_bundle(folder)
    began_with = info.get(_BUNDLE)
    spec = load_bundle(folder.bundle).spec
    if began_with is None:  # written by a version that did not note it
        return spec
    original = parse_spec(began_with, "the bundle in run.json")
    changes = list_differences(_apply_fitted(original, spec), spec)
    if changes:
        raise BundleError(
            "bundle.json was edited after its run began, and resuming would mix the two; undo "
            "the change, or start a new run. What changed:",
            _faults(changes),
            source=folder.bundle,
        )
    return spec


def restore_bundle(folder: RunFolder) -> None:
    """Write the bundle of a run that was killed before it had one; else do nothing.

    Raises:
        CheckpointError: If ``run.json`` is damaged.
        BundleError: If the bundle in it is.
    """
    if not folder.was_killed_at_birth:
        return
    began_with = folder.read_info().get(_BUNDLE)
    if began_with is not None:
        original = parse_spec(began_with, "the bundle in run.json")
        write_bundle(original, folder.bundle)


def _faults(changes: Sequence[str]) -> list[Fault]:
    """Turn ``field: a → b`` into faults."""
    faults = []
    for change in changes:
        field, values = change.split(": ", 1)
        faults.append(Fault(field, values))
    return faults


def _apply_fitted(spec: BundleSpec, fitted: BundleSpec) -> BundleSpec:
    """Return a bundle with the fields that the time budget of its run decided.

    Args:
        spec: The bundle as it was requested.
        fitted: The bundle of the run.
    """
    budget = fitted.training.budget_minutes
    if budget is None or spec.training.budget_minutes != budget:
        return spec
    schedule = {field: getattr(fitted.training, field) for field in FITTED}
    copies = min(spec.quality.corrupted_copies, fitted.quality.corrupted_copies)
    training = spec.training.model_copy(update=schedule)
    quality = spec.quality.model_copy(update={"corrupted_copies": copies})
    return spec.model_copy(update={"training": training, "quality": quality})


def _newest_unfinished(name: str) -> Path:
    parent = RUNS / name
    for path in sorted(parent.glob("*"), reverse=True):
        folder = RunFolder(path)
        if folder.has_begun and not folder.is_finished:
            return path
    raise CheckpointError(
        "there is no unfinished run of this bundle to resume; name its folder with --out, or "
        "start a run without --resume",
        source=parent,
    )


def get_fold_folder(whole: TrainingRun, fold: int) -> RunFolder:
    """Return where a cross-validation has the run of one fold."""
    return RunFolder(whole.folder.path / FOLDS / f"fold_{fold}")


def open_fold_run(whole: TrainingRun, fold: int) -> TrainingRun:
    """Return the run of one fold of a cross-validation, new or begun before.

    One that began keeps its own bundle, because a time budget may have set its steps.
    """
    folder = get_fold_folder(whole, fold)
    spec = whole.spec
    run_id = uuid.uuid4().hex
    if folder.has_begun:
        info = folder.read_info()
        spec = _read_spec(folder, info)
        run_id = info["run_id"]
    return TrainingRun(
        folder=folder,
        spec=spec,
        data=whole.data,
        fold=fold,
        run_id=run_id,
        lineage=whole.lineage,
        cross_validation=whole.folder.path,
        cache_folder=whole.cache_folder,
    )


def require_same_cases(folder: RunFolder, fingerprint: str) -> None:
    """Make sure that a run resumes with the cases it began with.

    Args:
        folder: Of a run that began before.
        fingerprint: Hash of the data as it is now.

    Raises:
        CheckpointError: If cases were added, removed or changed, or are split otherwise: networks
            would be scored on cases they have learned from.
    """
    began_with = folder.read_info().get(_FINGERPRINT)
    if began_with is not None and began_with != fingerprint:
        raise CheckpointError(
            "the run began with other cases, labels or folds than there are now, and resuming "
            "would mix the two or score cases that it has learned from; restore the data, or "
            "start a new run",
            source=folder.path,
        )


def begin_run(run: TrainingRun, fingerprint: str | None = None) -> None:
    """Make the run folder, with the resolved bundle and what a resume needs to know.

    Args:
        run: A new run.
        fingerprint: Hash of its data, where that is known.
    """
    info: dict[str, Any] = {
        "run_id": run.run_id,
        "data": str(run.data),
        "fold": run.fold,
        _BUNDLE: json.loads(format_spec(run.spec)),
    }
    if fingerprint is not None:
        info[_FINGERPRINT] = fingerprint
    if run.lineage is not None:
        info["from"] = asdict(run.lineage)
    # First, and in one step: where it stands, the run can be resumed.
    run.folder.write_info(info)
    write_bundle(run.spec, run.folder.bundle)
