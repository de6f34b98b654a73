"""Processes: signals that end them, priority, memory, limits."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from medseg._support.platform import IS_WINDOWS

STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGBREAK")
    if hasattr(signal, name)
)
"""What asks a program to end: Ctrl-C, ``kill``; Ctrl-Break and a closed window on Windows."""

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
    ),
)
"""A container's limit, what it takes of it, and of what that consists: version 2, and version 1."""


_LOOKING_EVERY = 0.005
"""Seconds between two looks at a process' memory."""

SignalHandler = Callable[[int, FrameType | None], None]


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of this machine, or of the container that this process runs in.

    Attributes:
        total: Bytes that there are.
        available: Bytes that programs can have without making others swap.
    """

    total: int
    available: int


@contextlib.contextmanager
def handle_stop_signals(
    handle: SignalHandler = signal.default_int_handler,
) -> Iterator[None]:
    """Let a function answer what asks this program to end.

    Python allows this in the main thread alone; in others, nothing changes.

    Args:
        handle: Called with each signal; raises ``KeyboardInterrupt`` unless given.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


def lower_priority() -> None:
    """Let other processes come first from now on."""
    import psutil

    process = psutil.Process()
    if IS_WINDOWS:
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(min(19, process.nice() + 10))


def measure_memory() -> Memory:
    """Return how much memory there is and how much of it is available."""
    import psutil

    machine = psutil.virtual_memory()
    total = machine.total
    available = machine.available
    for limit_name, used_name, parts_name in _CGROUP_FILES:
        limit = _read_number(_CGROUP_ROOT / limit_name)
        used = _read_number(_CGROUP_ROOT / used_name)
        if limit is not None and used is not None:
            total = min(total, limit)
            needed = used - _read_cached_bytes(_CGROUP_ROOT / parts_name)
            available = min(available, max(0, limit - needed))
    return Memory(total, available)


@dataclass(slots=True)
class MemoryGrowth:
    """How much memory this process takes.

    Attributes:
        before: Bytes resident when the watch began.
        peak: The most that was seen since.
    """

    before: int
    peak: int

    @property
    def bytes(self) -> int:
        """How much more it was at its peak."""
        return self.peak - self.before


@contextlib.contextmanager
def watch_memory() -> Iterator[MemoryGrowth]:
    """Watch how much memory this process takes; peaks shorter than a few ms may be missed."""
    import psutil

    process = psutil.Process()
    _return_freed_memory()
    before = process.memory_info().rss
    growth = MemoryGrowth(before, before)
    done = threading.Event()

    def look() -> None:
        growth.peak = max(growth.peak, process.memory_info().rss)

    def watch() -> None:
        while not done.wait(_LOOKING_EVERY):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield growth
    finally:
        done.set()
        thread.join()
        look()


def _return_freed_memory() -> None:
    """Give the system what was freed; else what takes it next seems to need nothing."""
    if sys.platform != "linux":
        return
    # Only glibc has it.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _read_number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _read_cached_bytes(file: Path) -> int:
    """Return how much of a container's memory are copies of files, which it gives up when asked."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    cached = 0
    for line in lines:
        name, _, number = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            cached = max(cached, int(number))
    return cached


def is_running(process: int) -> bool:
    """Tell whether there is a process of this ID."""
    import psutil

    return bool(psutil.pid_exists(process))


@contextlib.contextmanager
def watch_limits(
    process: subprocess.Popen[bytes], memory: int, seconds: int
) -> Iterator[None]:
    """End a process that takes too much, where the system does not do so itself.

    On Linux it does: the process has set its limits. macOS takes no limit of memory, and Windows
    none at all.

    Args:
        process: The process, just started.
        memory: Bytes that it may take.
        seconds: Of computing, that it may take.
    """
    if sys.platform == "linux" and not IS_WINDOWS:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(process, memory, seconds, done), daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(
    process: subprocess.Popen[bytes],
    memory: int,
    seconds: int,
    done: threading.Event,
) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        watched = psutil.Process(process.pid)
        while not done.wait(0.05):
            times = watched.cpu_times()
            is_slow = times.user + times.system > seconds
            if is_slow or watched.memory_info().rss > memory:
                process.kill()
                return
