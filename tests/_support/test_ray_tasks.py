"""Tasks: few at a time, begun again where a worker is lost, and silent."""

from __future__ import annotations

import os
import socket
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.rays import (
    OneProcess,
    OutOfMemoryError,
    RayError,
    listen,
    one_process,
)

from medseg._support import ray_cluster, ray_head
from medseg._support.ray_cluster import (
    RayCluster,
    connect_ray,
    find_cluster,
    parse_cluster,
)
from medseg._support.ray_head import ClusterError, Head, LostClusterError
from medseg._support.ray_tasks import Lost, TaskNeeds, TaskRun, call_once
from medseg._support.task_needs import announce_waiting
from medseg.errors import MedsegError, MissingExtraError, ScanError
from medseg.events import Event, Notice


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise ScanError("no scan", source="zaphod.nii.gz")


def shout(number: int) -> int:
    print("zaphod")
    os.write(2, b"zaphod")
    return number


def test_every_call_ends_once_and_few_are_under_way() -> None:
    taken = []

    def give() -> Iterator[tuple[int]]:
        for number in range(50):
            taken.append(number)
            yield (number,)

    with one_process(2, 1) as (cluster, ray):
        run = TaskRun(cluster, double, TaskNeeds())
        found = {}
        for number, result in run.over(give()):
            found[number] = result
            assert len(taken) - len(found) <= 6
    assert found == {number: 2 * number for number in range(50)}
    assert ray.most == 6
    assert run.nodes == 2
    assert ray.options["max_retries"] == ray.options["max_calls"] == 0


def test_a_lost_worker_is_tried_again_and_given_up_after_three_times() -> None:
    def kill(arguments: list[int], times: int) -> Exception | None:
        if arguments == [3]:
            return OutOfMemoryError()
        return RayError() if arguments == [5] and times < 3 else None

    with one_process() as (cluster, ray):
        ray.kills = kill
        run = TaskRun(cluster, double, TaskNeeds())
        found = dict(run.over((number,) for number in range(8)))
    assert found.pop(3) == Lost(3, for_memory=True)
    assert found == {n: 2 * n for n in range(8) if n != 3}
    assert run.lost == 5


def test_a_call_that_gets_on_between_losses_is_not_given_up() -> None:
    steps = iter([1, 2, 3, 4, 4, 4])
    seen = []

    def see_progress(number: int) -> int:
        seen.append(number)
        return next(steps)

    with one_process() as (cluster, ray):
        ray.kills = lambda arguments, times: RayError()
        run = TaskRun(cluster, double, TaskNeeds(), see_progress=see_progress)
        assert list(run.over([(1,)])) == [(0, Lost(3, for_memory=False))]
    assert seen == [0] * 6


def test_calls_that_were_taken_back_are_waited_for() -> None:
    looks: list[int] = []
    with one_process(1) as (cluster, _):
        run = TaskRun(
            cluster, double, TaskNeeds(), look=lambda: looks.append(1)
        )
        with closing(run.over((number,) for number in range(9))) as ended:
            next(ended)
        before = len(looks)
        run.await_end()
    assert not run._running
    assert len(looks) > before


def test_what_a_task_raises_is_raised_with_its_traceback_and_names_stay() -> (
    None
):
    with (
        one_process() as (cluster, _),
        pytest.raises(ScanError, match="no scan") as raised,
    ):
        call_once(cluster, fail, 1, needs=TaskNeeds())
    assert raised.value.source == "zaphod.nii.gz"
    assert "in fail" in raised.value.__notes__[0]


def test_tasks_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with one_process() as (cluster, _):
        assert call_once(cluster, shout, 7, needs=TaskNeeds()) == 7
        print("heard")
    assert capfd.readouterr() == ("heard\n", "")


def test_where_the_head_is_gone_no_scan_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_head, "_LOOK_SECONDS", 0.01)
    with one_process() as (cluster, ray):
        ray.kills = lambda *_: RayError()
        run = TaskRun(cluster, double, TaskNeeds())
    with pytest.raises(LostClusterError, match="is done stays done"):
        list(run.over([(1,), (2,)]))


