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
RAY_RECIPE = RECIPE.with_name("ray.sh")
SCANS, TASKS = 24, 8


def export_medseg(programs: Path) -> str:
    """Return the option by which jobs find medseg and Ray as they are here."""
    programs.mkdir()
    for name in ("medseg", "ray.scripts.scripts"):
        file = programs / name.partition(".")[0]
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        file.chmod(0o755)
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    texts = [f"{name}={text}" for name, text in variables.items()]
    return f"--export=ALL,{','.join(texts)}"


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_an_array_finishes_a_folder_though_one_task_is_killed(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    bundle = untrained_bundle()
    scans = write_scans(tmp_path / "scans", SCANS)
    out = tmp_path / "out"
    exported = export_medseg(tmp_path / "bin")
    with open_slurm(tmp_path / "slurm") as slurm:
        job = slurm.call(
            *("sbatch", "--parsable", f"--array=1-{TASKS}"),
            *("--cpus-per-task=1", "--mem=0", exported),
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


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_job_does_a_folder_over_a_ray_of_its_own(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    pytest.importorskip("ray")
    bundle = untrained_bundle()
    scans = write_scans(tmp_path / "scans", 3)
    out = tmp_path / "out"
    exported = export_medseg(tmp_path / "bin")
    with open_slurm(tmp_path / "slurm") as slurm:
        job = slurm.call(
            *("sbatch", "--parsable", "--nodes=1", "--cpus-per-task=1"),
            *("--mem=0", exported, f"--output={tmp_path}/job.log"),
            *("--chdir", tmp_path, RAY_RECIPE),
            *(bundle, scans, out, "--device", "cpu"),
        )
        slurm.wait(job, {"COMPLETED", "FAILED", "CANCELLED"}, 400)
        states = slurm.read_states(job)
        log = (tmp_path / "job.log").read_text()
        assert set(states.values()) == {"COMPLETED"}, log
    report = medseg.report(out)
    assert report.is_whole
    assert len(report.good) == 3
