"""``medseg train``: a bundle and a data set in, a trained bundle out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import (
    Bundle,
    flat_parameters,
    load_bundle,
    parse_spec,
    spec_json,
    write_trained,
)
from medseg.bundle.spec import BundleSpec, TrainedSpec
from medseg.datasets.cases import CaseList, find_cases
from medseg.datasets.dataset import Dataset, find_folds, open_dataset
from medseg.datasets.integrity import open_case
from medseg.errors import recordable_text
from medseg.events import (
    FineTuningStarted,
    Listener,
    Notice,
    Progress,
    RunFailed,
    RunStarted,
    TimeBudgetFitted,
    notify,
)
from medseg.inference.segmenter import Segmenter
from medseg.networks.devices import choose_device
from medseg.networks.refiner import refined_definition
from medseg.networks.training_precision import choose_training_precisions
from medseg.networks.unet import network_definition, try_network
from medseg.tracking.tracker import MlflowTracker
from medseg.training.cross_validation import refuse_refiner, train_folds
from medseg.training.distributed import ProcessGroup, join_process_group, local_device
from medseg.training.fine_tuning import InitialWeights
from medseg.training.finish import Ending, finish
from medseg.training.held_out import HeldOutCase, score_held_out_cases
from medseg.training.history import TrainingHistory
from medseg.training.keep_largest import CaseResults, HeldOutResults, join_results
from medseg.training.learner import Learner
from medseg.training.lineage import Lineage, open_parent, trace_lineage
from medseg.training.loop import TrainingLoop
from medseg.training.losses import check_loss
from medseg.training.model_card import Facts
from medseg.training.refinement.stage import (
    Refined,
    corrector_of,
    make_learner,
    refine,
    steps_done,
    total_steps,
)
from medseg.training.run_folder import RunFolder
from medseg.training.runs import (
    ALL,
    Fold,
    TrainingRun,
    begin_run,
    find_resumable_run,
    plan_run,
    require_same_cases,
)
from medseg.training.time_budget import (
    TimeBudget,
    count_corrupted_copies,
    fit_to_budget,
    measure_speed,
)


def train(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    fold: Fold = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
    start_from: str | Path | None = None,
    resume: bool = False,
    skip_bad_cases: bool = False,
    listeners: Sequence[Listener] = (),
) -> Path:
    """Train a bundle.

    Args:
        bundle: A bundle's folder or ``bundle.json``.
        data: The data folder; the bundle's own ``data.root`` unless given.
        out: The run folder, new or empty; ``runs/<name>/<time>-fold<K>`` unless given.
        fold: The fold to validate on; ``None`` trains on every case. ``all`` trains a network
            for each fold, each a run of its own in ``OUT/folds``, and makes one bundle of all:
            results come from the mean of their scores.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Assignments such as ``training.steps=200``.
        start_from: A trained bundle whose weights to start from. Labels and channels of the same
            name go on from its weights; see ``medseg.training.lineage`` for the rules. A resumed
            run keeps to the one it began with.
        resume: Continue the run in ``out``, or the newest unfinished run of this bundle.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told what happens, besides MLflow.

    Returns:
        The run folder: a trained bundle.

    Raises:
        BundleError: If the bundle is wrong.
        DatasetError: If cases are bad, every one named, or there are too few.
        CheckpointError: If there is nothing to resume, or the weights to start from do not fit.
        TrainingError: If the loss becomes no number.
        OutputError: If the run folder cannot be written.
    """
    asked = load_bundle(bundle, overrides)
    try_network(asked.spec)
    check_loss(asked.spec)
    chosen = choose_device(device)
    given_data = Path(data).resolve() if data is not None else None
    given_out = Path(out) if out is not None else None
    precisions = choose_training_precisions(asked.spec, chosen)
    with join_process_group(chosen) as group:
        if resume:
            run = find_resumable_run(asked, given_data, given_out)
        else:
            lineage = _lineage(asked.spec, start_from)
            run = plan_run(asked, given_data, given_out, fold, lineage)
        run = replace(run, folder=RunFolder(Path(group.broadcast(str(run.folder.path)))))
        heard = listeners if group.is_main else ()
        if run.folder.is_finished:
            notify(heard, Notice(f"{run.folder.path} is finished already; nothing was done"))
            return run.folder.path
        for note in precisions.notes:
            notify(heard, Notice(note))
        train_it = _train_all if run.fold == ALL else _train_one
        train_it(run, local_device(chosen), group, skip_bad_cases, heard)
    return run.folder.path


def _lineage(spec: BundleSpec, start_from: str | Path | None) -> Lineage | None:
    if start_from is None:
        return None
    parent = load_bundle(start_from)
    InitialWeights(spec, parent)  # what does not fit is told before cases are read
    return trace_lineage(parent, spec)


def _fitted(
    run: TrainingRun,
    dataset: Dataset,
    device: torch.device,
    group: ProcessGroup,
    listeners: Sequence[Listener],
    began: float,
) -> tuple[TrainingRun, TimeBudget | None]:
    """Fit the steps to the time that is left; a resumed run keeps what was fitted first."""
    pace = measure_speed(
        run.spec, dataset.training, dataset.validation, device, _calibrating(run, dataset)
    )
    budget = run.spec.training.budget_minutes or 0.0
    left = 60 * budget - (time.monotonic() - began)
    spec = fit_to_budget(run.spec, pace, left)
    spec = parse_spec(json.loads(group.broadcast(spec_json(spec))))
    notify(listeners, TimeBudgetFitted(budget, spec.training.steps, pace.step))
    run = replace(run, spec=spec)
    if spec.refinement is not None:  # its stages are timed by the steps there are
        if (corrector := corrector_of(spec)) is not None:
            after = f"the refiner's {corrector.steps} steps come after these {budget:g} minutes"
            notify(listeners, Notice(after))
        return run, None
    return run, TimeBudget(spec, pace, began + 60 * budget)


def _inheritance(run: TrainingRun) -> InitialWeights | None:
    if run.lineage is None or run.folder.checkpoint.is_file():
        return None
    return InitialWeights(run.spec, open_parent(run.lineage))


def _train_one(
    run: TrainingRun,
    device: torch.device,
    group: ProcessGroup,
    skip_bad_cases: bool,
    listeners: Sequence[Listener],
    found: CaseList | None = None,
) -> None:
    """Train one run; its cases are looked for unless they were ``found`` already."""
    began = time.monotonic()
    dataset = group.main_first(
        lambda: open_dataset(
            found or run.data,
            run.spec,
            _held_back(run),
            run.home / "preprocessed",
            skip_bad_cases=skip_bad_cases,
            listeners=listeners,
        )
    )
    if run.folder.has_begun:
        require_same_cases(run, dataset.content_hash)
    deadline = None
    if run.spec.training.budget_minutes is not None and not run.folder.has_begun:
        run, deadline = _fitted(run, dataset, device, group, listeners, began)
    _train(run, dataset, device, group, listeners, deadline)


def _train_all(
    run: TrainingRun,
    device: torch.device,
    group: ProcessGroup,
    skip_bad_cases: bool,
    listeners: Sequence[Listener],
) -> None:
    """Train every fold."""
    refuse_refiner(run.spec)
    found = find_cases(run.data, run.spec)
    folds = group.main_first(
        lambda: find_folds(
            found,
            run.spec,
            run.home / "preprocessed",
            skip_bad_cases=skip_bad_cases,
            listeners=listeners,
        )
    )

    def started(fingerprint: str) -> RunStarted:
        return _started(run, collect_provenance(device) | {"data.fingerprint": fingerprint}, None)

    def train_one(fold: TrainingRun) -> None:
        _train_one(fold, device, group, skip_bad_cases, listeners, found)

    tracked = [*listeners, _tracker(run, listeners)] if group.is_main else ()
    train_folds(run, folds, train_one, group, started, tracked)


def _held_back(run: TrainingRun) -> int | None:
    if isinstance(run.fold, str):
        raise TypeError("a cross-validation is trained fold by fold")
    return run.fold


def _train(
    run: TrainingRun,
    dataset: Dataset,
    device: torch.device,
    group: ProcessGroup,
    listeners: Sequence[Listener],
    deadline: TimeBudget | None,
) -> None:
    """Train; only the first process of a group writes, validates and speaks."""
    record = TrainingHistory(run.spec.name)
    initial_weights = _inheritance(run)
    if not group.is_main:
        learner = make_learner(run.spec, dataset.training, device, [record], group, initial_weights)
        group.barrier()
        _restore(run, learner, record)
        TrainingLoop(run, learner, record, dataset, group, (), deadline).run()
        return
    if not run.folder.has_begun:
        begin_run(run, dataset.content_hash)
    tracked = [*listeners, _tracker(run, listeners)]
    with run.folder.locked(), _failures_told(tracked):
        learner = make_learner(
            run.spec, dataset.training, device, [record, *tracked], group, initial_weights
        )
        group.barrier()
        resumed_at = _restore(run, learner, record)
        facts = collect_provenance(device) | {"data.fingerprint": dataset.content_hash}
        notify(tracked, _started(run, facts, resumed_at))
        if run.lineage is not None and resumed_at is None:
            notify(tracked, FineTuningStarted(run.lineage.name, run.lineage.decisions))
        stopped = TrainingLoop(run, learner, record, dataset, group, tracked, deadline).run()
        run = replace(run, spec=learner.spec)
        refined = refine(run.spec, run.folder, learner, record, dataset.validation, device, tracked)
        _finish(run, record, dataset, facts, refined, str(device), tracked, stopped=stopped)


def _tracker(run: TrainingRun, listeners: Sequence[Listener]) -> Listener:
    return MlflowTracker(
        run.home / "mlflow.db",
        model_code=Path(__file__).parents[1] / "pyfunc.py",
        # The bundle of all folds is registered, not each fold's.
        register_model=run.spec.tracking.register_model and run.whole is None,
        say=lambda message: notify(listeners, Notice(message)),
    )


@contextmanager
def _failures_told(listeners: Sequence[Listener]) -> Iterator[None]:
    """Let listeners know how a run ended before the error goes on to whoever called."""
    try:
        yield
    except KeyboardInterrupt:
        notify(listeners, RunFailed("interrupted", interrupted=True))
        raise
    except BaseException as error:
        notify(listeners, RunFailed(recordable_text(error)))
        raise


def _restore(run: TrainingRun, learner: Learner, record: TrainingHistory) -> int | None:
    state = run.folder.load_checkpoint()
    if state is None:
        return None
    learner.restore(state["learner"])
    record.restore(state["record"])
    return steps_done(run.spec, state)


def _started(run: TrainingRun, facts: dict[str, str], resumed_at: int | None) -> RunStarted:
    ancestry = run.lineage.parameters if run.lineage else {}
    decisions = {"from.decisions": "\n".join(run.lineage.decisions)} if run.lineage else {}
    return RunStarted(
        folder=run.folder.path,
        run_id=run.run_id,
        name=run.spec.name,
        experiment=run.spec.tracking.experiment or run.spec.name,
        parameters=flat_parameters(run.spec) | {"fold": str(run.fold)} | ancestry,
        provenance=facts | decisions,
        resumed_at=resumed_at,
        total_steps=total_steps(run.spec),
    )


def _finish(
    run: TrainingRun,
    record: TrainingHistory,
    dataset: Dataset,
    provenance_facts: dict[str, str],
    refined: Refined,
    device: str,
    listeners: Sequence[Listener],
    *,
    stopped: bool,
) -> None:
    """Judge the best weights as they will be used, and make the folder a whole bundle."""
    spec = run.spec
    # Forget what an end found that was interrupted: it must not colour what is found now.
    write_trained(TrainedSpec(refinement=refined.finding), run.folder.path)
    held_back = _judge_held_back(run, dataset, device, listeners)
    applied = refined.finding is not None and refined.finding.applied
    ending = Ending(
        held_back=held_back,
        finding=held_back.decide(),
        network=refined_definition(spec) if applied else network_definition(spec, supervised=False),
        validations=record.validations,
        stopped_early=stopped,
    )
    facts = Facts(
        training_cases=len(dataset.training),
        validation_cases=len(dataset.validation),
        fold=run.fold,
        best_step=record.best_step or spec.training.steps,
        fingerprint=dataset.content_hash,
        provenance=provenance_facts,
        lineage=run.lineage,
        refinement=refined.finding,
        critic_gap=refined.gap,
    )
    finish(run, ending, facts, listeners)


def _ways(spec: BundleSpec) -> list[tuple[str, ...]]:
    """Return in which ways held-back results are finished; the second is what may be decided."""
    asked = spec.inference.keep_largest
    if asked is None and not spec.regions:
        return [(), spec.label_set.names]
    return [asked or ()]


def _calibrating(run: TrainingRun, dataset: Dataset) -> int:
    """Return how many cases quality is calibrated on; each is held back in one of all folds."""
    others = len(dataset.training) if run.whole is not None else 0
    return len(dataset.held_out) + others


def _judge_held_back(
    run: TrainingRun, dataset: Dataset, device: str, listeners: Sequence[Listener]
) -> HeldOutResults:
    """Segment the held-back scans by the path users take, on their own grids."""
    ways = _ways(run.spec)
    total = len(dataset.held_out)
    outcomes: list[list[CaseResults]] = [[] for _ in ways]
    if total:
        segmenter = Segmenter(Bundle(run.spec, run.folder.path), device)
        names = (case.case_id for case in dataset.validation)
        cases = (
            HeldOutCase(name, *open_case(case, run.spec))
            for name, case in zip(names, dataset.held_out, strict=True)
        )
        copies = count_corrupted_copies(run.spec, _calibrating(run, dataset))
        seed = run.spec.training.seed
        judging = score_held_out_cases(
            segmenter, cases, ways, count=total, copies=copies, seed=seed
        )
        notify(listeners, Progress("scoring held-back cases", 0, total))
        for done, in_ways in enumerate(judging, start=1):
            for outcome, one in zip(outcomes, in_ways, strict=True):
                outcome.append(one)
            notify(listeners, Progress("scoring held-back cases", done, total))
    return HeldOutResults(*(join_results(outcome) for outcome in outcomes))
