"""``medseg train``: a bundle and a data set in, a trained bundle out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from medseg._support.task_needs import choose_needs
from medseg._support.threads import limit_threads
from medseg.bundle.bundle import Bundle, load_bundle, require_single
from medseg.bundle.spec import BundleSpec
from medseg.commands.bundle_argument import open_bundle
from medseg.commands.cluster_folds import FoldCluster
from medseg.commands.one_step import TrainingRequest, plan_first
from medseg.commands.train_run import track, train_run
from medseg.datasets.case_workers import choose_case_workers
from medseg.datasets.cases import find_cases
from medseg.datasets.dataset import Folds, find_folds
from medseg.errors import MedsegError
from medseg.events import Listener, Notice, notify
from medseg.networks.building import try_network
from medseg.networks.training_precision import choose_training_precisions
from medseg.training.cross_validation import assemble_folds, train_folds
from medseg.training.distributed import (
    ProcessGroup,
    choose_local_device,
    is_under_torchrun,
    join_process_group,
)
from medseg.training.fine_tuning import InitialWeights
from medseg.training.lineage import Lineage, trace_lineage
from medseg.training.losses import check_loss
from medseg.training.restarts import (
    may_begin,
    must_resume,
    require_shared_run,
)
from medseg.training.runs import (
    ALL,
    Fold,
    TrainingRun,
    find_resumable_run,
    plan_run,
)
from medseg.training.session import (
    Resources,
    build_stages,
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
    threads: int | None = None,
    on: str = "",
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
            set. Under ``torchrun``, which starts lost processes again with the same arguments, and
            on a cluster, a run that has not begun in ``out`` begins.
        cache: The folder of preprocessed cases; ``preprocessed`` beside the run folder unless
            given. Each machine may have its own, and its content never changes a result.
        skip_bad_cases: Train without the cases that have a fault.
        trust_values: Train by the bundle's values and order of channels, whatever names the data
            give them.
        threads: How many threads arithmetic takes; as many as there are cores unless given. On a
            cluster, each case and each fold takes so many CPUs of its node: 4 unless given, or
            all of the smallest node if it has fewer.
        on: ``ray`` lets the nodes of a Ray cluster check and preprocess the cases, that of this
            machine or of ``RAY_ADDRESS``; ``ray=HOST:PORT`` those of the cluster of this head. A
            network is then trained by this process; those of ``fold="all"`` are trained by the
            nodes side by side, each with a GPU where nodes have some. All nodes must see data,
            cache and ``out`` at the same paths. A case whose process dies three times has a
            fault; a fold whose process dies goes on from its last checkpoint. Listeners are told
            of folds by ``FoldEvent``.
        listeners: Notified of what happens, besides MLflow.

    Returns:
        The run folder: a trained bundle.

    Raises:
        BundleError: If the bundle is wrong.
        DatasetError: If cases are bad, every one named, or there are too few; or as ``plan``.
        CheckpointError: If there is nothing to resume, or the weights to start from do not fit.
        TrainingError: If the loss is no longer finite, or the processes of a fold on a cluster
            died three times without getting on.
        OutputError: If the run folder cannot be written.
        MissingExtraError: If a cluster is asked for and Ray is not installed.
        ClusterError: If the cluster cannot be reached, or has ended; ``resume`` goes on.
        MedsegError: If a cluster is asked for under ``torchrun``, or a GPU of it by its number.

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
    with limit_threads(threads):
        workers = choose_case_workers(on, threads, listeners)
        _check_cluster_call(on, fold, device)
        data_folder = None if data is None else Path(data).resolve()
        given_out = Path(out) if out else None
        request = plan_first(
            TrainingRequest(bundle, given_out, tuple(overrides)),
            budget,
            data=data_folder,
            device=device,
            start_from=start_from,
            resume=resume and not _begins_on_cluster(given_out, on),
            on=on,
            listeners=listeners,
        )
        run_folder = request.out
        parent = None if start_from is None else load_bundle(start_from)
        requested = _open_requested(request, parent)
        try_network(requested.spec)
        check_loss(requested.spec)
        elsewhere = _trains_elsewhere(on, fold)
        local_device = _choose_own_device(device, elsewhere)
        notes = _check_precision(requested.spec, local_device, elsewhere)
        resumes = resume or must_resume(run_folder)

        def choose_run() -> TrainingRun:
            if resumes and not may_begin(run_folder, on):
                return find_resumable_run(requested, data_folder, run_folder)
            lineage = _trace_lineage(requested.spec, parent)
            return plan_run(requested, data_folder, run_folder, fold, lineage)

        with join_process_group(local_device) as group:
            notified = listeners if group.is_main else ()
            resources = Resources(
                local_device,
                group,
                notified,
                skip_bad_cases,
                trust_values,
                workers,
            )
            claims = run_folder is None and not resumes
            with _hold_run(choose_run, group, claims) as run:
                here = run.adapt(data_folder, cache)
                cluster = FoldCluster(on, device, threads)
                _train_chosen(here, resources, notes, cluster)
        return run.folder.path


def _check_cluster_call(on: str, fold: Fold, device: str) -> None:
    """Make sure that a cluster is asked for what it can do.

    Raises:
        MedsegError: If it is not.
    """
    if not on:
        return
    if is_under_torchrun():
        raise MedsegError(
            "torchrun trains one network in several processes, and a cluster trains folds side by "
            "side; start the command with --on without torchrun"
        )
    if fold == ALL:
        choose_needs((), device, None, 1)


def _trains_elsewhere(on: str, fold: Fold) -> bool:
    return bool(on) and fold == ALL


def _choose_own_device(device: str, elsewhere: bool) -> torch.device:
    """Return where this process computes; where nodes train, each chooses its own."""
    return choose_local_device("cpu" if elsewhere else device)


def _check_precision(
    spec: BundleSpec, device: torch.device, elsewhere: bool
) -> tuple[str, ...]:
    """Make sure that the networks can learn in the bundle's precision.

    Args:
        spec: The bundle.
        device: Of this process.
        elsewhere: Whether nodes of a cluster train instead, which find out by themselves.

    Returns:
        What a person should know about the precision.

    Raises:
        MedsegError: If they cannot.
    """
    if elsewhere:
        return ()
    return choose_training_precisions(spec, device).notes


def _begins_on_cluster(out: Path | None, on: str) -> bool:
    return bool(on) and may_begin(out, on)


def _train_chosen(
    run: TrainingRun,
    resources: Resources,
    notes: Iterable[str],
    cluster: FoldCluster,
) -> None:
    """Train a run, or all folds, unless that is done."""
    if resources.group.ask_main(lambda: run.folder.is_finished):
        done = "this run is finished already; nothing was done"
        notify(resources.listeners, Notice(done))
        return
    for note in notes:
        notify(resources.listeners, Notice(note))
    if run.fold == ALL:
        _cross_validate(run, resources, cluster)
    else:
        train_run(run, resources)


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


def _cross_validate(
    run: TrainingRun, resources: Resources, cluster: FoldCluster
) -> None:
    """Train every fold, one after the other or on a cluster, and make one bundle of all."""
    for stage in build_stages(run.spec):
        stage.check_cross_validation()
    cases = find_cases(run.data, run.spec, trust_values=resources.trust_values)

    def prepare_folds() -> Folds:
        return find_folds(
            cases,
            run.spec,
            run.cache,
            skip_bad_cases=resources.skip_bad_cases,
            workers=resources.workers,
            listeners=resources.listeners,
        )

    def train_here(fold_runs: Sequence[TrainingRun]) -> None:
        for fold_run in fold_runs:
            train_run(fold_run, resources, cases)

    def assemble(fold_runs: Sequence[TrainingRun]) -> None:
        tracked = [*resources.listeners, track(run, resources.listeners)]
        device = None if cluster.on else resources.device
        assemble_folds(run, fold_runs, device, tracked)

    folds = resources.group.main_first(prepare_folds)
    train_each = train_here
    if cluster.on:
        train_each = partial(cluster.train, run, resources)
    train_folds(run, folds, train_each, assemble, resources.group)
