"""Importing what most people import costs seconds of a processor, not many."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MOST_SECONDS = 2.5


def measure(code: str) -> float:
    """Return the processor time of a process that runs some code, the least of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        user = after.ru_utime - before.ru_utime
        system = after.ru_stime - before.ru_stime
        taken.append(user + system)
    return min(taken)


def test_a_segmenter_is_imported_in_little_more_than_pytorch() -> None:
    taken = measure("from medseg import Segmenter")
    # On a slow machine PyTorch alone may take longer than the limit.
    limit = max(MOST_SECONDS, 2 * measure("import torch"))
    assert taken < limit
