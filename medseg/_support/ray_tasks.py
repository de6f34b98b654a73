"""Tasks without state on a Ray cluster: few at a time, begun again where their worker is lost.

Ray's logs are read by whoever runs the cluster, so tasks print nothing there.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.ray_cluster import RayCluster
from medseg._support.ray_head import ClusterError, Node

LOST_TIMES = 3
"""A task whose worker dies so many times is not tried again."""

TASKS_PER_SLOT = 2
"""One that runs, and one that waits for it: of a million items few are sent at a time."""

_LOOK_SECONDS = 1.0
_COUNT_SECONDS = 5.0
"""How often nodes are counted."""


@dataclass(frozen=True, slots=True)
class TaskNeeds:
    """What a task takes of its node.

    Attributes:
        cpus: How many CPUs.
        gpus: How many GPUs; a share of one where several tasks have one together.
    """

    cpus: int = 1
    gpus: float = 0.0

    def count_slots(self, nodes: Iterable[Node]) -> list[int]:
        """Count how many tasks each node can do at once.

        Examples:
            >>> TaskNeeds(cpus=4, gpus=0.5).count_slots([Node(16, 1), Node(16, 0), Node(2, 8)])
            [2, 0, 0]
        """
        counts = []
        for node in nodes:
            slots = node.cpus // self.cpus
            if self.gpus:
                slots = min(slots, int(node.gpus / self.gpus + 1e-6))
            counts.append(slots)
        return counts


@dataclass(frozen=True, slots=True)
class Lost:
    """A task without a result: its worker died each time."""

    times: int
    for_memory: bool


def call_once(
    cluster: RayCluster,
    function: Callable[..., Any],
    *arguments: Any,
    needs: TaskNeeds,
) -> Any:
    """Run one task, and return what it returns.

    Raises:
        ClusterError: If no worker survives it, or as ``TaskRun.over``.
    """
    run = TaskRun(cluster, function, needs)
    ((_, result),) = run.over([arguments])
    if isinstance(result, Lost):
        raise ClusterError(
            "the workers of the cluster die as soon as they begin; see that its nodes have enough "
            "memory, and Ray's own logs"
        )
    return result


def _look_at_nothing(*_: object) -> None:
    """Take the place of who looks."""


class TaskRun:
    """One function, called on many nodes with many arguments.

    Args:
        cluster: Where.
        function: In a module that all nodes can import.
        needs: What each call takes.
        look: Called every second or so while calls run.
        see_progress: Takes a call's number; where it returns something else than after the last
            loss of this call's worker, the call got on, and losses are counted anew.
        is_awaited: Whether who stops early waits for calls under way, by ``await_end``.

    Attributes:
        lost: How many workers have died.
    """

    def __init__(
        self,
        cluster: RayCluster,
        function: Callable[..., Any],
        needs: TaskNeeds,
        *,
        look: Callable[[], None] = _look_at_nothing,
        see_progress: Callable[[int], object] = _look_at_nothing,
        is_awaited: bool = False,
    ) -> None:
        self._cluster = cluster
        self._is_awaited = is_awaited
        self._ray = cluster.ray
        self._needs = needs
        # Each call again and again in the same processes, which keep what they have loaded.
        remote = self._ray.remote(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            max_retries=0,
            max_calls=0,
        )
        self._task = remote(_call_silently)
        self._function = function
        self._look = look
        self._see_progress = see_progress
        self._again: deque[_Call] = deque()
        self._running: dict[Any, _Call] = {}
        self._count = _NodeCount(cluster, needs)
        self.lost = 0

    @property
    def nodes(self) -> int:
        """How many nodes can do a task, as of late."""
        return sum(count > 0 for count in self._count.slots)

    def over(
        self, arguments: Iterable[tuple[Any, ...]]
    ) -> Generator[tuple[int, Any]]:
        """Call the function with each of these arguments.

        Args:
            arguments: Taken one by one, as late as possible.

        Yields:
            The number of the arguments, and what the function returned or that it is ``Lost``; in
            the order in which calls end. Who stops early must close this, so that calls which are
            under way are taken back.

        Raises:
            ClusterError: If the cluster ends, or cannot run the function.
            Exception: What the function raises.
        """
        waiting = enumerate(arguments)
        try:
            while True:
                self._cluster.look()
                self._count.look()
                self._look()
                self._fill(waiting)
                if not self._running:
                    return
                for reference in self._wait():
                    call = self._running.pop(reference)
                    result = self._get(reference, call)
                    if result is not _AGAIN:
                        yield call.number, result
        finally:
            self._take_back()

    def _take_back(self) -> None:
        """Take back calls under way: where Ray goes on, they would run."""
        # Ray itself may break off where a call ends as it is taken back, so not without need.
        if self._cluster.is_left and not self._is_awaited:
            return
        if self._running and self._cluster.head.answers():
            for reference in self._running:
                self._ray.cancel(reference)

    def list_older(self, seconds: float) -> list[int]:
        """Return the numbers of calls under way that were given out longer ago than that."""
        before = time.monotonic() - seconds
        running = self._running.values()
        return [call.number for call in running if call.sent < before]

    def await_end(self) -> None:
        """Wait until calls that were taken back, as Ctrl-C would, have ended.

        Raises:
            LostClusterError: If the cluster is gone.
        """
        while self._running:
            self._cluster.look()
            for reference in self._wait():
                del self._running[reference]
            self._look()

    def _fill(self, waiting: Iterator[tuple[int, tuple[Any, ...]]]) -> None:
        # A cluster that grows on demand has no place until something waits for it.
        most = TASKS_PER_SLOT * max(1, sum(self._count.slots))
        while len(self._running) < most:
            if self._again:
                call = self._again.popleft()
            else:
                numbered = next(waiting, None)
                if numbered is None:
                    return
                call = _Call(*numbered)
            reference = self._send(call)
            self._running[reference] = call

    def _send(self, call: _Call) -> Any:
        """Send a call; one that was ended for want of memory gets a node of its own."""
        call.sent = time.monotonic()
        task = self._task
        if call.is_large and self._count.largest > self._needs.cpus:
            task = task.options(num_cpus=self._count.largest)
        return task.remote(self._function, *call.arguments)

    def _wait(self) -> list[Any]:
        """Return the calls that have ended; none if that takes long."""
        references = list(self._running)
        ready, _ = self._ray.wait(
            references, num_returns=1, timeout=_LOOK_SECONDS
        )
        if not ready:
            return []
        every = len(references)
        ready, _ = self._ray.wait(references, num_returns=every, timeout=0)
        return list(ready)

    def _get(self, reference: Any, call: _Call) -> Any:
        """Return what a call returned, or that it is lost, or ``_AGAIN``."""
        errors = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            # The function itself raises nothing: see ``_call_silently``.
            raise ClusterError(
                "a node of the cluster cannot run medseg; install the same version of it there",
                detail=type(error.cause or error).__name__,
            ) from error
        except errors.RayError as error:
            # Where the cluster is gone, every call is lost.
            self._cluster.require()
            call.count_loss(self._see_progress(call.number))
            self.lost += 1
            for_memory = isinstance(error, errors.OutOfMemoryError)
            call.is_large = call.is_large or for_memory
        else:
            if isinstance(result, _Raised):
                raise result.error
            return result
        if call.lost >= LOST_TIMES:
            return Lost(call.lost, for_memory)
        self._again.append(call)
        return _AGAIN


class _NodeCount:
    """Counts places now and then.

    Attributes:
        slots: How many tasks each node can do at once, as of late.
        largest: The CPUs of the largest node that can do one, without those that others had when
            this began: who asks for theirs may wait for ever.
    """

    def __init__(self, cluster: RayCluster, needs: TaskNeeds) -> None:
        self._cluster = cluster
        self._needs = needs
        self._next_look = 0.0
        self.slots: list[int] = []
        self.largest = 0
        every = sum(node.cpus for node in cluster.list_nodes())
        self._taken = every - cluster.count_free().cpus
        self.look()

    def look(self) -> None:
        """Count if that was long ago.

        Raises:
            LostClusterError: As ``RayCluster.list_nodes``.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _COUNT_SECONDS
        nodes = self._cluster.list_nodes()
        self.slots = self._needs.count_slots(nodes)
        fit = [
            node.cpus
            for node, count in zip(nodes, self.slots, strict=True)
            if count
        ]
        self.largest = max(fit, default=0) - self._taken


