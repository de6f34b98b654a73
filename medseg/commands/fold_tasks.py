"""What a node of a cluster does for a cross-validation: it trains one fold, or goes on with it.

The fold is an ordinary run in the folder that all nodes share. MLflow is the driver's alone, which
reads what happens from a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from medseg._support.cluster_nodes import (
    await_sight,
    leave_broken_gpu,
    require_version,
)
from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.platform.locks import is_locked
from medseg._support.platform.processes import handle_stop_signals
from medseg._support.ray_tasks import make_portable
from medseg._support.threads import limit_threads
from medseg.commands.train_run import train_run
from medseg.errors import MedsegError, OutputError
from medseg.events import Event, Listener, Notice, notify
from medseg.networks.devices import choose_device
from medseg.networks.training_precision import choose_training_precisions
from medseg.tracking.event_files import EventWriter
from medseg.training.distributed import SINGLE_PROCESS
from medseg.training.runs import (
    TrainingRun,
    get_fold_folder,
    open_fold_run,
)
from medseg.training.session import Resources

_STOPPED = 71
"""Exit status of a worker that was asked to stop, by its driver or its node."""
_LOOK_SECONDS = 5.0
_LOCK_SECONDS = 180.0
"""How long a process whose node was lost may still hold a lock on a network drive."""


@dataclass(frozen=True, slots=True)
class FoldAssignment:
    """What a node gets to train a fold.

    Attributes:
        whole: The cross-validation, by paths that all nodes understand.
        fold: The number of the fold.
        events: The folder of this call, for what happens; it goes when the call ends.
        device: ``cpu``, or ``cuda`` for the GPU that the task was given.
        threads: Of arithmetic.
        medseg: The driver's version of medseg.
        skip_bad_cases: As in ``Resources``.
        trust_values: As in ``Resources``.
    """

    whole: TrainingRun
    fold: int
    events: Path
    device: str
    threads: int
    medseg: str
    skip_bad_cases: bool = False
    trust_values: bool = False


def train_on_node(assignment: FoldAssignment) -> Exception | None:
    """Train one fold to its end; return what ended it before, if anything did."""
    try:
        with handle_stop_signals(), limit_threads(assignment.threads):
            _train(assignment)
    except KeyboardInterrupt:
        # No result: unless the driver itself ends, another worker goes on.
        os._exit(_STOPPED)
    except Exception as error:  # noqa: BLE001 - raised by the driver
        if is_gpu_failure(error):
            leave_broken_gpu()
        return make_portable(error)
    return None


def _train(assignment: FoldAssignment) -> None:
    require_version(assignment.medseg)
    _check_node(assignment)
    stamp = f"{time.time_ns():020d}"
    name = f"fold_{assignment.fold}-{stamp}.jsonl"
    watch = _CallWatch(assignment.events)
    with closing(EventWriter(assignment.events / name)) as writer:
        _train_fold(assignment, [writer, watch])


def _train_fold(
    assignment: FoldAssignment, listeners: Sequence[Listener]
) -> None:
    whole = assignment.whole
    _await_former_process(assignment, listeners)
    fold_run = open_fold_run(whole, assignment.fold)
    if fold_run.folder.is_finished:
        return
    device = choose_device(assignment.device)
    precisions = choose_training_precisions(fold_run.spec, device)
    for note in precisions.notes:
        notify(listeners, Notice(note))
    resources = Resources(
        device,
        SINGLE_PROCESS,
        listeners,
        assignment.skip_bad_cases,
        assignment.trust_values,
    )
    here = fold_run.adapt(whole.data, whole.cache)
    train_run(here, resources, tracked=False)


def _await_former_process(
    assignment: FoldAssignment, listeners: Sequence[Listener]
) -> None:
    """Wait for one of an earlier call or a lost node: it ends as soon as it finds out."""
    folder = get_fold_folder(assignment.whole, assignment.fold).path
    if is_locked(folder):
        waiting = "waiting for the process that trained this fold before"
        notify(listeners, Notice(waiting))
        # One that goes on all the same is refused by the run's own lock.
        is_locked(folder, patience=_LOCK_SECONDS)


def _check_node(assignment: FoldAssignment) -> None:
    """Make sure that this node sees what the driver sees.

    Raises:
        MedsegError: If it does not see the data.
        OutputError: If the run folder is not the driver's.
    """
    whole = assignment.whole
    if not await_sight(assignment.events.is_dir):
        raise OutputError(
            "a node of the cluster does not see the run folder as this machine does; it must lie "
            "on a disk that all nodes share, at the same path",
            source=whole.folder.path,
        )
    if not whole.data.exists():
        raise MedsegError(
            "a node of the cluster does not see the data; they must lie on a disk that all nodes "
            "share, or on each node, at the same path",
            source=whole.data,
        )


class _CallWatch:
    """A listener that stops the training when its call has ended: another call may go on with it.

    Args:
        folder: What is there as long as the call lasts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next_look = 0.0
        self._has_ended = False

    def __call__(self, event: Event) -> None:
        """Look now and then."""
        now = time.monotonic()
        if now < self._next_look or self._has_ended:
            return
        self._next_look = now + _LOOK_SECONDS
        # A network drive may fail for a moment: only what is surely gone ends the training.
        with contextlib.suppress(OSError):
            self._has_ended = self._is_gone()
        if self._has_ended:
            signal.raise_signal(signal.SIGINT)

    def _is_gone(self) -> bool:
        try:
            self._folder.stat()
        except FileNotFoundError:
            return True
        return False
