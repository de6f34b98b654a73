"""One run of ``medseg train``: its network is trained, scored and written as a bundle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import Bundle
from medseg.datasets.cases import CaseList
from medseg.datasets.validated_range import measure_range
from medseg.errors import recordable_text
from medseg.events import Listener, Notice, RunFailed, notify
from medseg.layouts.dataset_json import states_made_up
from medseg.networks.devices import release_memory
from medseg.tracking.tracker import MlflowTracker
from medseg.training.device_errors import explain_device_errors
from medseg.training.distributed import explain_lost_processes
from medseg.training.fine_tuning import InitialWeights
from medseg.training.held_out import list_held_out, score_held_out
from medseg.training.leakage import (
    list_learned_cases,
    list_learned_data_sets,
)
from medseg.training.learn import learn, start_learner
from medseg.training.loop import TrainingLoop
from medseg.training.quantisation_windows import draw_windows
from medseg.training.report import TrainingReport
from medseg.training.runs import TrainingRun, begin_run
from medseg.training.session import (
    Resources,
    TrainingSession,
    open_session,
)
from medseg.training.speed_settings import (
    SHARE,
    SpeedDecision,
    decide_speed,
)
from medseg.training.speed_trials import SpeedCases
from medseg.training.trained_bundle import (
    write_stage_results,
    write_trained_bundle,
)


def train_run(
    run: TrainingRun,
    resources: Resources,
    cases: CaseList | None = None,
    *,
    tracked: bool = True,
) -> None:
    """Train one run, new or begun before, to its end.

    Args:
        run: The run; no cross-validation.
        resources: Where and how.
        cases: Its cases; they are searched for unless given.
        tracked: Whether MLflow is told by this process.

    Raises:
        DatasetError: If cases are bad, every one named, or there are too few.
        CheckpointError: If it began with other cases, or another process trains it.
        TrainingError: If the loss is no longer finite.
        OutputError: If the run folder cannot be written.
    """
    session = open_session(run, resources, cases)
    initial_weights = session.load_initial_weights()
    if not session.group.is_main:
        learner, history, _ = start_learner(session, initial_weights)
        TrainingLoop(session, learner, history).run()
        return
    if not run.folder.has_begun:
        begin_run(session.run, session.dataset.content_hash)
    if tracked:
        tracker = track(session.run, session.listeners)
        listeners = [*session.listeners, tracker]
        session = replace(session, listeners=listeners)
    with (
        run.folder.locked(),
        report_failure(session.listeners),
        explain_lost_processes(session.group),
    ):
        _train_session(session, initial_weights)


def _train_session(
    session: TrainingSession, initial_weights: InitialWeights | None
) -> None:
    """Train the network, run the further stages, score held-out cases, and write the bundle."""
    began = time.monotonic()
    run = session.run
    dataset = session.dataset
    provenance = collect_provenance(session.device)
    provenance["data.fingerprint"] = dataset.content_hash
    with explain_device_errors(session.device):
        learned = learn(session, initial_weights, provenance)
    # Network, optimiser and cases that lie on the GPU: scoring needs its memory.
    release_memory(session.device)
    session, history = learned.session, learned.history
    write_stage_results(learned.stages, run.folder)
    decision = _decide_speed(session, began)
    report = TrainingReport(
        fold=run.fold,
        training_cases=len(dataset.training),
        validation_cases=len(dataset.validation),
        best_step=history.best_step or session.spec.training.steps,
        content_hash=dataset.content_hash,
        provenance=provenance,
        held_out=score_held_out(session),
        validations=history.validations,
        lineage=run.lineage,
        stages=learned.stages,
        stopped_early=learned.stopped_early,
        validated=measure_range(dataset.measures, session.spec),
        made_up=states_made_up(run.data),
        speed=decision.finding,
        speed_unknown=decision.reason,
        learned_from=list_learned_cases(dataset.training, run.lineage),
        learned_data_sets=list_learned_data_sets(run.lineage),
        known_to_parent=learned.known_to_parent,
    )
    write_trained_bundle(session.run, report, session.listeners)
    run.folder.speed_trials.unlink(missing_ok=True)


def _decide_speed(session: TrainingSession, began: float) -> SpeedDecision:
    """Decide how fast a CPU may compute the network, in a tenth of the time of the training.

    Args:
        session: The session, trained.
        began: When the training began, on the monotonic clock.
    """
    run, dataset = session.run, session.dataset
    if run.cross_validation is not None:
        return SpeedDecision(None)
    now = time.monotonic()
    seconds = SHARE * (now - began)
    if session.time_budget is not None:
        to_spare = session.time_budget.count_seconds_to_spare(now)
        seconds = min(seconds, to_spare)
    windows = partial(draw_windows, dataset.training, session.spec)
    return decide_speed(
        Bundle(session.spec, run.folder.path),
        SpeedCases(list_held_out(session), windows),
        seconds,
        run.folder.speed_trials,
        session.listeners,
    )


def track(run: TrainingRun, listeners: Sequence[Listener]) -> Listener:
    """Return the listener that records a run in MLflow; its own trouble becomes a notice."""
    is_fold = run.cross_validation is not None
    return MlflowTracker(
        run.home / "mlflow.db",
        model_code=Path(__file__).parents[1] / "pyfunc.py",
        # The bundle of all folds is registered, not each fold's.
        register_model=run.spec.tracking.register_model and not is_fold,
        say=lambda message: notify(listeners, Notice(message)),
    )


@contextlib.contextmanager
def report_failure(listeners: Sequence[Listener]) -> Iterator[None]:
    """Notify listeners of an error before it goes on to the caller.

    What they record may be read by anybody, so the source and the detail of an error, and the
    text of errors of other libraries, are left out.
    """
    try:
        yield
    except KeyboardInterrupt:
        notify(listeners, RunFailed("interrupted", interrupted=True))
        raise
    except BaseException as error:
        notify(listeners, RunFailed(recordable_text(error)))
        raise
