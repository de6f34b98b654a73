"""A Ray cluster: joined without a word to its logs, and left in time where its head is gone.

Ray's logs and its list of jobs are read by whoever runs the cluster. So the command line, which
names folders, is not told. ``_private`` is Ray's own: what it lacks in another version is not
missed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg._support.platform.processes import STOP_SIGNALS
from medseg.errors import MedsegError, MissingExtraError

_RAY = "ray"
_LOCAL = "local"
_AUTO = "auto"
_HERE = "here"
_PLACE = re.compile(r"(?P<host>.+):(?P<port>\d{1,5})")
_HEAD_SECONDS = 2.0
_MISSED_LOOKS = 3
"""The head is gone when it was looked for so many times in vain."""
_GOODBYE_SECONDS = 5.0
_OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster that is started here: only paths and ledger entries are passed."""


class ClusterError(MedsegError):
    """The cluster cannot be reached, or cannot do what is asked."""


class LostClusterError(ClusterError):
    """The head of the cluster is gone; the same call may go on when it is there again."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as Ray counts it."""

    cpus: int
    gpus: float


def parse_cluster(text: str) -> str:
    """Return the address in ``ray`` or ``ray=HOST:PORT``; empty for the cluster of this machine.

    Raises:
        MedsegError: If it is neither.

    Examples:
        >>> parse_cluster("ray=10.0.0.1:6379"), parse_cluster("ray")
        ('10.0.0.1:6379', '')
    """
    kind, _, address = text.strip().partition("=")
    if kind != _RAY:
        raise MedsegError(
            "a cluster is given as ray, or ray=HOST:PORT with the address of its head"
        )
    if "://" in address:
        raise MedsegError(
            "a Ray cluster is reached by its head's HOST:PORT, from a machine that belongs to it; "
            "ray:// addresses are for programs outside"
        )
    return address


def check_cluster(text: str) -> None:
    """Make sure that a cluster is given as it should be, before anything else takes long.

    Raises:
        MedsegError: As ``parse_cluster``.
        MissingExtraError: If Ray is not installed.
    """
    parse_cluster(text)
    _import_ray()


def find_cluster(text: str) -> None:
    """Make sure that a cluster is there, before anything else takes long.

    Raises:
        MedsegError: As ``check_cluster``.
        ClusterError: If a head was named, and does not answer.
    """
    check_cluster(text)
    ray = _import_ray()
    if not ray.is_initialized():
        _find_address(ray, parse_cluster(text))


@contextlib.contextmanager
def connect_ray(address: str = "") -> Iterator[RayCluster]:
    """Connect to a Ray cluster, and leave it at the end.

    Args:
        address: Of its head. Where none is given: the cluster that this program is connected to
            already, that of ``RAY_ADDRESS``, the one that runs on this machine, or a new one on
            this machine for as long as this lasts.

    Raises:
        MissingExtraError: If Ray is not installed.
        ClusterError: If the cluster cannot be reached; or if this program is connected to that
            of another head.
    """
    ray = _import_ray()
    if ray.is_initialized():
        cluster = RayCluster(ray)
        if address and not cluster.head.is_at(address):
            raise ClusterError(
                "this program is connected to another Ray cluster already; leave out the address "
                "to use that one, or call ray.shutdown() first",
                source=address,
            )
        yield cluster
        return
    with _hush(ray):
        with _keep_signal_handlers():
            _begin(ray, address)
        try:
            yield RayCluster(ray, is_left=True)
        finally:
            _leave(ray)


def _import_ray() -> Any:
    # Read by whatever Ray starts: it reports to its makers otherwise.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "Ray is not installed; install it with: pip install 'medseg[ray]'"
        ) from error
    return ray


def _begin(ray: Any, address: str) -> None:
    """Connect this process, or start a cluster for it."""
    place = _find_address(ray, address)
    own: dict[str, Any] = {}
    if place == _LOCAL:
        own = {"include_dashboard": False}
        own["object_store_memory"] = _OBJECT_STORE_BYTES
    try:
        ray.init(
            address=place, log_to_driver=False, logging_level="ERROR", **own
        )
    except (
        ConnectionError,
        ValueError,
        RuntimeError,
        ray.exceptions.RayError,
    ) as error:
        raise _make_connection_error(place, error) from error


