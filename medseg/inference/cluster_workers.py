"""A batch on a cluster: this process gives out scans, and alone keeps the ledger."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medseg._support.cluster_nodes import await_sight
from medseg._support.ray_cluster import RayCluster
from medseg._support.ray_tasks import Lost, TaskNeeds, TaskRun, call_once
from medseg._support.task_needs import announce_waiting, choose_needs
from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_bundle
from medseg.datasets.cases import Scan
from medseg.errors import MedsegError, OutputError, ScanError
from medseg.events import Listener, Notice, notify
from medseg.inference.batch import ScanBatch
from medseg.inference.batch_state import read_state
from medseg.inference.ledger_entry import Entry
from medseg.inference.method import Method, tell_time
from medseg.inference.scan_tasks import (
    Assignment,
    Loading,
    ScanResult,
    describe_method,
    segment_on_node,
)

_LATELY = 200
"""Scans whose pace is told."""
_SLOW_SECONDS = 600.0
_SLOW_TIMES = 10
"""A scan that takes so many times as long as any other is told."""

Record = Callable[[Entry, Mapping[str, float]], Any]


@dataclass(frozen=True, slots=True)
class ClusterWorkers:
    """The nodes of a cluster.

    Attributes:
        cluster: The cluster.
        needs: What each task takes.
        loading: How each process loads the bundle.
        method: What results are made with.
        root: Where the scans were looked for.
        listeners: Told what a person should know.
    """

    cluster: RayCluster
    needs: TaskNeeds
    loading: Loading
    method: Method
    root: Path
    listeners: Sequence[Listener] = ()

    @classmethod
    def load(
        cls,
        cluster: RayCluster,
        bundle: Bundle,
        path: Path,
        device: str,
        choices: Mapping[str, Any],
        *,
        root: Path,
        threads: int | None,
        tasks_per_gpu: int,
        listeners: Sequence[Listener],
    ) -> ClusterWorkers:
        """Load a bundle on one node, to know what is wrong with it before scans are given out.

        Raises:
            MedsegError: As ``Segmenter``; or if the cluster cannot do what was asked for.
        """
        nodes = cluster.list_nodes()
        needs = choose_needs(nodes, device, threads, tasks_per_gpu)
        announce_waiting(needs, cluster, listeners)
        given = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in choices.items()
        }
        loading = Loading(
            bundle=str(path.absolute()),
            bundle_hash=hash_bundle(bundle),
            device="cuda" if needs.gpus else "cpu",
            choices=tuple(sorted(given.items())),
            threads=needs.cpus,
            medseg=version("medseg"),
        )
        method = call_once(cluster, describe_method, loading, needs=needs)
        if isinstance(method, MedsegError):
            raise method
        return cls(cluster, needs, loading, method, root, listeners)

    def prepare(self, batch: ScanBatch) -> Callable[..., list[Any]]:
        """Return what gives scans out to nodes, and enters what comes back."""
        state_folder = batch.ledger.path.parent
        state = read_state(state_folder)
        if state is None:
            raise TypeError("the state of a batch is written before it begins")
        assignment = Assignment(
            loading=self.loading,
            root=str(self.root.absolute()),
            out=str(batch.out.absolute()),
            state=str(state_folder.absolute()),
            began=state.began,
            formats=tuple(batch.formats),
            options=batch.options,
        )
        return partial(self._run, batch, assignment)

    def _run(
        self,
        batch: ScanBatch,
        assignment: Assignment,
        scans: Sequence[Scan],
        *,
        record: Record,
    ) -> list[Any]:
        """Give out scans; return what ``record`` made of their ends, in their order."""
        slow = _SlowScans(scans, self.listeners)
        run = TaskRun(
            self.cluster,
            segment_on_node,
            self.needs,
            look=lambda: slow.look(run),
        )
        done: list[Any] = [None] * len(scans)
        pace = _Pace()
        tasks = _list_tasks(batch, assignment, scans)
        with contextlib.closing(run.over(tasks)) as ended:
            for number, result in ended:
                entry, seconds = self._adopt(batch, scans[number], result)
                slow.note(seconds)
                batch.note = pace.describe(run.nodes)
                done[number] = record(entry, seconds)
        if run.lost:
            batch.ledger.remove_half_written()
        return done

    def _adopt(
        self,
        batch: ScanBatch,
        scan: Scan,
        result: ScanResult | MedsegError | Lost,
    ) -> tuple[Entry, Mapping[str, float]]:
        """Make what a node said of a scan this batch's own.

        Raises:
            MedsegError: If it ends the batch.
        """
        if isinstance(result, MedsegError):
            raise result
        if isinstance(result, Lost):
            error = ScanError(describe_lost(result))
            return batch.on_error(scan, "segment", error), {}
        self._check_sight(batch, scan, result)
        for event in result.events:
            notify(self.listeners, event)
        if result.full_error:
            batch.full_errors[scan.name] = result.full_error
        if result.bug is not None and batch.bug is None:
            batch.bug = result.bug
        entry = result.entry
        if entry.state != "skipped":
            # Ledgers are compared by their times, and the clock of a node may be another.
            entry = entry.model_copy(update={"finished": tell_time()})
        return entry, result.seconds

    def _check_sight(
        self, batch: ScanBatch, scan: Scan, result: ScanResult
    ) -> None:
        """Make sure that the node saw the scan, and that this process sees its result.

        Raises:
            MedsegError: If it did not.
            OutputError: If this one does not.
        """
        if result.is_unseen and all(file.exists() for file in scan.files):
            raise MedsegError(
                "a node of the cluster does not see a scan that is there; scans must lie on a "
                "disk that all nodes share, at the same path",
                source=scan.files[0],
            )
        files = [batch.out / name for name in result.entry.files]
        for file in files:
            if not await_sight(file.exists):
                raise OutputError(
                    "a node of the cluster has written a result that is not there; OUT must lie "
                    "on a disk that all nodes share, at the same path",
                    source=file,
                )


def describe_lost(lost: Lost) -> str:
    """Return why a scan has no result whose worker died each time."""
    why = "its process died"
    if lost.for_memory:
        why = "its process was ended for want of memory"
    return (
        f"{why} {lost.times} times, and it is not tried again; segment it alone to see why, or on "
        "a machine with more memory"
    )


def _list_tasks(
    batch: ScanBatch, assignment: Assignment, scans: Iterable[Scan]
) -> Iterator[tuple[Assignment, Scan, Entry | None]]:
    """Give what each task gets; entries are looked up as late as possible."""
    for scan in scans:
        parts = []
        for part in scan.parts:
            parts.append(tuple(file.absolute() for file in part))
        there = replace(scan, parts=tuple(parts))
        yield assignment, there, batch.ledger.entries.get(scan.name)


class _Pace:
    """How fast scans are done, of late."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_LATELY)

    def describe(self, nodes: int) -> str:
        """Count a scan as done; return what is told beside the bar."""
        now = time.monotonic()
        self._ends.append(now)
        text = "1 node" if nodes == 1 else f"{nodes} nodes"
        taken = now - self._ends[0]
        if taken <= 0:
            return text
        return f"{text}, {(len(self._ends) - 1) / taken:.2g} scans/s"


class _SlowScans:
    """Tells of scans without an end: a process that hangs is lost to nobody, and waited for."""

    def __init__(
        self, scans: Sequence[Scan], listeners: Sequence[Listener]
    ) -> None:
        self._scans = scans
        self._listeners = listeners
        self._longest = 0.0
        self._told: set[int] = set()

    def note(self, seconds: Mapping[str, float]) -> None:
        """Note how long a scan took."""
        self._longest = max(self._longest, sum(seconds.values()))

    def look(self, run: TaskRun) -> None:
        """Tell of each scan once; while none has ended, nobody knows what is long."""
        if not self._longest:
            return
        limit = max(_SLOW_SECONDS, _SLOW_TIMES * self._longest)
        for number in set(run.list_older(limit)) - self._told:
            self._told.add(number)
            text = (
                f"{self._scans[number].name}: not done after {limit / 60:.0f} minutes, and none "
                f"took longer than {self._longest:.0f} seconds; its process may hang. If so, end "
                "that process on its node (it is begun anew), or this call (Ctrl-C)"
            )
            notify(self._listeners, Notice(text))
