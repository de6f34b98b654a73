"""Stands for Ray where none is: calls run in this process, one when it is asked for."""

from __future__ import annotations

import itertools
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from medseg._support.ray_cluster import RayCluster
from medseg.commands import cluster_folds
from medseg.datasets import case_workers
from medseg.inference import workers


class RayError(Exception):
    """What Ray raises for a call without a result."""


class RayTaskError(RayError):
    cause = None


class OutOfMemoryError(RayError):
    """A worker was ended for want of memory."""


class OneProcess:
    """Does what ``ray`` does, in this process.

    Attributes:
        kills: Takes a call's arguments and how often they came; an error ends the worker.
        most: How many calls there were at once.
        options: What the tasks were given.
        shares: The CPUs of each call that asked for others than the rest.
        cluster: What the head calls its cluster.
        taken: The CPUs that others use.
        own_node: What the node of this process is called, if that is to be looked at.
        cancelled: The calls that were taken back.
    """

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayTaskError=RayTaskError,
        OutOfMemoryError=OutOfMemoryError,
    )

    def __init__(self, address: str, cpus: tuple[int, ...]) -> None:
        self.address = address
        self.cpus = cpus
        self.kills: Callable[..., Exception | None] = lambda *_: None
        self.most = 0
        self.options: dict[str, Any] = {}
        self.cancelled: list[int] = []
        self.shares: list[int] = []
        self.cluster = "first"
        self.taken = 0
        self._raylet = SimpleNamespace(GcsClient=self._ask)
        self.own_node = ""
        self._calls: dict[int, bytes] = {}
        self._times: dict[bytes, int] = {}
        self._numbers = itertools.count()

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(
            gcs_address=self.address, get_node_id=lambda: self.own_node
        )

    def available_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(self.cpus) - self.taken)}

    def nodes(self) -> list[dict[str, Any]]:
        """Return the node of this process, with a server at an address that nobody is at."""
        place = {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": 1}
        return [{"NodeID": "own", **place}]

    def _ask(self, address: str) -> SimpleNamespace:
        def list_nodes(timeout: float) -> dict[int, SimpleNamespace]:
            every = [SimpleNamespace(state=1, resources_total={"CPU": 64.0})]
            for count in self.cpus:
                has = {"CPU": float(count)}
                every.append(SimpleNamespace(state=0, resources_total=has))
            return dict(enumerate(every))

        return SimpleNamespace(
            cluster_id=self.cluster, get_all_node_info=list_nodes
        )

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options

        def send(*call: Any) -> int:
            number = next(self._numbers)
            self._calls[number] = pickle.dumps(call)
            self.most = max(self.most, len(self._calls))
            return number

        def wrap(function: Callable[..., Any]) -> SimpleNamespace:
            self._function = function
            return SimpleNamespace(remote=send, options=share)

        def share(num_cpus: int) -> SimpleNamespace:
            self.shares.append(num_cpus)
            return SimpleNamespace(remote=send)

        return wrap

    def wait(
        self, references: list[int], num_returns: int, timeout: float
    ) -> tuple[list[int], list[int]]:
        # The last one first: nothing may rely on an order.
        return references[-1:], references[:-1]

    def cancel(self, reference: int) -> None:
        self.cancelled.append(reference)

    def get(self, reference: int) -> Any:
        call = self._calls.pop(reference)
        self._times[call] = self._times.get(call, 0) + 1
        function, *arguments = pickle.loads(call)  # noqa: S301 - of this test
        error = self.kills(arguments, self._times[call])
        if error is not None:
            raise error
        return self._function(function, *arguments)


@contextmanager
def listen(greeting: bytes) -> Iterator[str]:
    """Give the address of a server that greets whoever comes, or stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    stream, _ = server.accept()
                    held.append(stream)
                    stream.sendall(greeting)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for stream in held:
            stream.close()


@contextmanager
def one_process(*cpus: int) -> Iterator[tuple[RayCluster, OneProcess]]:
    """Give a cluster whose head answers; of these CPUs per node."""
    with listen(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        ray = OneProcess(address, cpus or (1,))
        yield RayCluster(ray), ray


@contextmanager
def cluster_in_process(
    monkeypatch: pytest.MonkeyPatch, *cpus: int
) -> Iterator[OneProcess]:
    """Stand for Ray wherever a cluster is joined."""
    with one_process(*cpus) as (connected, ray):

        @contextmanager
        def connect(address: str) -> Iterator[RayCluster]:
            yield connected

        for module in (case_workers, cluster_folds, workers):
            monkeypatch.setattr(module, "connect_ray", connect)
        monkeypatch.setattr(case_workers, "find_cluster", str)
        monkeypatch.setattr("medseg.commands.segment.find_cluster", str)
        yield ray
