"""Memory, limits and signals, as on each system."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from medseg._support.platform import processes
from medseg.planning.device_limits import _measure_memory_gb

HOG = "import sys; kept = bytearray(300_000_000); print('x', flush=True); sys.stdin.read()"
SPIN = "while True: pass"
WAIT = "import sys; sys.stdin.read()"


def test_memory_is_that_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_CGROUP_ROOT", tmp_path)
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("4096\n", encoding="ascii")
    memory = processes.measure_memory()
    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.available < memory.total


@pytest.mark.parametrize(
    ("limit_file", "used_file"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_memory_of_a_container_is_what_it_may_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit_file: str,
    used_file: str,
) -> None:
    monkeypatch.setattr(processes, "_CGROUP_ROOT", tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / limit_file).write_text("3000000\n", encoding="ascii")
    (tmp_path / used_file).write_text("1000000\n", encoding="ascii")
    memory = processes.measure_memory()
    assert memory == processes.Memory(total=3_000_000, available=2_000_000)
    cached = "anon 600000\ninactive_file 400000\nslab 7\n"
    parts = (tmp_path / limit_file).with_name("memory.stat")
    parts.write_text(cached, encoding="ascii")
    memory = processes.measure_memory()
    assert memory == processes.Memory(total=3_000_000, available=2_400_000)


def test_planning_measures_memory_on_macos_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    def sysconf(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert _measure_memory_gb(torch.device("cpu")) > 0


@pytest.mark.parametrize(
    ("code", "memory", "seconds"),
    [(HOG, 100_000_000, 100), (SPIN, 1_000_000_000, 0)],
)
def test_a_process_that_takes_too_much_is_ended_where_the_system_does_not(
    monkeypatch: pytest.MonkeyPatch, code: str, memory: int, seconds: int
) -> None:
    monkeypatch.setattr(processes, "IS_WINDOWS", True)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE
    )
    with process, processes.watch_limits(process, memory, seconds):
        assert process.wait(60) != 0


def test_a_process_within_its_limits_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "IS_WINDOWS", True)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", WAIT], stdin=subprocess.PIPE
    )
    with process, processes.watch_limits(process, 1_000_000_000, 100):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.communicate(b"")
    assert process.returncode == 0


def test_a_lower_priority_is_lower_than_before() -> None:
    code = (
        "import psutil; from medseg._support.platform import processes\n"
        "for _ in range(3): processes.lower_priority()\n"
        "print(psutil.Process().nice())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True
    )
    now = int(done.stdout)
    assert now > psutil.Process().nice() or now == 19


def test_ctrl_c_and_kill_ask_to_stop() -> None:
    assert {signal.SIGINT, signal.SIGTERM} <= set(processes.STOP_SIGNALS)


def test_whether_a_process_runs() -> None:
    assert processes.is_running(os.getpid())
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert not processes.is_running(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_asks_to_stop_is_answered_as_ctrl_c_and_no_longer(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), processes.handle_stop_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_memory_that_was_taken_for_a_moment_is_seen() -> None:
    with processes.watch_memory() as growth:
        taken = bytearray(200_000_000)
        time.sleep(0.05)
        del taken
    assert 150_000_000 < growth.bytes < 400_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps it")
def test_memory_that_was_freed_before_is_counted_again() -> None:
    grown = []
    kept = []
    for _ in range(2):
        with processes.watch_memory() as growth:
            taken = [np.ones(8000) for _ in range(1000)]
        grown.append(growth.bytes)
        kept.append(taken.pop())  # so that what lies before it is kept
        del taken
    assert min(grown) > 50_000_000