def test_a_head_that_was_started_anew_blames_no_scan() -> None:
    def start_anew(*_: object) -> Exception:
        ray.cluster = "second"
        return RayError()

    with one_process() as (cluster, ray):
        ray.kills = start_anew
        run = TaskRun(cluster, double, TaskNeeds())
        with pytest.raises(LostClusterError, match="was started anew"):
            list(run.over([(1,), (2,)]))


def test_where_the_own_node_is_gone_no_scan_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_head, "_LOOK_SECONDS", 0.01)
    with one_process() as (_, ray):
        ray.own_node = "own"
        ray.kills = lambda *_: RayError()
        run = TaskRun(RayCluster(ray), double, TaskNeeds())
        with pytest.raises(LostClusterError, match="that this call was made"):
            list(run.over([(1,), (2,)]))


@pytest.mark.parametrize(("taken", "share"), [(0, 16), (3, 13), (20, None)])
def test_a_call_that_lacked_memory_gets_a_node_of_its_own(
    taken: int, share: int | None
) -> None:
    def kill(arguments: list[int], times: int) -> Exception | None:
        is_large = arguments == [3] and times < 3
        return OutOfMemoryError() if is_large else None

    with one_process(8, 2, 16) as (cluster, ray):
        ray.kills = kill
        ray.taken = taken
        run = TaskRun(cluster, double, TaskNeeds(cpus=2))
        found = dict(run.over((number,) for number in range(8)))
    assert found[3] == 6
    # Who asks for what others have would wait for it, maybe for ever.
    assert ray.shares == ([] if share is None else [share, share])


def test_who_waits_for_others_is_told_so() -> None:
    told: list[Event] = []
    with one_process(4, 4) as (cluster, ray):
        announce_waiting(TaskNeeds(cpus=4), cluster, [told.append])
        assert not told
        ray.taken = 6
        announce_waiting(TaskNeeds(cpus=4), cluster, [told.append])
        announce_waiting(TaskNeeds(cpus=8), cluster, [told.append])
    notes = [event.message for event in told if isinstance(event, Notice)]
    assert notes == [
        "others use the cluster: waiting for 4 free CPUs",
        "waiting for a node with 8 free CPUs",
    ]


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9\r\n"])
def test_what_is_no_head_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, greeting: bytes
) -> None:
    monkeypatch.setattr(ray_head, "_ANSWER_SECONDS", 0.2)
    with listen(greeting) as address, one_process() as (_, ray):
        with pytest.raises(ClusterError, match="not the head") as raised:
            ray_cluster._find_address(ray, address)
        assert raised.value.source == address


def test_what_speaks_as_a_head_and_is_none_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_head, "_ANSWER_SECONDS", 0.2)
    is_over = threading.Event()
    with one_process() as (_, ray):
        ray._raylet.GcsClient = lambda address: is_over.wait()
        with pytest.raises(ClusterError, match="not the head"):
            ray_cluster._find_address(ray, ray.address)
    is_over.set()


