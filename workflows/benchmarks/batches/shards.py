"""Shards against one process: equal results, what a tiny scan costs, memory, kills.

    python workflows/benchmarks/batches/shards.py compare WORK --scans 20000 --shards 4
    python workflows/benchmarks/batches/shards.py kill WORK --scans 400 --shards 4 --kills 50

Scans are tiny and made up, and the network is tiny, so that what is measured is everything else.
``compare`` also does a tenth of the scans, which tells what grows with their number. ``kill`` kills
shards with SIGKILL at random moments and starts them again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from medseg.inference.ledger import read_ledgers
from medseg.inference.ledger_entry import Entry
from medseg.testing import make_phantom, write_example_bundle

DIFFERENT = 50
"""Scans whose voxels differ; the others are links to them."""
SHAPE = (20, 18, 16)


@dataclass(frozen=True)
class Run:
    """One process that has ended."""

    wall: float
    cpu: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("what", choices=["compare", "kill"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--scans", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle = write_example_bundle(given.work / "bundle", trained=True)
    if given.what == "compare":
        compare(given.work, bundle, given.scans, given.shards)
    else:
        kill(given.work, bundle, given.scans, given.shards, given.kills)


# --- the same results ---------------------------------------------------------------------


def compare(work: Path, bundle: Path, count: int, shards: int) -> None:
    peaks = {}
    for scans in (count // 10, count):
        folder = write_scans(work / f"scans-{scans}", scans)
        table = write_table(work / f"scans-{scans}.csv", folder)
        whole = work / f"whole-{scans}"
        shutil.rmtree(whole, ignore_errors=True)
        (run,) = run_all([command(bundle, folder, whole)])
        entries, _ = read_ledgers(whole)
        tell(f"one process, {scans} scans", [run], scans)
        peaks[scans] = run.peak_mb
    grown = peaks[count] - peaks[count // 10]
    print(
        f"one process grows by {grown:.0f} MB, {1000 * grown / (count - count // 10):.2f} kB a scan"
    )
    parts = work / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    commands = [
        command(bundle, table, parts, f"{number}/{shards}")
        for number in range(1, shards + 1)
    ]
    runs = run_all(commands)
    found, damaged = read_ledgers(parts)
    tell(f"{shards} shards, {count} scans", runs, count)
    assert not damaged
    check_equal(entries, found)
    print("results are equal")


def tell(name: str, runs: Sequence[Run], scans: int) -> None:
    """Print what a scan takes: its tiny network, and all else."""
    cpu = sum(run.cpu for run in runs)
    peak = max(run.peak_mb for run in runs)
    wall = max(run.wall for run in runs)
    print(
        f"{name}: {wall:.1f} s, {1000 * cpu / scans:.1f} CPU ms a scan, forward, start and end "
        f"included; peak {peak:.0f} MB"
    )


def check_equal(whole: dict[str, Entry], found: dict[str, Entry]) -> None:
    assert whole.keys() == found.keys()
    for name, entry in whole.items():
        assert entry.files == found[name].files, name
        assert entry.state == found[name].state == "done", name


# --- kills --------------------------------------------------------------------------------


def kill(work: Path, bundle: Path, count: int, shards: int, kills: int) -> None:
    folder = write_scans(work / f"scans-{count}", count)
    for out in ("whole", "killed"):
        shutil.rmtree(work / out, ignore_errors=True)
    run_all([command(bundle, folder, work / "whole")])
    out, chance, done = work / "killed", random.Random(0), 0
    numbers = range(1, shards + 1)
    commands = [
        command(bundle, folder, out, f"{number}/{shards}") for number in numbers
    ]
    living = [start(one) for one in commands]
    while done < kills:
        time.sleep(chance.uniform(0, 8))
        victim = chance.randrange(shards)
        if living[victim].poll() is None:
            living[victim].kill()
            done += 1
        living[victim].wait()
        living[victim] = start(commands[victim])
    codes = [one.wait() for one in living]
    assert codes == [0] * shards, codes
    # Shards that ended before the others began again have nothing to do.
    run_all(commands)
    entries, damaged = read_ledgers(out)
    whole, _ = read_ledgers(work / "whole")
    assert not damaged
    check_equal(whole, entries)
    lines = Counter(list_done(out))
    twice = [name for name, times in lines.items() if times > 1]
    assert not twice, twice
    print(
        f"{kills} kills of {shards} shards, {count} scans: nothing lost, nothing twice, equal"
    )


def list_done(out: Path) -> Iterator[str]:
    for ledger in out.glob("shards/*/ledger.jsonl"):
        for line in ledger.read_text().splitlines():
            entry = json.loads(line)
            if entry["state"] == "done":
                yield entry["scan"]


# --- processes and files ------------------------------------------------------------------


def command(bundle: Path, scans: Path, out: Path, shard: str = "") -> list[str]:
    call = [sys.executable, "-m", "medseg", "segment", bundle, scans, out]
    options = ["--quiet", "--no-report", "--threads", "1", "--device", "cpu"]
    options += ["--shard", shard] if shard else []
    return [str(each) for each in [*call, *options]]


def start(one: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(one, env=os.environ | {"OMP_NUM_THREADS": "1"})


def run_all(commands: Sequence[Sequence[str]]) -> list[Run]:
    """Run processes at once; return what each took."""
    began = time.perf_counter()
    living = {start(one).pid for one in commands}
    runs = []
    while living:
        pid, status, usage = os.wait4(-1, 0)
        living.discard(pid)
        assert os.waitstatus_to_exitcode(status) == 0, status
        runs.append(make_run(began, usage))
    return runs


def make_run(began: float, usage: resource.struct_rusage) -> Run:
    return Run(
        time.perf_counter() - began,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
    )


def write_scans(folder: Path, count: int) -> Path:
    """Write tiny scans, a thousand to a folder."""
    if folder.is_dir():
        return folder
    partly = folder.with_name(f"{folder.name}-partly")
    shutil.rmtree(partly, ignore_errors=True)
    partly.mkdir()
    for number in range(count):
        file = partly / f"{number // 1000:03}" / f"scan_{number:06}.nii.gz"
        file.parent.mkdir(exist_ok=True)
        first = partly / "000" / f"scan_{number % DIFFERENT:06}.nii.gz"
        if number < DIFFERENT:
            volume, _ = make_phantom(number, SHAPE)
            voxels = np.rint(volume.array[0]).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.array(volume.affine)), file)
        else:
            file.hardlink_to(first)
    return partly.rename(folder)


def write_table(path: Path, folder: Path) -> Path:
    """Write the list of a folder, with the names that a search of it gives."""
    files = sorted(
        file.relative_to(folder.parent) for file in folder.rglob("*.gz")
    )
    with path.open("w") as table:
        table.write("name,scan\n")
        for file in files:
            where = file.relative_to(folder.name).as_posix()
            name = where.removesuffix(".nii.gz").replace("/", "_")
            table.write(f"{name},{file.as_posix()}\n")
    return path


if __name__ == "__main__":
    main()
