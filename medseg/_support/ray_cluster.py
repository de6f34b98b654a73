"""A Ray cluster: joined without a word to its logs, and left in time where its head is gone.

Ray's logs and its list of jobs are read by whoever runs the cluster. So the command line, which
names folders, is not told. ``_private`` is Ray's own: what it lacks in another version is not
missed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from medseg._support.platform.processes import STOP_SIGNALS
from medseg._support.ray_head import (
    GO_ON,
    HEAD_IS_GONE,
    Answer,
    ClusterError,
    Head,
    LostClusterError,
    Node,
    ask_head,
    can_ask,
)
from medseg.errors import MedsegError, MissingExtraError

_RAY = "ray"
_LOCAL = "local"
_AUTO = "auto"
_MISSED_ANSWERS = 3
"""A head that was asked so many times in vain is gone."""
_GOODBYE = "medseg-goodbye"
_GOODBYE_SECONDS = 5.0
_OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster that is started here: only paths and ledger entries are passed."""


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


def find_cluster(text: str) -> None:
    """Make sure that a cluster is there, before anything else takes long.

    Raises:
        MedsegError: As ``parse_cluster``.
        MissingExtraError: If Ray is not installed.
        ClusterError: If a head was named, and does not answer.
    """
    address = parse_cluster(text)
    ray = _import_ray()
    if not ray.is_initialized():
        _find_address(ray, address)


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
    _await_goodbye()
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
        OSError,
        ValueError,
        RuntimeError,
        ray.exceptions.RayError,
    ) as error:
        if place == _LOCAL:
            raise _make_start_error(error) from error
        raise _make_connection_error(place, error) from error


def _find_address(ray: Any, address: str) -> str:
    """Return where the cluster's head is; ``local`` where one is to be started.

    Raises:
        ClusterError: If it does not answer: Ray would wait for it for many minutes.
    """
    given = address or os.environ.get("RAY_ADDRESS", "")
    if given == _LOCAL:
        return _LOCAL
    if given and given != _AUTO:
        _require_head(ray, parse_cluster(f"{_RAY}={given}"))
        return given
    # Of a cluster that has ended the file stays; that of another user may not be readable.
    read_address = getattr(ray._private.utils, "read_ray_address", str)
    known = ""
    with contextlib.suppress(OSError):
        known = read_address() or ""
    # Ray takes this machine's token to a cluster that it finds itself, and to no address.
    return _AUTO if known and Head(known).speaks_grpc() else _LOCAL


def _require_head(ray: Any, address: str) -> None:
    """Make sure that a head is at an address.

    Raises:
        ClusterError: If nothing answers there, or something else does.
    """
    head = Head(address)
    if not head.answers():
        raise _make_connection_error(address)
    if not head.speaks_grpc() or not _is_head(ray, address):
        raise ClusterError(
            "something answers at this address that is not the head of a Ray cluster; give the "
            "port that ray start --head was given or has printed: 6379 unless chosen, and neither "
            "that of its dashboard (8265) nor of its clients (10001)",
            source=address,
        )


def _is_head(ray: Any, address: str) -> bool:
    """Ask what answers at an address for its cluster.

    Raises:
        ClusterError: If it refuses to tell.
    """
    if not can_ask(ray):
        return True
    try:
        return ask_head(ray, address) is not None
    except Exception as error:
        raise _make_connection_error(address, error) from error


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


def _make_start_error(error: Exception) -> ClusterError:
    return ClusterError(
        "Ray cannot be started on this machine; see that the folder for its files (RAY_TMPDIR, or "
        "/tmp) can be written and has a short path, that there is room in memory, and that a "
        "token which RAY_AUTH_MODE asks for is there",
        detail=f"{type(error).__name__}: {error}",
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
    """Undo that Ray answers signals in the place of who did before.

    Raises:
        KeyboardInterrupt: In the place of the end that Ray made of one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    except SystemExit as error:
        if error.code in STOP_SIGNALS:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _leave(ray: Any) -> None:
    """Leave the cluster; a head that is gone is not waited for."""
    goodbye = threading.Thread(
        target=_say_goodbye, args=(ray,), name=_GOODBYE, daemon=True
    )
    goodbye.start()
    goodbye.join(_GOODBYE_SECONDS)
    if goodbye.is_alive():
        atexit.unregister(ray.shutdown)  # it would be waited for all the same
        worker = getattr(ray._private.worker, "global_worker", None)
        # Results that are forgotten while it still takes leave would end the program, with code 1.
        getattr(worker, "__dict__", {}).pop("core_worker", None)


def _say_goodbye(ray: Any) -> None:
    try:
        ray.shutdown()
    except AttributeError:
        # Of a head that is gone; what was forgotten meanwhile kept it from doing the rest.
        ray.shutdown()


def _await_goodbye() -> None:
    """Wait until a cluster that was lost before is left: what is left of it would end the next.

    Raises:
        ClusterError: If that takes long.
    """
    for thread in threading.enumerate():
        if thread.name == _GOODBYE:
            thread.join(_GOODBYE_SECONDS)
            if thread.is_alive():
                raise ClusterError(
                    "Ray has not left the cluster yet that was lost before; run this in another "
                    "process, or try again later"
                )


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
        context = ray.get_runtime_context()
        self.ray = ray
        self.is_left = is_left
        self._address = context.gcs_address
        self.head = Head(self._address)
        self._servers = [self.head, *_find_own_node(ray, context.get_node_id())]
        self._unanswered = 0
        self._last = self._ask()

    def look(self) -> None:
        """Look now and then whether the cluster is there.

        Raises:
            LostClusterError: If it is gone.
        """
        for server in self._servers:
            server.look()

    def require(self) -> None:
        """Look until the cluster is there.

        Raises:
            LostClusterError: If it is gone, or another one is in its place.
        """
        for server in self._servers:
            server.require()
        self.list_nodes()

    def list_nodes(self) -> list[Node]:
        """Return the nodes that are alive; those of the last time where the head says nothing.

        Raises:
            LostClusterError: If it says nothing for long, or is the head of another cluster.
        """
        answer = None
        with contextlib.suppress(Exception):
            answer = self._ask() if self.head.answers() else None
        if answer is None:
            self._unanswered += 1
        elif answer.cluster == self._last.cluster:
            self._unanswered = 0
            self._last = answer
        else:
            raise LostClusterError(
                "the head of the Ray cluster was started anew, and what it had been given is "
                f"lost; {GO_ON}"
            )
        if self._unanswered >= _MISSED_ANSWERS:
            raise LostClusterError(HEAD_IS_GONE)
        return self._last.nodes

    def count_free(self) -> Node:
        """Return what nobody uses right now, on all nodes together."""
        return Node.of(self.ray.available_resources())

    def _ask(self) -> Answer:
        """Ask the head."""
        if not can_ask(self.ray):
            alive = [node for node in self.ray.nodes() if node["Alive"]]
            nodes = [Node.of(node["Resources"]) for node in alive]
            return Answer("", nodes)
        answer = ask_head(self.ray, self._address)
        if answer is None:
            raise ClusterError(
                "the head of the Ray cluster does not answer",
                source=self._address,
            )
        return answer


def _find_own_node(ray: Any, own: str) -> Iterator[Head]:
    """Find the server of this machine's node: where it is gone, every call is lost at once."""
    for node in ray.nodes():
        if node.get("NodeID") == own:
            place = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            yield Head(
                place,
                "the node of the Ray cluster that this call was made on does not answer any more; "
                f"start it again (ray start --address=HOST:PORT), and {GO_ON}",
            )
