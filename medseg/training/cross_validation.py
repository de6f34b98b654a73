"""Cross-validation: every fold is trained, and one bundle is made of all their networks."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from medseg._support.files import atomic_file
from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import MODELS, Bundle
from medseg.datasets.dataset import Folds
from medseg.events import CrossValidationDone, Listener, notify
from medseg.metrics.statistics import compute_statistics
from medseg.training.distributed import ProcessGroup
from medseg.training.keep_largest import join_folds
from medseg.training.leakage import join_learned_cases
from medseg.training.model_card import cross_validation_rows
from medseg.training.report import FoldSummary, TrainingReport, read_report
from medseg.training.run_folder import RunFolder
from medseg.training.run_record import run_started
from medseg.training.runs import (
    TrainingRun,
    begin_run,
    open_fold_run,
    require_same_cases,
)
from medseg.training.trained_bundle import write_trained_bundle


def train_folds(
    run: TrainingRun,
    folds: Folds,
    train_each: Callable[[Sequence[TrainingRun]], None],
    assemble: Callable[[Sequence[TrainingRun]], None],
    group: ProcessGroup,
) -> None:
    """Train the folds that are not finished, each an ordinary run, and make one bundle of all.

    Args:
        run: The cross-validation.
        folds: The numbers of its folds, and a hash of its cases.
        train_each: Trains the runs of some folds, or resumes them.
        assemble: Makes one bundle of the finished runs of all folds.
        group: The processes that train together; the main one assembles.

    Raises:
        CheckpointError: If it began with other cases.
    """

    def begin() -> None:
        if run.folder.has_begun:
            require_same_cases(run.folder, folds.content_hash)
        else:
            begin_run(run, folds.content_hash)

    def open_runs() -> list[TrainingRun]:
        return [open_fold_run(run, fold) for fold in folds.numbers]

    group.ask_main(begin)
    with contextlib.ExitStack() as stack:
        if group.is_main:
            stack.enter_context(run.folder.locked())
        fold_runs = [
            fold_run.adapt(run.data, run.cache_folder)
            for fold_run in group.ask_main(open_runs)
        ]
        finished = [fold_run.folder.is_finished for fold_run in fold_runs]
        finished = group.broadcast(finished)
        unfinished = [
            fold_run
            for fold_run, is_finished in zip(fold_runs, finished, strict=True)
            if not is_finished
        ]
        train_each(unfinished)
        if group.is_main:
            assemble(fold_runs)


def assemble_folds(
    run: TrainingRun,
    fold_runs: Sequence[TrainingRun],
    device: torch.device | None,
    listeners: Sequence[Listener],
) -> None:
    """Make the folder of a cross-validation a bundle of all folds' networks.

    Args:
        run: The cross-validation.
        fold_runs: The finished runs of its folds.
        device: Where they were trained; ``None`` for other machines, as the first fold says.
        listeners: Notified that the bundle is made, of the scores, and that it is complete.

    Raises:
        CheckpointError: If the ``metrics.json`` of a fold is damaged.
        OutputError: If a file cannot be written.
    """
    reports = [read_report(fold_run.folder) for fold_run in fold_runs]
    first = fold_runs[0].folder
    report = _join_reports(run, reports, first, device)
    steps = run.spec.training.steps
    notify(listeners, run_started(run, report.provenance, steps))
    models = run.folder.path / MODELS
    members = []
    for fold_run in fold_runs:
        member = f"fold_{fold_run.fold}.pt"
        _copy_file(fold_run.folder.weights, models / member)
        members.append(member)
    # For readers of MONAI bundles that know one network only.
    _copy_file(models / members[0], run.folder.weights)
    notify(listeners, CrossValidationDone(cross_validation_rows(report.folds)))
    write_trained_bundle(run, report, listeners, tuple(members))


def _join_reports(
    run: TrainingRun,
    reports: Sequence[TrainingReport],
    first: RunFolder,
    device: torch.device | None,
) -> TrainingReport:
    """Make one report of those of all folds; every case is held out in one of them.

    Args:
        run: The cross-validation.
        reports: Of its folds.
        first: The folder of the first fold's run.
        device: Where they were trained; ``None`` for other machines.
    """
    held_out = join_folds([report.held_out for report in reports])
    finding = held_out.decide()
    summaries = []
    for report in reports:
        cases = report.held_out.postprocessed(finding).cases
        dice = compute_statistics(cases, ["dice"])["dice"]
        summary = FoldSummary(
            fold=report.fold,
            cases=len(cases),
            best_step=report.best_step,
            dice=dice,
        )
        summaries.append(summary)
    total = sum(summary.cases for summary in summaries)
    content_hash = reports[0].content_hash
    provenance = reports[0].provenance
    if device is not None:
        provenance = collect_provenance(device)
    # Each fold has measured all cases: those it learned from and those it held out.
    trained = Bundle(run.spec, first.path).trained
    return TrainingReport(
        fold=run.fold,
        training_cases=total,
        validation_cases=total,
        best_step=max(report.best_step for report in reports),
        content_hash=content_hash,
        provenance={**provenance, "data.fingerprint": content_hash},
        held_out=held_out,
        lineage=run.lineage,
        folds=summaries,
        validated=trained.validated,
        made_up=trained.made_up,
        learned_from=join_learned_cases(
            report.learned_from for report in reports
        ),
        learned_data_sets=reports[0].learned_data_sets,
        known_to_parent=sum(report.known_to_parent for report in reports),
    )


def _copy_file(source: Path, target: Path) -> None:
    with atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
