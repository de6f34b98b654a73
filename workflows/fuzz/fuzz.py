"""Damages made-up files in many ways, and tells what medseg makes of them.

    python workflows/fuzz/fuzz.py [--count 2000] [--first 0] [--kind nifti] [--keep FOLDER]

Each file has a seed, which makes the same file with the same damage again
(``--first SEED --count 1 --kind KIND``). Damaged files go, among sound ones, through ``segment``,
or as part of a data set through ``check``, ``plan`` and ``evaluate``, in forked processes with
limits of time and memory. It is a violation

* when anything but an error of medseg is raised, a process dies, hangs or eats memory;
* when a file is taken whose voxels lie elsewhere, or are others, than in the sound file and than
  another library reads, without a warning;
* when a sound file beside it is not segmented, or a file vanishes without a word;
* when the patient's name in a header reaches what is recorded, or a library talks on stderr.

It prints how often each kind of file with each kind of damage was refused, read right or read with
a warning, and every violation with its seed. Nothing is fetched from a network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from damages import damage
from doors import (
    LEFT_OUT,
    REFUSED,
    RIGHT,
    WARNED,
    Case,
    Finding,
    clear,
    describe,
    dump,
    make_bundles,
    segment,
    use_dataset,
)
from sound_files import PICTURES, VOLUMES, WRITERS, Sound, make_sound

DATASETS = tuple(
    kind for kind in WRITERS if kind not in VOLUMES and kind not in PICTURES
)
SECONDS = 120
"""For a folder; a sound one takes two or three."""
MEMORY_BYTES = 1500 << 20
"""More than the process has when it begins; a sound folder takes far less."""
_LIBTIFF = ("ZIPDecode", "LZWDecode", "PackBits", "TIFF", "Fax", "JPEG")
"""How lines begin that libtiff writes past Python, which nobody can turn off."""
_AT_ONCE = 24
_DATASETS_AT_ONCE = 8
_GOOD = 2
_WEIGHTS = {"dicom": 4, "nifti gz": 2, "nifti": 2, "png": 1, "tiff": 2}
"""How often kinds of files come, where not once."""

Door = Callable[[Path, list[Case]], list[Finding]]


@dataclass
class Tally:
    """What was found so far."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def violations(self) -> list[Finding]:
        """What is wrong."""
        return [one for one in self.findings if one.is_violation]

    def format_table(self) -> str:
        """Return a table: kind and damage → how often each end."""
        ends = (REFUSED, RIGHT, WARNED, LEFT_OUT)
        counts = Counter((f.kind, f.damage, f.end) for f in self.findings)
        rows = sorted({(f.kind, f.damage) for f in self.findings})
        heads = (*ends, "violations")
        lines = [
            f"{'file':14}{'damage':20}" + "".join(f"{h:>12}" for h in heads)
        ]
        for kind, what in rows:
            cells = [counts[kind, what, end] for end in ends]
            total = sum(
                n for (k, w, _), n in counts.items() if (k, w) == (kind, what)
            )
            cells.append(total - sum(cells))
            line = f"{kind:14}{what:20}" + "".join(f"{n:12}" for n in cells)
            lines.append(line)
        sums = Counter(f.end for f in self.findings)
        cells = [sums[end] for end in ends]
        cells.append(len(self.findings) - sum(cells))
        lines.append(f"{'all':34}" + "".join(f"{n:12}" for n in cells))
        return "\n".join(lines)


def choose_kind(seed: int) -> str:
    """Return the kind of file that a seed stands for."""
    kinds = [kind for kind in WRITERS for _ in range(_WEIGHTS.get(kind, 1))]
    return kinds[seed % len(kinds)]


def make_case(seed: int, kind: str, folder: Path) -> Case:
    """Make the damaged file of a seed."""
    random = np.random.default_rng(seed)
    sound = make_sound(kind, folder, random)
    return Case(seed, damage(sound, random), sound)


# --- one process --------------------------------------------------------------------------


def through_segment(root: Path, cases: list[Case]) -> list[Finding]:
    """Segment damaged files in one folder with sound ones."""
    kinds = PICTURES if cases[0].sound.kind in PICTURES else VOLUMES
    good: list[Sound] = []
    for number in range(_GOOD):
        random = np.random.default_rng([cases[0].seed, number + 1])
        kind = str(random.choice(kinds))
        folder = root / "scans" / f"good{number}"
        good.append(make_sound(kind, folder, random))
    return segment(root, cases, good)