def _find_address(ray: Any, address: str) -> str:
    """Return where the cluster's head is; ``local`` where one is to be started.

    Raises:
        ClusterError: If it does not answer: Ray would wait for it for many minutes.
    """
    given = address or os.environ.get("RAY_ADDRESS", "")
    if given and given != _AUTO:
        if not Head(parse_cluster(f"{_RAY}={given}")).answers():
            raise _make_connection_error(given)
        return given
    # Of a cluster that has ended the file stays.
    read_address = getattr(ray._private.utils, "read_ray_address", str)
    known = read_address() or ""
    # Ray takes this machine's token to a cluster that it finds itself, and to no address.
    return _AUTO if known and Head(known).answers() else _LOCAL


def _make_connection_error(
    address: str, error: Exception | None = None
) -> ClusterError:
    return ClusterError(
        "the Ray cluster cannot be reached; see that its head runs, that this machine belongs to "
        "it (ray start --address=HOST:PORT), and that both have the same versions of Python and "
        "Ray and, where the head asks for a token, the same RAY_AUTH_MODE and RAY_AUTH_TOKEN",
        source=address,
        detail=None if error is None else type(error).__name__,
    )


@contextlib.contextmanager
def _hush(ray: Any) -> Iterator[None]:
    """Keep Ray from telling the cluster our command line, and from printing among our results."""
    private = ray._private
    with (
        _replace(private.utils, "get_entrypoint_name", lambda: "medseg"),
        _replace(private.worker, "print_to_stdstream", _print_nothing),
    ):
        yield


def _print_nothing(*_: Any, **__: Any) -> None:
    """Take the place of what prints in other versions of Ray, too."""


@contextlib.contextmanager
def _replace(module: Any, name: str, other: Any) -> Iterator[None]:
    former = getattr(module, name, None)
    setattr(module, name, other)
    try:
        yield
    finally:
        setattr(module, name, former)


@contextlib.contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Undo that Ray answers signals in the place of who did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _leave(ray: Any) -> None:
    """Leave the cluster; a head that is gone is not waited for."""
    goodbye = threading.Thread(target=_say_goodbye, args=(ray,), daemon=True)
    goodbye.start()
    goodbye.join(_GOODBYE_SECONDS)
    if goodbye.is_alive():
        atexit.unregister(ray.shutdown)  # it would be waited for all the same
        worker = getattr(ray._private.worker, "global_worker", None)
        # Results that are forgotten while it still takes leave would end the program, with code 1.
        getattr(worker, "__dict__", {}).pop("core_worker", None)


def _say_goodbye(ray: Any) -> None:
    # Of a head that is gone; nobody waits for it any more.
    with contextlib.suppress(AttributeError):
        ray.shutdown()


class Head:
    """Looks whether the head of a cluster still answers: Ray waits a minute, and then aborts.

    Args:
        address: Its ``HOST:PORT``.

    Raises:
        ClusterError: If the address is none.
    """

    def __init__(self, address: str) -> None:
        match = _PLACE.fullmatch(address)
        if match is None:
            raise ClusterError(
                "a cluster's head is given as HOST:PORT", source=address
            )
        self._place = (match["host"].strip("[]"), int(match["port"]))
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
        self._next_look = now + _HEAD_SECONDS
        if self.answers():
            self._missed = 0
            return
        self._missed += 1
        if self._missed >= _MISSED_LOOKS:
            raise LostClusterError(
                "the head of the Ray cluster does not answer any more; start the cluster again, "
                "and run the same command again: what is done stays done"
            )

    def require(self) -> None:
        """Look until it answers.

        Raises:
            LostClusterError: If it does not.
        """
        while not self.answers():
            self.look()
            time.sleep(_HEAD_SECONDS / 4)

    def answers(self) -> bool:
        """Tell whether it answers right now."""
        try:
            with socket.create_connection(self._place, _HEAD_SECONDS):
                return True
        except (OSError, UnicodeError):  # the latter of what is no host's name
            return False


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


class RayCluster:
    """A cluster that this process is connected to.

    Args:
        ray: The package, connected.
        is_left: Whether this process leaves it at the end, which ends the calls under way.

    Attributes:
        ray: The same.
        head: Its head.
        is_left: The same.
    """

    def __init__(self, ray: Any, *, is_left: bool = False) -> None:
        self.ray = ray
        self.is_left = is_left
        self.head = Head(ray.get_runtime_context().gcs_address)

    def list_nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        nodes = []
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                nodes.append(Node(int(has.get("CPU", 0)), has.get("GPU", 0.0)))
        return nodes
