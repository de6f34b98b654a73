"""``medseg train --fold all``: every fold trained, and one bundle made of them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg._support.files import atomic_file
from medseg.bundle.bundle import MODELS
from medseg.bundle.spec import BundleSpec
from medseg.datasets.dataset import Folds
from medseg.errors import BundleError, Fault
from medseg.events import CrossValidationDone, Listener, RunStarted, notify
from medseg.metrics.statistics import compute_statistics
from medseg.networks.unet import network_definition
from medseg.training.distributed import ProcessGroup
from medseg.training.finish import Ending, finish
from medseg.training.fold_results import read_fold
from medseg.training.keep_largest import join_folds
from medseg.training.model_card import Facts, FoldFacts, cross_validation_rows
from medseg.training.refinement.stage import corrector_of
from medseg.training.runs import TrainingRun, begin_run, open_fold_run, require_same_cases


def refuse_refiner(spec: BundleSpec) -> None:
    """Make sure that the networks of all folds can be one bundle.

    Raises:
        BundleError: If it wants a refiner.
    """
    if corrector_of(spec) is not None:
        raise BundleError(
            "--fold all makes one bundle of all folds' networks, and a bundle holds one refiner",
            [Fault("refinement", 'train single folds, or set refinement to null or kind "joint"')],
        )


def train_folds(
    run: TrainingRun,
    folds: Folds,
    train_one: Callable[[TrainingRun], None],
    group: ProcessGroup,
    started: Callable[[str], RunStarted],
    listeners: Sequence[Listener],
) -> None:
    """Train the folds that are not finished, each an ordinary run, and make one bundle of all.

    Args:
        run: The cross-validation.
        folds: Their numbers, and which cases they are made of.
        train_one: Trains the run of one fold, or goes on with it.
        group: The processes that train together.
        started: From the data's fingerprint, the event that the bundle is being made.
        listeners: Told of the bundle; ``train_one`` has its own.

    Raises:
        CheckpointError: If it began with other cases.
    """
    if run.folder.has_begun:
        require_same_cases(run, folds.content_hash)
    elif group.is_main:
        begin_run(run, folds.content_hash)
    group.barrier()
    with run.folder.locked() if group.is_main else contextlib.nullcontext():
        runs = [open_fold_run(run, fold) for fold in folds.numbers]
        for one in runs:
            if not one.folder.is_finished:
                train_one(one)
        if group.is_main:
            _assemble(run, runs, folds.numbers, started, listeners)


def _assemble(
    run: TrainingRun,
    runs: Sequence[TrainingRun],
    folds: Sequence[int],
    started: Callable[[str], RunStarted],
    listeners: Sequence[Listener],
) -> None:
    """Make the folder a whole bundle of all folds' networks; ``metrics.json`` comes last."""
    folder, spec = run.folder, run.spec
    results = [read_fold(one.folder) for one in runs]
    event = started(results[0].fingerprint)
    notify(listeners, event)
    members = tuple(f"fold_{fold}.pt" for fold in folds)
    for one, member in zip(runs, members, strict=True):
        _copy(one.folder.weights, folder.path / MODELS / member)
    # For readers of MONAI Bundles that know one network only.
    _copy(runs[0].folder.weights, folder.weights)
    held_back = join_folds([result.held_back for result in results])
    finding = held_back.decide()
    ending = Ending(
        held_back=held_back,
        finding=finding,
        network=network_definition(spec, supervised=False),
        members=members,
    )
    scored = [result.held_back.finished(finding).cases for result in results]
    folded = [
        FoldFacts(fold, len(cases), result.best_step, compute_statistics(cases, ["dice"])["dice"])
        for fold, result, cases in zip(folds, results, scored, strict=True)
    ]
    facts = Facts(
        training_cases=sum(map(len, scored)),
        validation_cases=sum(map(len, scored)),
        fold=run.fold,
        best_step=max(result.best_step for result in results),
        fingerprint=results[0].fingerprint,
        provenance=event.provenance,
        lineage=run.lineage,
        folds=folded,
    )
    notify(listeners, CrossValidationDone(cross_validation_rows(folded)))
    finish(run, ending, facts, listeners)


def _copy(source: Path, target: Path) -> None:
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
