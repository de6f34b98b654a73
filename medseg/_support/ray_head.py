"""The head of a Ray cluster: whether it answers, and whether it is still the one that it was.

Ray itself waits many minutes for what does not answer, and ends the program where a head was
started anew. ``_raylet`` is Ray's own: what it lacks in another version is not asked.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from medseg.errors import MedsegError

GO_ON = "run the same command again: what is done stays done"
"""How a call goes on whose cluster was lost."""

HEAD_IS_GONE = (
    "the head of the Ray cluster does not answer any more; start the cluster again, and "
    f"{GO_ON}"
)
_HERE = "here"
_PLACE = re.compile(r"(?P<host>.+):(?P<port>\d{1,5})")
_LOOK_SECONDS = 2.0
_MISSED_LOOKS = 3
"""What was looked for in vain so many times is gone."""
_ANSWER_SECONDS = 10.0
_ALIVE = 0
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    [0, 0, 0, 4, 0, 0, 0, 0, 0]
)
"""How a client of HTTP/2 begins: its preface, and settings that set nothing (RFC 9113, 3.4)."""
_SETTINGS = 4
"""What a server's first frame is, by its fourth byte."""

_T = TypeVar("_T")


class ClusterError(MedsegError):
    """The cluster cannot be reached, or cannot do what is asked."""


class LostClusterError(ClusterError):
    """The cluster is gone; the same call may go on when it is there again."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as Ray counts it."""

    cpus: int
    gpus: float

    @classmethod
    def of(cls, resources: dict[str, float]) -> Node:
        """Return the node that has these resources."""
        return cls(int(resources.get("CPU", 0)), resources.get("GPU", 0.0))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a head says of its cluster.

    Attributes:
        cluster: What the cluster is called; another name after each start.
        nodes: Those that are alive.
    """

    cluster: str
    nodes: list[Node]


class Head:
    """Looks whether a server of Ray still answers: Ray waits a minute, and then aborts.

    Args:
        address: Its ``HOST:PORT``.
        lost: What is said when it does not.

    Raises:
        ClusterError: If the address is none.
    """

    def __init__(self, address: str, lost: str = HEAD_IS_GONE) -> None:
        match = _PLACE.fullmatch(address)
        if match is None:
            raise ClusterError(
                "a cluster's head is given as HOST:PORT", source=address
            )
        self._place = (match["host"].strip("[]"), int(match["port"]))
        self._lost = lost
        self._next_look = 0.0
        self._missed = 0

    def is_at(self, address: str) -> bool:
        """Tell whether an address leads to this head, by whichever name of its machine.

        Raises:
            ClusterError: If the address is none.
        """
        (host, port), (own_host, own_port) = Head(address)._place, self._place
        if port != own_port:
            return False
        return host == own_host or bool(
            _find_hosts(host) & _find_hosts(own_host)
        )

    def look(self) -> None:
        """Look now and then.

        Raises:
            LostClusterError: If it did not answer several times.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        if self.answers():
            self._missed = 0
            return
        self._missed += 1
        if self._missed >= _MISSED_LOOKS:
            raise LostClusterError(self._lost)

    def require(self) -> None:
        """Look until it answers.

        Raises:
            LostClusterError: If it does not.
        """
        while not self.answers():
            self.look()
            time.sleep(_LOOK_SECONDS / 4)

    def answers(self) -> bool:
        """Tell whether it answers right now."""
        try:
            with socket.create_connection(self._place, _LOOK_SECONDS):
                return True
        except (OSError, UnicodeError):  # the latter of what is no host's name
            return False

    def speaks_grpc(self) -> bool:
        """Tell whether what answers speaks as Ray does; what is encrypted cannot be told."""
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return True
        answer = b""
        with (
            contextlib.suppress(OSError, UnicodeError),
            socket.create_connection(self._place, _ANSWER_SECONDS) as stream,
        ):
            stream.sendall(_HELLO)
            while len(answer) <= 3 and (more := stream.recv(16)):
                answer += more
        return len(answer) > 3 and answer[3] == _SETTINGS


def can_ask(ray: Any) -> bool:
    """Tell whether this version of Ray has what ``ask_head`` takes."""
    return hasattr(getattr(ray, "_raylet", None), "GcsClient")


def ask_head(ray: Any, address: str) -> Answer | None:
    """Ask a head by a connection of its own: older ones do not survive that it is started anew.

    Args:
        ray: The package.
        address: The ``HOST:PORT`` of the head.

    Returns:
        Its answer; ``None`` if none came in time.

    Raises:
        Exception: What Ray raises, such as where it asks for a token.
    """
    connect = ray._raylet.GcsClient
    return _call_within(_ANSWER_SECONDS, partial(_ask, connect, address))


def _ask(connect: Callable[..., Any], address: str) -> Answer:
    client = connect(address=address)
    found = client.get_all_node_info(timeout=_ANSWER_SECONDS).values()
    nodes = [
        Node.of(dict(node.resources_total))
        for node in found
        if node.state == _ALIVE
    ]
    return Answer(str(client.cluster_id), nodes)


def _call_within(seconds: float, function: Callable[[], _T]) -> _T | None:
    """Return what a function returns; ``None`` if it takes longer, and it is left alone then."""
    ends: queue.SimpleQueue[tuple[_T | None, Exception | None]]
    ends = queue.SimpleQueue()

    def call() -> None:
        try:
            ends.put((function(), None))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            ends.put((None, error))

    threading.Thread(target=call, name="medseg-head", daemon=True).start()
    with contextlib.suppress(queue.Empty):
        result, error = ends.get(timeout=seconds)
        if error is not None:
            raise error
        return result
    return None


def _find_hosts(host: str) -> set[str]:
    """Return the numbers of a host; those of this machine are one, whichever way it is called."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return {host}
    hosts = set()
    for family, kind, _, _, place in found:
        number = str(place[0])
        hosts.add(_HERE if _is_here(family, kind, number) else number)
    return hosts


def _is_here(family: int, kind: int, number: str) -> bool:
    """Tell whether an address is of this machine: no other can be bound here."""
    try:
        with socket.socket(family, kind) as probe:
            probe.bind((number, 0))
    except OSError:
        return False
    return True
