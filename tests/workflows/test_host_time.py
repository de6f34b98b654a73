"""What the host does for a GPU is measured, and is little beside a plain training loop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "benchmarks" / "host_time.py"

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]


def test_the_host_adds_less_to_a_step_than_a_plain_loop_takes() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = re.findall(r"^  (.+?) [\d.]+ \(([\d.]+)\)$", run.stdout, re.M)
    least = {name: float(value) for name, value in rows}
    assert len(least) == 8
    # Of the same machine in the same run; seconds alone would say how busy it is.
    assert least["added"] < 0.8 * least["plain loop"]
    assert least["batch, part of it"] < 0.3 * least["plain loop"]
    assert (
        least["deciding and launching"] < 10 * least["as many plain operations"]
    )
    (operations,) = re.findall(r", (\d+) operations$", run.stdout, re.M)
    assert int(operations) <= OPERATIONS_PER_SCAN


OPERATIONS_PER_SCAN = 7900
"""Of one scan of 512×512×400 and 3 classes, without the network's; they may not become more."""
