"""What a GPU has made is written behind it: in order, whole, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support.pretend_gpu import PretendGpus, pretend_gpus

from medseg.inference import host_writer
from medseg.inference.host_writer import HostWriter


@pytest.fixture
def gpus() -> Iterator[PretendGpus]:
    with pretend_gpus() as gpus:
        yield gpus


def count_threads() -> int:
    return sum(
        thread.name.startswith("medseg-host")
        for thread in threading.enumerate()
    )


def test_what_lies_on_the_host_is_written_at_once_and_without_a_thread() -> (
    None
):
    written: list[float] = []
    host = HostWriter()
    host.write(torch.tensor(2.5), lambda found: written.append(float(found)))
    assert written == [2.5]
    assert count_threads() == 0


def test_what_a_gpu_made_is_written_in_order_and_never_waited_for(
    gpus: PretendGpus,
) -> None:
    written: list[list[float]] = []
    host = HostWriter()
    for number in range(20):
        made = torch.arange(3, device="cuda") + number
        host.write(made, lambda found: written.append(found.tolist()))
        del made
    assert gpus.live == 0
    host.finish()
    assert written == [[n, n + 1, n + 2] for n in range(20)]
    assert not gpus.waits
    assert count_threads() == 1
    host.close()
    assert count_threads() == 0


def test_an_error_of_the_thread_reaches_the_caller(gpus: PretendGpus) -> None:
    def refuse(found: np.ndarray) -> None:
        raise ValueError("no room")

    host = HostWriter()
    host.write(torch.ones(3, device="cuda"), refuse)
    with pytest.raises(ValueError, match="no room"):
        host.finish()
    host.write(torch.ones(3, device="cuda"), refuse)
    host._behind[0][1].exception()  # until it has failed
    with pytest.raises(ValueError, match="no room"):
        host.write(torch.ones(3, device="cuda"), refuse)
    host.close()


def test_what_waits_to_be_written_is_bounded(
    gpus: PretendGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_writer, "MOST_BYTES_BEHIND", 100)
    host = HostWriter()
    behind: list[int] = []
    for _ in range(8):
        made = torch.ones(60, dtype=torch.uint8, device="cuda")
        host.write(made, lambda _: behind.append(host._bytes_behind))
        assert host._bytes_behind == 60
    large = torch.ones(200, dtype=torch.uint8, device="cuda")
    host.write(large, lambda _: behind.append(0))
    host.finish()
    assert len(behind) == 9
    assert host._bytes_behind == 0
    host.close()


def test_what_is_not_written_yet_is_let_go_where_the_writer_is_closed(
    gpus: PretendGpus,
) -> None:
    began, may_end = threading.Event(), threading.Event()
    written: list[int] = []

    def wait(found: np.ndarray) -> None:
        began.set()
        may_end.wait()

    host = HostWriter()
    host.write(torch.ones(1, device="cuda"), wait)
    began.wait()
    host.write(torch.ones(1, device="cuda"), lambda _: written.append(1))
    threading.Timer(0.05, may_end.set).start()
    host.close()
    assert not written
    assert count_threads() == 0