def fail_to_connect(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def init(**_: object) -> None:
        raise error

    private = types.SimpleNamespace(
        utils=types.SimpleNamespace(), worker=types.SimpleNamespace()
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with one_process() as (_, ray):
        monkeypatch.setattr(ray, "_private", private, raising=False)
        monkeypatch.setattr(ray, "init", init, raising=False)
        monkeypatch.setattr(ray, "is_initialized", lambda: False, raising=False)
        monkeypatch.setitem(sys.modules, "ray", ray)
        connect_ray().__enter__()


def test_a_ray_that_cannot_start_here_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = PermissionError(13, "Permission denied", "/tmp/ray")
    with pytest.raises(ClusterError, match="cannot be started") as raised:
        fail_to_connect(monkeypatch, error)
    assert "/tmp/ray" not in raised.value.message
    assert "/tmp/ray" in str(raised.value.detail)


def test_who_is_stopped_while_ray_starts_ends_as_at_other_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ray answers SIGTERM in that time, and ends the program with the number of the signal.
    with pytest.raises(KeyboardInterrupt):
        fail_to_connect(monkeypatch, SystemExit(15))


def test_who_stops_early_leaves_no_call_under_way() -> None:
    with one_process(2) as (cluster, ray):
        run = TaskRun(cluster, double, TaskNeeds())
        with closing(run.over((number,) for number in range(9))) as ended:
            next(ended)
        assert len(ray.cancelled) == 3
        assert set(ray.cancelled) == set(run._running)
        again = TaskRun(cluster, double, TaskNeeds())
        assert len(dict(again.over((number,) for number in range(9)))) == 9
        assert len(ray.cancelled) == 3


@pytest.mark.parametrize("is_awaited", [False, True])
def test_calls_that_end_with_the_connection_are_taken_back_where_they_are_awaited(
    is_awaited: bool,
) -> None:
    with one_process(2) as (cluster, ray):
        cluster.is_left = True
        run = TaskRun(cluster, double, TaskNeeds(), is_awaited=is_awaited)
        with closing(run.over((number,) for number in range(9))) as ended:
            next(ended)
        assert bool(ray.cancelled) == is_awaited


def connect_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ray: OneProcess, address: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with connect_ray(address) as cluster:
        assert cluster.head.answers()


def test_who_is_connected_already_is_not_taken_to_another_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with one_process() as (_, ray):
        port = ray.address.rpartition(":")[2]
        for same in ("", ray.address, f"localhost:{port}", f"127.1.2.3:{port}"):
            connect_elsewhere(monkeypatch, ray, same)
        for other in (f"192.0.2.1:{port}", "127.0.0.1:1", f"a..b:{port}"):
            with pytest.raises(ClusterError, match="another Ray cluster"):
                connect_elsewhere(monkeypatch, ray, other)


def test_what_is_no_hosts_name_does_not_answer() -> None:
    assert not Head("a..b:6379").answers()
    with pytest.raises(ClusterError, match="HOST:PORT"):
        Head("host")


def test_a_head_that_answers_again_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_head, "_LOOK_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    head = Head(f"127.0.0.1:{port}")
    head.look()
    head.look()
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(ray_head, "_LOOK_SECONDS", 1.0)
        head._next_look = 0.0
        head.look()
    monkeypatch.setattr(ray_head, "_LOOK_SECONDS", 0.0)
    head._next_look = 0.0
    head.look()
    head.look()
    with pytest.raises(LostClusterError):
        head.look()


def test_a_cluster_of_this_machine_is_left_to_ray_to_join_with_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with one_process() as (_, ray):
        utils = types.SimpleNamespace(read_ray_address=lambda: ray.address)
        ray._private = types.SimpleNamespace(utils=utils)
        assert ray_cluster._find_address(ray, "") == "auto"
        assert ray_cluster._find_address(ray, ray.address) == ray.address
        monkeypatch.setenv("RAY_ADDRESS", "local")
        assert ray_cluster._find_address(ray, "") == "local"
        monkeypatch.delenv("RAY_ADDRESS")
    assert ray_cluster._find_address(ray, "") == "local"


def test_a_cluster_of_another_user_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read() -> str:
        raise PermissionError(13, "Permission denied", "/tmp/ray/address")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    utils = types.SimpleNamespace(read_ray_address=read)
    with one_process() as (_, ray):
        ray._private = types.SimpleNamespace(utils=utils)
        assert ray_cluster._find_address(ray, "") == "local"


@pytest.mark.parametrize("text", ["dask", "ray://head:10001", "ray=ray://a:1"])
def test_what_is_no_cluster_is_refused(text: str) -> None:
    with pytest.raises(MedsegError, match="HOST:PORT"):
        parse_cluster(text)


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'medseg\[ray\]'"):
        find_cluster("ray")


@pytest.mark.parametrize(
    ("address", "what"),
    [("127.0.0.1:9", "cannot be reached"), ("head", "HOST:PORT")],
)
def test_a_head_that_is_not_there_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, what: str
) -> None:
    ray = types.ModuleType("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False, raising=False)
    private = types.SimpleNamespace(
        utils=types.SimpleNamespace(), worker=types.SimpleNamespace()
    )
    monkeypatch.setattr(ray, "_private", private, raising=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ClusterError, match=what), connect_ray(address):
        pass


def test_workers_that_never_survive_are_an_error_of_the_cluster() -> None:
    with one_process() as (cluster, ray):
        ray.kills = lambda *_: RayError()
        with pytest.raises(ClusterError, match="die as soon as they begin"):
            call_once(cluster, double, 1, needs=TaskNeeds())
