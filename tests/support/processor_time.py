"""How long processes keep a processor busy, whatever else the machine does."""

from __future__ import annotations

import resource
import subprocess
import sys


def measure(code: str) -> float:
    """Return the processor time of a process that runs some code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user = after.ru_utime - before.ru_utime
    system = after.ru_stime - before.ru_stime
    return user + system
