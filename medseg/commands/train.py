"""``medseg train``: a bundle and a data set in, a trained bundle out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import Bundle, load_bundle, require_single
from medseg.bundle.spec import BundleSpec
from medseg.commands.bundle_argument import open_bundle
from medseg.commands.one_step import TrainingRequest, plan_first
from medseg.datasets.cases import CaseList, find_cases
from medseg.datasets.dataset import Folds, find_folds
from medseg.datasets.validated_range import measure_range
from medseg.errors import recordable_text
from medseg.events import Listener, Notice, RunFailed, notify
from medseg.layouts.dataset_json import states_made_up
from medseg.networks.building import try_network
from medseg.networks.devices import release_memory
from medseg.networks.training_precision import choose_training_precisions
from medseg.tracking.tracker import MlflowTracker
from medseg.training.cross_validation import assemble_folds, train_folds
from medseg.training.device_errors import explain_device_errors
from medseg.training.distributed import (
    ProcessGroup,
    choose_local_device,
    explain_lost_processes,
    join_process_group,
)
from medseg.training.fine_tuning import InitialWeights
from medseg.training.held_out import list_held_out, score_held_out
from medseg.training.leakage import (
    list_learned_cases,
    list_learned_data_sets,
)
from medseg.training.learn import learn, start_learner
from medseg.training.lineage import Lineage, trace_lineage
from medseg.training.loop import TrainingLoop
from medseg.training.losses import check_loss
from medseg.training.quantisation_windows import draw_windows
from medseg.training.report import TrainingReport
from medseg.training.restarts import (
    may_begin,
    must_resume,
    require_shared_run,
)
from medseg.training.runs import (
    ALL,
    Fold,
    TrainingRun,
    begin_run,
    find_resumable_run,
    plan_run,
)
from medseg.training.session import (
    Resources,
    TrainingSession,
    build_stages,
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


def train(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    fold: Fold = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
    start_from: str | Path | None = None,
    budget: str | None = None,
    resume: bool = False,
    cache: str | Path | None = None,
    skip_bad_cases: bool = False,
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> Path:
    """Train a bundle.

    Args:
        bundle: A bundle's folder or ``bundle.json``. With ``budget`` also a data set: a bundle is
            planned for it first, as ``plan`` does, into ``runs/<name>/<time>-bundle.json``.
        data: The data folder; the bundle's own ``data.root`` unless given.
        out: The run folder, new or empty; ``runs/<name>/<time>-fold<K>`` unless given.
        fold: The fold to validate on; ``None`` trains on every case. ``all`` trains a network
            for each fold, each a run of its own in ``OUT/folds``, and makes one bundle of all:
            results come from the mean of their scores.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Assignments such as ``training.steps=200``.
        start_from: A trained bundle whose weights to start from. Labels and channels start from
            those of the same name; see ``medseg.training.lineage`` for the rules. Sections that
            the bundle leaves out are this one's: network, preprocessing, inference, patch. A
            resumed run keeps the one it began with.
        budget: Time for the whole run, such as ``20m`` or ``2h``; the bundle's own unless given.
        resume: Continue the run in ``out``, or the newest unfinished run of this bundle or data
            set. Under ``torchrun``, which starts lost processes again with the same arguments, a
            run that has not begun in ``out`` begins.
        cache: The folder of preprocessed cases; ``preprocessed`` beside the run folder unless
            given. Each machine may have its own, and its content never changes a result.
        skip_bad_cases: Train without the cases that have a fault.
        trust_values: Train by the bundle's values and order of channels, whatever names the data
            give them.
        listeners: Notified of what happens, besides MLflow.

    Returns:
        The run folder: a trained bundle.

    Raises:
        BundleError: If the bundle is wrong.
        DatasetError: If cases are bad, every one named, or there are too few; or as ``plan``.
        CheckpointError: If there is nothing to resume, or the weights to start from do not fit.
        TrainingError: If the loss is no longer finite.
        OutputError: If the run folder cannot be written.

    Examples:
        Train a bundle that was written by hand, for a moment, on made-up scans:

        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from medseg import train
        >>> from medseg.testing import write_dataset
        >>> folder = tempfile.TemporaryDirectory()
        >>> home = Path(folder.name)
        >>> data = write_dataset(home / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> content = {
        ...     "name": "organs",
        ...     "channels": [{"name": "CT"}],
        ...     "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
        ...     "network": {"kind": "unet", "channels": [4, 8, 8], "strides": [1, 2, 2]},
        ...     "training": {"patch": [16, 16, 16], "steps": 2},
        ...     "tracking": {"register_model": False},
        ... }
        >>> bundle = home / "bundle.json"
        >>> _ = bundle.write_text(json.dumps(content))
        >>> run = train(bundle, data=data, out=home / "run", fold=None, device="cpu")
        >>> (run / "models" / "model.pt").is_file()
        True
        >>> folder.cleanup()
    """
    data_folder = None if data is None else Path(data).resolve()
    request = plan_first(
        TrainingRequest(bundle, Path(out) if out else None, tuple(overrides)),
        budget,
        data=data_folder,
        device=device,
        start_from=start_from,
        resume=resume,
        listeners=listeners,
    )
    run_folder = request.out
    parent = None if start_from is None else load_bundle(start_from)
    requested = _open_requested(request, parent)
    try_network(requested.spec)
    check_loss(requested.spec)
    local_device = choose_local_device(device)
    precisions = choose_training_precisions(requested.spec, local_device)
    resumes = resume or must_resume(run_folder)

    def choose_run() -> TrainingRun:
        if resumes and not may_begin(run_folder):
            return find_resumable_run(requested, data_folder, run_folder)
        lineage = _trace_lineage(requested.spec, parent)
        return plan_run(requested, data_folder, run_folder, fold, lineage)

    with join_process_group(local_device) as group:
        notified = listeners if group.is_main else ()
        resources = Resources(
            local_device, group, notified, skip_bad_cases, trust_values
        )
        claims = run_folder is None and not resumes
        with _hold_run(choose_run, group, claims) as run:
            here = run.adapt(data_folder, cache)
            _train_chosen(here, resources, precisions.notes)
    return run.folder.path


def _train_chosen(
    run: TrainingRun, resources: Resources, notes: Iterable[str]
) -> None:
    """Train a run, or all folds, unless that is done."""
    if resources.group.ask_main(lambda: run.folder.is_finished):
        done = "this run is finished already; nothing was done"
        notify(resources.listeners, Notice(done))
        return
    for note in notes:
        notify(resources.listeners, Notice(note))
    if run.fold == ALL:
        _cross_validate(run, resources)
    else:
        _train_run(run, resources)


def _open_requested(request: TrainingRequest, parent: Bundle | None) -> Bundle:
    """Open the bundle to train; what it leaves out is the parent's."""
    known = None if parent is None else parent.spec
    if parent is not None:
        require_single(parent, "fine-tuned")
    requested = open_bundle(request.bundle, request.overrides, known)
    require_single(requested, "trained")
    # Where an imported model came from is not where what is trained now comes from.
    spec = requested.spec.model_copy(update={"origin": None})
    return Bundle(spec, requested.folder)


def _trace_lineage(spec: BundleSpec, parent: Bundle | None) -> Lineage | None:
    if parent is None:
        return None
    # Weights that do not fit are refused before cases are read.
    InitialWeights(spec, parent)
    return trace_lineage(parent, spec)


@contextlib.contextmanager
def _hold_run(
    choose_run: Callable[[], TrainingRun], group: ProcessGroup, claims: bool
) -> Iterator[TrainingRun]:
    """Give every process the run that the main one chose, and that one its folder.

    Args:
        choose_run: Plans a run, or finds the one to resume.
        group: The processes that train it together.
        claims: Whether the folder may be another's, and is given up where no run begins in it.
    """

    def choose_and_claim() -> TrainingRun:
        run = choose_run()
        return replace(run, folder=run.folder.claim()) if claims else run

    run = group.ask_main(choose_and_claim)
    try:
        require_shared_run(run.folder, group)
        yield run
    finally:
        if claims and group.is_main:
            run.folder.release()


def _cross_validate(run: TrainingRun, resources: Resources) -> None:
    """Train every fold, and make one bundle of their networks."""
    for stage in build_stages(run.spec):
        stage.check_cross_validation()
    cases = find_cases(run.data, run.spec, trust_values=resources.trust_values)

    def prepare_folds() -> Folds:
        return find_folds(
            cases,
            run.spec,
            run.cache,
            skip_bad_cases=resources.skip_bad_cases,
            listeners=resources.listeners,
        )

    def train_fold(fold_run: TrainingRun) -> None:
        _train_run(fold_run, resources, cases)

    def assemble(fold_runs: Sequence[TrainingRun]) -> None:
        tracked = [*resources.listeners, _track(run, resources.listeners)]
        assemble_folds(run, fold_runs, resources.device, tracked)

    folds = resources.group.main_first(prepare_folds)
    train_folds(run, folds, train_fold, assemble, resources.group)


def _train_run(
    run: TrainingRun, resources: Resources, cases: CaseList | None = None
) -> None:
    """Train one run; its cases are searched for unless they were found already."""
    session = open_session(run, resources, cases)
    initial_weights = session.load_initial_weights()
    if not session.group.is_main:
        learner, history, _ = start_learner(session, initial_weights)
        TrainingLoop(session, learner, history).run()
        return
    if not run.folder.has_begun:
        begin_run(session.run, session.dataset.content_hash)
    tracker = _track(session.run, session.listeners)
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


def _track(run: TrainingRun, listeners: Sequence[Listener]) -> Listener:
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
