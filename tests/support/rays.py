"""Stands for Ray where none is: calls run in this process, one when it is asked for."""

from __future__ import annotations

import itertools
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from medseg._support.ray_cluster import RayCluster


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
        self._calls: dict[int, bytes] = {}
        self._times: dict[bytes, int] = {}
        self._numbers = itertools.count()

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(gcs_address=self.address)

    def nodes(self) -> list[dict[str, Any]]:
        nodes = [{"Alive": True, "Resources": {"CPU": n}} for n in self.cpus]
        return [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options

        def send(*call: Any) -> int:
            number = next(self._numbers)
            self._calls[number] = pickle.dumps(call)
            self.most = max(self.most, len(self._calls))
            return number

        def wrap(function: Callable[..., Any]) -> SimpleNamespace:
            self._function = function
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
def one_process(*cpus: int) -> Iterator[tuple[RayCluster, OneProcess]]:
    """Give a cluster whose head answers; of these CPUs per node."""
    with socket.create_server(("127.0.0.1", 0)) as head:
        ray = OneProcess(f"127.0.0.1:{head.getsockname()[1]}", cpus or (1,))
        yield RayCluster(ray), ray