@dataclass(slots=True)
class _Call:
    """A call on its way.

    Attributes:
        number: Of its arguments, from 0.
        arguments: What the function is called with.
        sent: When it was given out the last time, on the monotonic clock.
        lost: How many workers died of it, or with it, since it last got on.
        progress: How far it had got by then.
        is_large: Whether one was ended for want of memory, which others on its node had as well.
    """

    number: int
    arguments: tuple[Any, ...]
    sent: float = 0.0
    lost: int = 0
    progress: object = None
    is_large: bool = False

    def count_loss(self, progress: object) -> None:
        """Count one more worker, or the first one since it got on."""
        if progress != self.progress:
            self.lost = 0
            self.progress = progress
        self.lost += 1


_AGAIN = object()


def make_portable(error: Exception) -> Exception:
    """Return an error as another process can raise it, with its traceback as a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - of this very process
    except Exception:  # noqa: BLE001 - whatever keeps it from being passed on
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"on a node of the cluster:\n{trace}")
    return error


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a function raised: as a value, for Ray would tell the cluster of an error."""

    error: Exception


def _call_silently(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a worker; what libraries print there, Ray would keep in its logs."""
    with _silence():
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is asked for
            return _Raised(make_portable(error))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Send to nowhere what this process prints, libraries in C as well."""
    streams = (sys.stdout, sys.stderr)
    numbers = (1, 2)
    former = [os.dup(number) for number in numbers]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        for number, stream in zip(numbers, streams, strict=True):
            stream.flush()
            os.dup2(nowhere.fileno(), number)
        try:
            with (
                contextlib.redirect_stdout(nowhere),
                contextlib.redirect_stderr(nowhere),
            ):
                yield
        finally:
            for number, saved, stream in zip(
                numbers, former, streams, strict=True
            ):
                # What a handler of logs wrote to the stream that it had before.
                stream.flush()
                os.dup2(saved, number)
                os.close(saved)
