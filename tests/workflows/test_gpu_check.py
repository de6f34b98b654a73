"""The script for a machine with a GPU runs from end to end on a pretended one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "gpu" / "check.py"


def test_the_time_that_is_given_is_enough_for_all_rows() -> None:
    text = SCRIPT.read_text()
    rows = text.partition("ROWS = (")[2].partition('"""')[0]
    seconds = [int(number) for number in re.findall(r", (\d+)\)", rows)]
    (minutes,) = re.findall(r'"--minutes", type=float, default=([\d.]+)', text)
    assert len(seconds) == rows.count("(") - rows.count("*(")
    assert sum(seconds) <= 60 * float(minutes)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_every_row_of_the_gpus_check_can_be_done(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--dry", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if "GPUs are pretended on Linux" in run.stderr:
        pytest.skip("GPUs are pretended on Linux without CUDA")
    assert run.returncode == 0, run.stdout + run.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())
    said = {row["name"]: str(row["value"]) for row in rows}
    for begin in (
        "torch",
        "convolution",
        "labels in bf16",
        "patches of",
        "step of tiny in bf16",
        "resumed in fp16",
        "segment (24, 24, 20), 117 classes",
        "stock MONAI",
        "segment (24, 24, 20), five networks",
        "hippocampus",
        "refined, 2 steps",
        "one process under torchrun",
    ):
        assert any(name.startswith(begin) for name in said), begin
    assert not [value for value in said.values() if "failed" in value]
    assert "on cpu" in said["stock MONAI, 3 classes"]
    assert len((tmp_path / "gpu.md").read_text().splitlines()) == 2 + len(rows)
