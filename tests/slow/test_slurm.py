"""The recipe for Slurm runs in a real Slurm, and a task that was killed is done again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.killed_batches import write_scans
from support.slurms import open_slurm

import medseg
from medseg.inference.ledger import read_ledgers

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "workflows/cluster/slurm.sh"
SCANS, TASKS = 24, 8


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_an_array_finishes_a_folder_though_one_task_is_killed(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    bundle = untrained_bundle()
    scans = write_scans(tmp_path / "scans", SCANS)
    out = tmp_path / "out"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "medseg").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m medseg "$@"\n'
    )
    (programs / "medseg").chmod(0o755)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    exported = ",".join(f"{name}={text}" for name, text in variables.items())
    with open_slurm(tmp_path / "slurm") as slurm:
        job = slurm.call(
            *("sbatch", "--parsable", f"--array=1-{TASKS}"),
            *("--cpus-per-task=1", "--mem=0", f"--export=ALL,{exported}"),
            *(f"--output={tmp_path}/%a.log", "--chdir", tmp_path),
            *(RECIPE, bundle, scans, out, "--device", "cpu"),
        )
        killed = f"{job}_1"
        end = time.monotonic() + 120
        while not (out / "shards/1-of-8/ledger.jsonl").exists():
            assert time.monotonic() < end, slurm.read_states(job)
            time.sleep(0.1)
        slurm.call("scancel", "--signal=KILL", "--full", killed)
        slurm.wait(job, {"COMPLETED", "FAILED", "CANCELLED"}, 600)
        logs = [file.read_text() for file in tmp_path.glob("*.log")]
        states = slurm.read_states(job)
        assert states.pop("1") != "COMPLETED", logs
        assert set(states.values()) == {"COMPLETED"}, logs
        report = medseg.report(out)
        assert not report.is_whole
        assert [str(shard) for shard in report.to_start] == [f"1/{TASKS}"]
        slurm.call("scontrol", "requeue", killed)
        # Slurm would wait for two minutes.
        slurm.call("scontrol", "update", f"JobId={killed}", "StartTime=now")
        slurm.wait(job, {"COMPLETED"}, 300)
    assert medseg.report(out).is_whole
    medseg.segment(bundle, scans, tmp_path / "whole", device="cpu")
    whole, _ = read_ledgers(tmp_path / "whole")
    entries, damaged = read_ledgers(out)
    assert not damaged
    assert {name: entry.files for name, entry in entries.items()} == {
        name: entry.files for name, entry in whole.items()
    }
