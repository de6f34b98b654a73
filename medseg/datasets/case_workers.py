"""Who works through the cases of a data set: this process, or the nodes of a cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from medseg._support.cluster_nodes import require_version
from medseg._support.ray_cluster import (
    connect_ray,
    find_cluster,
    parse_cluster,
)
from medseg._support.ray_tasks import Lost, TaskRun
from medseg._support.task_needs import announce_waiting, choose_needs
from medseg._support.threads import limit_threads
from medseg.datasets.cases import Case
from medseg.errors import Fault, MedsegError
from medseg.events import Listener

_MOST_THREADS = 4  # each holds a case in memory; more only wait for the disk

_T = TypeVar("_T")


class CaseWorkers(Protocol):
    """Whoever works through cases."""

    def map(
        self, function: Callable[[Case], _T], cases: Sequence[Case], task: str
    ) -> Iterator[_T | Fault]:
        """Call a function with each case.

        Args:
            function: One that other processes can be given.
            cases: The cases.
            task: What is done to them, in a word or two.

        Yields:
            What it returned, in the order of the cases; or why there is no result.
        """


class CaseThreads:
    """A few threads of this process."""

    def map(
        self, function: Callable[[Case], _T], cases: Sequence[Case], task: str
    ) -> Iterator[_T]:
        """Call a function with each case; as ``CaseWorkers.map``."""
        threads = min(_MOST_THREADS, max(2, os.cpu_count() or 2))
        with ThreadPoolExecutor(threads, thread_name_prefix=task) as pool:
            yield from pool.map(function, cases)


HERE = CaseThreads()
"""Who works through cases unless a person says otherwise."""


@dataclass(frozen=True, slots=True)
class CaseCluster:
    """The nodes of a cluster; it is joined when there is a case to work on.

    Attributes:
        on: ``ray`` or ``ray=HOST:PORT``.
        threads: CPUs for each case, if a person said how many.
        listeners: Told what a person should know of the cluster.
    """

    on: str
    threads: int | None = None
    listeners: Sequence[Listener] = ()

    def map(
        self, function: Callable[[Case], _T], cases: Sequence[Case], task: str
    ) -> Iterator[_T | Fault]:
        """Call a function with each case; as ``CaseWorkers.map``.

        A case whose process dies three times has a fault for that reason.

        Raises:
            ClusterError: If the cluster cannot be reached, or ends.
            MedsegError: If a node does not see the data.
        """
        if not cases:
            return
        with connect_ray(parse_cluster(self.on)) as cluster:
            nodes = cluster.list_nodes()
            needs = choose_needs(nodes, "cpu", self.threads, 1)
            announce_waiting(needs, cluster, self.listeners)
            place = _Place(
                folder=str(Path.cwd()),
                seen=_find_folder(cases),
                threads=needs.cpus,
                medseg=version("medseg"),
            )
            tasks = TaskRun(cluster, work_on_node, needs)
            arguments = ((place, function, case) for case in cases)
            with closing(tasks.over(arguments)) as ended:
                for case, result in _put_in_order(cases, ended):
                    if isinstance(result, Lost):
                        yield Fault(case.name, _describe_lost(result))
                    else:
                        yield result


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and how the driver works.

    Attributes:
        folder: Its working folder, to which paths of cases may be relative.
        seen: A folder of the data, by its whole path.
        threads: Of arithmetic.
        medseg: Its version of medseg.
    """

    folder: str
    seen: str
    threads: int
    medseg: str


def choose_case_workers(
    on: str, threads: int | None, listeners: Sequence[Listener]
) -> CaseWorkers:
    """Return who works through cases.

    Args:
        on: ``ray`` or ``ray=HOST:PORT`` for a cluster; empty for this process.
        threads: CPUs of a cluster for each case, if a person said how many.
        listeners: Told what a person should know of the cluster.

    Raises:
        MedsegError: If no cluster is given that way.
        MissingExtraError: If Ray is not installed.
        ClusterError: If the head was named, and does not answer.
    """
    if not on:
        return HERE
    find_cluster(on)
    return CaseCluster(on, threads, listeners)


def work_on_node(
    place: _Place, function: Callable[[Case], Any], case: Case
) -> Any:
    """Call a function with one case, where all is as the driver has it.

    Raises:
        MedsegError: If this node has another version of medseg, or does not see the data.
    """
    require_version(place.medseg)
    # Where all paths are absolute it need not be there.
    with contextlib.suppress(OSError):
        os.chdir(place.folder)
    if not Path(place.seen).is_dir():
        raise MedsegError(
            "a node of the cluster does not see the data; they must lie on a disk that all nodes "
            "share, at the same path",
            source=place.seen,
        )
    with limit_threads(place.threads):
        return function(case)


def _find_folder(cases: Sequence[Case]) -> str:
    """Return a folder that images lie in; the root of the disk where none is there."""
    for case in cases:
        folder = case.scan.files[0].parent.absolute()
        if folder.is_dir():
            return str(folder)
    return Path.cwd().anchor


def _put_in_order(
    cases: Sequence[Case], ended: Iterable[tuple[int, Any]]
) -> Iterator[tuple[Case, Any]]:
    """Yield each case with its result as soon as those before it have theirs."""
    results: dict[int, Any] = {}
    following = 0
    for number, result in ended:
        results[number] = result
        while following in results:
            yield cases[following], results.pop(following)
            following += 1


def _describe_lost(lost: Lost) -> str:
    why = "died"
    if lost.for_memory:
        why = "was ended for want of memory"
    return (
        f"the process that read it {why} {lost.times} times, and it is not tried again; read it "
        "alone to see why, or on a machine with more memory"
    )