def through_datasets(root: Path, cases: list[Case]) -> list[Finding]:
    """Use each data set alone."""
    findings = []
    for case in cases:
        work = root / f"work{case.seed}"
        findings.append(use_dataset(work, case))
    return findings


def _work(root: Path, seeds: list[tuple[int, str]], door: Door) -> None:
    """Make cases, take them through a door, write the findings; runs in a process of its own."""
    torch.set_num_threads(1)
    noise = os.open(root / "stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(noise, 2)
    before = _get_peak()
    cases = [
        make_case(seed, kind, root / "scans" / f"c{seed}")
        for seed, kind in seeds
    ]
    try:
        findings = door(root, cases)
    except BaseException:  # noqa: BLE001 - that is what is looked for
        text = traceback.format_exc()
        findings = [describe(cases[0], "an exception", text)]
    used = _get_peak() - before
    if used > MEMORY_BYTES:
        findings.append(describe(cases[0], f"takes {used >> 20} MB"))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    said = (root / "stderr").read_text(errors="replace").splitlines()
    said = [line for line in said if not line.startswith(_LIBTIFF)]
    if said:
        findings.append(
            describe(cases[0], "talks on stderr", "\n".join(said[-9:]))
        )
    (root / "findings.json").write_text(dump(findings))


def _get_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def run_process(
    seeds: list[tuple[int, str]], door: Door, root: Path
) -> list[Finding]:
    """Take cases through a door in a process of their own, with a limit of time."""
    root.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_work, args=(root, seeds, door))
    process.start()
    process.join(SECONDS)
    end = ""
    if process.is_alive():
        process.kill()
        process.join()
        end = f"takes more than {SECONDS} s"
    elif process.exitcode:
        end = f"the process ended with {process.exitcode}"
    file = root / "findings.json"
    if end or not file.is_file():
        seed, kind = seeds[0]
        return [Finding(seed, kind, "?", end or "the process wrote nothing")]
    return [Finding(**one) for one in json.loads(file.read_text())]


def run_batch(
    seeds: list[tuple[int, str]], door: Door, folder: Path
) -> list[Finding]:
    """Run cases together; where that ends badly, each alone, to find out which did it."""
    root = folder / f"b{seeds[0][0]}"
    findings = run_process(seeds, door, root)
    clear(root)
    is_whole = len({finding.seed for finding in findings}) >= len(seeds)
    has_noise = any("stderr" in f.end or "takes" in f.end for f in findings)
    if len(seeds) == 1 or (is_whole and not has_noise):
        return findings
    alone = []
    for seed in seeds:
        root = folder / f"s{seed[0]}"
        alone += run_process([seed], door, root)
        clear(root)
    return alone


def plan_batches(
    seeds: Iterable[tuple[int, str]],
) -> Iterator[tuple[list[tuple[int, str]], Door]]:
    """Give cases that go through one door at once."""
    groups: list[tuple[tuple[str, ...], Door, int]] = [
        (VOLUMES, through_segment, _AT_ONCE),
        (PICTURES, through_segment, _AT_ONCE),
        (DATASETS, through_datasets, _DATASETS_AT_ONCE),
    ]
    seeds = list(seeds)
    for kinds, door, size in groups:
        mine = [one for one in seeds if one[1] in kinds]
        for start in range(0, len(mine), size):
            yield mine[start : start + size], door


def run(
    count: int, first: int = 0, kind: str = "", folder: Path | None = None
) -> Tally:
    """Run the fuzz.

    Args:
        count: How many damaged files.
        first: Their first seed.
        kind: One kind of file; all unless given.
        folder: Where to work; a temporary one unless given.
    """
    seeds = range(first, first + count)
    chosen = [(seed, kind or choose_kind(seed)) for seed in seeds]
    tally = Tally()
    with tempfile.TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        make_bundles(work / "bundles")
        for batch, door in plan_batches(chosen):
            found = run_batch(batch, door, work)
            tally.findings += found
            for one in found:
                if one.is_violation:
                    print(_format(one), flush=True)
    return tally


def _format(finding: Finding) -> str:
    head = f"{finding.seed} {finding.kind}, {finding.damage}: {finding.end}"
    return f"{head}\n{finding.detail}" if finding.detail else head


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", default="", choices=["", *WRITERS])
    parser.add_argument("--keep", type=Path, default=None)
    args = parser.parse_args()
    tally = run(args.count, args.first, args.kind, args.keep)
    print(tally.format_table())
    sys.exit(1 if tally.violations else 0)


if __name__ == "__main__":
    main()
