"""Shards and Ray against one process: equal results, what a tiny scan costs, memory, kills.

    python workflows/benchmarks/batches/shards.py compare WORK --scans 20000 --shards 4
    python workflows/benchmarks/batches/shards.py kill WORK --scans 400 --shards 4 --kills 50
    python workflows/benchmarks/batches/shards.py compare-ray WORK --scans 20000
    python workflows/benchmarks/batches/shards.py kill-ray WORK --scans 400 --kills 50

Scans are tiny and made up, and the network is tiny, so that what is measured is everything else.
``compare`` also does a tenth of the scans, which tells what grows with their number. ``kill`` kills
shards with SIGKILL at random moments and starts them again. The same over Ray with two raylets of
this machine; there workers, the second raylet and the driver are killed.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.append(str(Path(__file__).parents[3] / "tests"))
from support.ray_nodes import RayNodes, ray_nodes

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
    parser.add_argument("what", choices=list(WAYS))
    parser.add_argument("work", type=Path)
    parser.add_argument("--scans", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bundle = write_example_bundle(given.work / "bundle", trained=True)
    WAYS[given.what](given, bundle)


# --- the same results ---------------------------------------------------------------------


def compare(given: argparse.Namespace, bundle: Path) -> None:
    work, count, shards = given.work, given.scans, given.shards
    entries, table = do_whole(work, bundle, count)
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


def compare_ray(given: argparse.Namespace, bundle: Path) -> None:
    work, count = given.work, given.scans
    # Scans that ``compare`` did in one process are not done again.
    entries, damaged = read_ledgers(work / f"whole-{count}")
    if damaged or len(entries) != count:
        entries, _ = do_whole(work, bundle, count)
    peaks = {}
    with ray_nodes() as nodes:
        os.environ.update(nodes.environment)
        for scans in (count // 10, count):
            out = work / f"ray-{scans}"
            shutil.rmtree(out, ignore_errors=True)
            call = command(bundle, work / f"scans-{scans}", out)
            (run,) = run_all([[*call, "--on", f"ray={nodes.address}"]])
            tell(f"driver of 2 raylets, {scans} scans", [run], scans)
            peaks[scans] = run.peak_mb
    print(f"the driver grows by {peaks[count] - peaks[count // 10]:.0f} MB")
    found, damaged = read_ledgers(out)
    assert not damaged
    check_equal(entries, found)
    print("results are equal")


def do_whole(
    work: Path, bundle: Path, count: int
) -> tuple[Mapping[str, Entry], Path]:
    """Do all scans, and before them a tenth, in one process; return entries and the list."""
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
    return entries, table


def tell(name: str, runs: Sequence[Run], scans: int) -> None:
    """Print what a scan takes: its tiny network, and all else."""
    cpu = sum(run.cpu for run in runs)
    peak = max(run.peak_mb for run in runs)
    wall = max(run.wall for run in runs)
    print(
        f"{name}: {wall:.1f} s, {1000 * cpu / scans:.1f} CPU ms a scan, forward, start and end "
        f"included; peak {peak:.0f} MB"
    )


def check_equal(whole: Mapping[str, Entry], found: Mapping[str, Entry]) -> None:
    assert whole.keys() == found.keys()
    for name, entry in whole.items():
        assert entry.files == found[name].files, name
        assert entry.state == found[name].state == "done", name


# --- kills --------------------------------------------------------------------------------


def kill(given: argparse.Namespace, bundle: Path) -> None:
    work, count, shards = given.work, given.scans, given.shards
    kills = given.kills
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
    check_once(list_done(out, "shards/*/ledger.jsonl"))
    print(
        f"{kills} kills of {shards} shards, {count} scans: nothing lost, nothing twice, equal"
    )


def kill_ray(given: argparse.Namespace, bundle: Path) -> None:
    work, kills = given.work, given.kills
    folder = write_scans(work / f"scans-{given.scans}", given.scans)
    for name in ("whole", "killed"):
        shutil.rmtree(work / name, ignore_errors=True)
    run_all([command(bundle, folder, work / "whole")])
    out, chance = work / "killed", random.Random(0)
    killed: Counter[str] = Counter()
    with ray_nodes() as nodes:
        os.environ.update(nodes.environment)
        call = command(bundle, folder, out)
        call += ["--on", f"ray={nodes.address}"]
        driver = start(call)
        while killed.total() < kills:
            await_progress(driver, out / "ledger.jsonl")
            time.sleep(chance.uniform(0, 2))
            if driver.poll() is not None:
                # All is done: so that there is something to kill, again from the start.
                assert driver.returncode == 0, driver.returncode
                shutil.rmtree(out)
                driver = start(call)
                continue
            victim = chance.choices(["worker", "raylet", "driver"], [6, 1, 2])
            killed[victim[0]] += kill_one(victim[0], nodes, driver)
            if driver.poll() is not None:
                driver = start(call)
        assert driver.wait() == 0
    entries, damaged = read_ledgers(out)
    whole, _ = read_ledgers(work / "whole")
    assert not damaged
    check_equal(whole, entries)
    # One whose processes happen to be killed three times has failed, until the next call.
    check_once(list_done(out, "ledger.jsonl"))
    print(f"{dict(killed)} killed: nothing lost, nothing twice, equal")


def await_progress(driver: subprocess.Popen[bytes], ledger: Path) -> None:
    """Wait until one more scan is done: workers that die three times as they begin end a call."""
    before = count_lines(ledger)
    while driver.poll() is None and count_lines(ledger) == before:
        time.sleep(0.05)


def count_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill_one(
    victim: str, nodes: RayNodes, driver: subprocess.Popen[bytes]
) -> bool:
    """Kill one process; tell whether there was one."""
    if victim == "driver":
        driver.kill()
        driver.wait()
        return True
    if victim == "raylet":
        nodes.list_raylets()[1].kill()
        nodes.add()
        return True
    workers = nodes.list_workers()
    for worker in workers[:1]:
        worker.kill()
    return bool(workers)


def check_once(done: Iterator[str]) -> None:
    lines = Counter(done)
    twice = [name for name, times in lines.items() if times > 1]
    assert not twice, twice


def list_done(out: Path, ledgers: str) -> Iterator[str]:
    for ledger in out.glob(ledgers):
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


WAYS = {
    "compare": compare,
    "kill": kill,
    "compare-ray": compare_ray,
    "kill-ray": kill_ray,
}

if __name__ == "__main__":
    main()
