"""Two hundred damaged files: nothing is raised, lost, or in a wrong place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "fuzz" / "fuzz.py"
COUNT = 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_damaged_files_are_refused_or_read_rightly() -> None:
    found = subprocess.run(
        [sys.executable, SCRIPT, "--count", str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    *_, sums = found.stdout.splitlines()
    assert sum(map(int, sums.split()[1:])) >= COUNT
