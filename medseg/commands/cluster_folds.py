"""A cross-validation on a cluster: this process gives out folds, and alone tracks and tells."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from medseg._support.ray_cluster import connect_ray, parse_cluster
from medseg._support.ray_head import GO_ON, LostClusterError
from medseg._support.ray_tasks import Lost, TaskRun
from medseg._support.task_needs import announce_waiting, choose_needs
from medseg.commands.fold_tasks import FoldAssignment, train_on_node
from medseg.commands.train_run import report_failure, track
from medseg.errors import OutputError, TrainingError, recordable_text
from medseg.events import (
    Event,
    FoldEvent,
    Listener,
    Notice,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    notify,
)
from medseg.tracking.event_files import EventReader
from medseg.training.run_folder import RunFolder
from medseg.training.runs import TrainingRun
from medseg.training.session import Resources

TASK = "folds"
"""The name of the work in progress events."""

_FOLDS_GO_ON = "run the same command with --resume: every fold goes on from its last checkpoint"
_EVENTS = "events"
"""Where in the run folder nodes write what happens, while a call lasts."""


@dataclass(frozen=True, slots=True)
class FoldCluster:
    """The cluster that folds are trained on.

    Attributes:
        on: ``ray`` or ``ray=HOST:PORT``; empty for none.
        device: What a person asked for.
        threads: CPUs for each fold, if a person said how many.
    """

    on: str
    device: str = "auto"
    threads: int | None = None

    def train(
        self,
        whole: TrainingRun,
        resources: Resources,
        fold_runs: Sequence[TrainingRun],
    ) -> None:
        """Train some folds of a cross-validation side by side, each an ordinary run.

        A fold whose process dies goes on from its last checkpoint, on whichever node is free.

        Args:
            whole: The cross-validation.
            resources: What is the same for all folds.
            fold_runs: Their runs.

        Raises:
            ClusterError: If the cluster cannot be reached, or cannot do what is asked.
            LostClusterError: If its head is gone.
            TrainingError: If processes of a fold died three times without getting on.
            Exception: What ended the first fold that failed, once the others are done.
        """
        if not fold_runs:
            return
        with (
            _make_call_folder(whole.folder) as events,
            connect_ray(parse_cluster(self.on)) as cluster,
        ):
            nodes = cluster.list_nodes()
            needs = choose_needs(nodes, self.device, self.threads, 1)
            announce_waiting(needs, cluster, resources.listeners)
            followed = [
                _FollowedFold(fold_run, events, resources.listeners)
                for fold_run in fold_runs
            ]
            tasks = TaskRun(
                cluster,
                train_on_node,
                needs,
                look=lambda: _follow(followed),
                see_progress=lambda number: followed[number].see_progress(),
                is_awaited=True,
            )
            shared = FoldAssignment(
                whole=_make_absolute(whole),
                fold=0,
                events=events,
                device="cuda" if needs.gpus else "cpu",
                threads=needs.cpus,
                medseg=version("medseg"),
                skip_bad_cases=resources.skip_bad_cases,
                trust_values=resources.trust_values,
            )
            _give_out(tasks, shared, followed, resources.listeners)


def _give_out(
    tasks: TaskRun,
    shared: FoldAssignment,
    followed: Sequence[_FollowedFold],
    listeners: Sequence[Listener],
) -> None:
    """Train each fold, and raise what ended the first one that failed."""
    assignments = [(replace(shared, fold=one.fold),) for one in followed]
    errors: list[Exception] = []
    done = 0
    notify(listeners, Progress(TASK, done, len(followed)))
    with (
        report_failure([one.end for one in followed]),
        _explain_lost_head(),
        _await_stopped(tasks),
        closing(tasks.over(assignments)) as ended,
    ):
        for number, result in ended:
            one = followed[number]
            one.follow()
            error = one.find_error(result)
            if error is not None:
                one.fail(error)
                errors.append(error)
            done += 1
            notify(listeners, Progress(TASK, done, len(followed)))
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _await_stopped(tasks: TaskRun) -> Iterator[None]:
    """After Ctrl-C, wait until folds have saved what they learned; once more ends that, too."""
    try:
        yield
    except KeyboardInterrupt:
        tasks.await_end()
        raise


class _FollowedFold:
    """A fold that is trained elsewhere: tells and tracks here what happens there.

    Args:
        run: Its run.
        events: The folder of what happens.
        listeners: Told which fold it is.

    Attributes:
        fold: Its number.
    """

    def __init__(
        self, run: TrainingRun, events: Path, listeners: Sequence[Listener]
    ) -> None:
        self.fold = int(run.fold or 0)
        self._folder = run.folder
        self._reader = EventReader(events, f"fold_{self.fold}-*.jsonl")
        self._outer = listeners
        self._listeners: list[Listener] = [self._tell]
        self._listeners.append(track(run, [self._tell]))
        self._is_open = False

    def follow(self) -> None:
        """Pass on what happened since the last time."""
        for event in self._reader.read():
            if isinstance(event, RunStarted):
                self._is_open = True
            if isinstance(event, (RunDone, RunFailed)):
                self._is_open = False
            notify(self._listeners, event)

    def end(self, event: Event) -> None:
        """Say how the run ended, if it has not said so itself."""
        if self._is_open:
            self._is_open = False
            notify(self._listeners, event)

    def fail(self, error: Exception) -> None:
        """Say that the fold failed; the others go on."""
        text = recordable_text(error)
        self.end(RunFailed(text))
        self._tell(Notice(f"failed, and the other folds go on: {text}"))

    def see_progress(self) -> object:
        """Return what changes whenever something is saved that the next process goes on from."""
        folder = self._folder
        seen: list[object] = [folder.is_finished]
        for file in (folder.info, folder.checkpoint, folder.speed_trials):
            with contextlib.suppress(OSError):
                status = file.stat()
                seen.append((file.name, status.st_mtime_ns, status.st_size))
        return seen

    def find_error(self, result: Exception | Lost | None) -> Exception | None:
        """Return why the fold is not trained; ``None`` if it is."""
        if not isinstance(result, Lost):
            return result
        return TrainingError(_describe_lost(self.fold, result))

    def _tell(self, event: Event) -> None:
        notify(self._outer, FoldEvent(self.fold, event))


def _follow(followed: Sequence[_FollowedFold]) -> None:
    for one in followed:
        one.follow()


def _describe_lost(fold: int, lost: Lost) -> str:
    why = "died"
    if lost.for_memory:
        why = "were ended for want of memory"
    return (
        f"the processes that trained fold {fold} {why} {lost.times} times without getting from one "
        "checkpoint to the next; train this fold alone (--fold, and an --out of its own) to see "
        "why, or run the same command with --resume and a larger share of a node for each fold "
        "(more --threads). A new run may save checkpoints more often (training.checkpoint_every)"
    )


@contextlib.contextmanager
def _explain_lost_head() -> Iterator[None]:
    """Say how a training goes on.

    Raises:
        LostClusterError: In the place of one that speaks of scans.
    """
    try:
        yield
    except LostClusterError as error:
        message = error.message.replace(GO_ON, _FOLDS_GO_ON)
        raise LostClusterError(message) from error


@contextlib.contextmanager
def _make_call_folder(folder: RunFolder) -> Iterator[Path]:
    """Make the folder of this call; processes that an earlier one left behind see that it is over.

    Raises:
        OutputError: If it cannot be written.
    """
    parent = folder.path.absolute() / _EVENTS
    shutil.rmtree(parent, ignore_errors=True)
    try:
        own = parent / uuid.uuid4().hex
        own.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            "the run folder cannot be written",
            source=folder.path,
            detail=error.strerror,
        ) from error
    try:
        yield own
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _make_absolute(run: TrainingRun) -> TrainingRun:
    """Return a run by paths that another process understands."""
    lineage = run.lineage
    if lineage is not None:
        place = Path(lineage.place).absolute()
        lineage = replace(lineage, place=str(place))
    return replace(
        run,
        folder=RunFolder(run.folder.path.absolute()),
        data=run.data.absolute(),
        lineage=lineage,
        cache_folder=run.cache.absolute(),
    )
