"""How long processes keep a processor busy, whatever else the machine does."""

from __future__ import annotations

import subprocess
import sys

import pytest


def measure(code: str) -> float:
    """Return the processor time of a process that runs some code."""
    return measure_python("-c", code)


def measure_python(*arguments: str) -> float:
    """Return the processor time of a Python with some arguments; Windows has no such measure."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user: float = after.ru_utime - before.ru_utime
    system: float = after.ru_stime - before.ru_stime
    return user + system
