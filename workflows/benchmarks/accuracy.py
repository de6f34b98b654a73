"""Plan a labelled data set, train the plan without an edit, and print a row of Dice.

    python workflows/benchmarks/accuracy.py hippocampus --data DATA --budget 20m --work W

``DATA`` is the folder of data sets; each set's name and folder stand in ``SETS``. For each of
``--folds`` the planned bundle is trained by ``medseg train`` in a process of its own, then every
held-back scan is segmented as users do it. In ``W/SET``: ``bundle.json`` (the plan), ``labels`` (a
label map of each held-back case), ``accuracy.csv`` (Dice of each), ``accuracy.md`` (the row).

CPU time is that of the training's process, from its start to its model card: planning, which
happens once for all folds, is given apart. It stays comparable on a machine that others use at the
same time; a time budget however is wall time, so a busy machine takes fewer steps in it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK

from medseg import DatasetError, Segmenter, load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case, find_cases
from medseg.datasets.folds import assign_folds, split_cases
from medseg.datasets.integrity import open_case
from medseg.metrics.comparison import bootstrap_interval, collect_case_values
from medseg.metrics.metrics import MEAN, CaseScores, score_case

SETS = {
    "hippocampus": "hippocampus",
    "sunnybrook": "sunnybrook_cmr_2d",
    "tumour-ct": "sts_ct_mr_pet",
    "tumour-ct-mr-pet": "sts_ct_mr_pet",
    "spleen": "msd_spleen_crop",
}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took, in minutes."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument(
        "--data", type=Path, required=True, help="the folder of data sets"
    )
    parser.add_argument(
        "--budget", required=True, help="time of one training, as in 20m"
    )
    parser.add_argument("--folds", default="0", help="as in 0,1,2")
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    work: Path = given.work.resolve() / given.set
    work.mkdir(parents=True)
    data = given.data.resolve() / SETS[given.set]
    if given.set == "tumour-ct-mr-pet":
        data = on_one_grid(data, work / "registered")
    bundle = work / "bundle.json"
    planned = medseg(
        [
            "plan",
            data,
            "-o",
            bundle,
            "--budget",
            given.budget,
            "--device",
            given.device,
        ],
        work,
        given.threads,
    )
    spec = load_bundle(bundle).spec
    cases = find_cases(data, spec).cases
    folds = (
        [int(fold) for fold in given.folds.split(",")]
        if can_be_split(cases, spec)
        else [None]
    )
    scored: dict[str, list[CaseScores]] = {}
    taken = []
    for fold in folds:
        run = work / f"run-{fold}"
        options = [
            "--fold",
            "none" if fold is None else fold,
            "--device",
            given.device,
        ]
        taken.append(
            medseg(
                ["train", bundle, "--out", run, *options], work, given.threads
            )
        )
        scored[str(fold)] = score(
            run, split_cases(cases, spec.data, fold)[1], work / "labels"
        )
    write_csv(work / "accuracy.csv", scored)
    text = row(given, spec, scored, taken, planned)
    (work / "accuracy.md").write_text(text, encoding="utf-8")
    print(text)


def medseg(arguments: Sequence[object], folder: Path, threads: int) -> Taken:
    """Run a command of medseg in a folder; return what it took."""
    command = [sys.executable, "-m", "medseg", *map(str, arguments)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
    }
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with exit code {process.returncode}"
        )
    return Taken(
        (time.perf_counter() - began) / 60,
        (usage.ru_utime + usage.ru_stime) / 60,
    )


def can_be_split(cases: Sequence[Case], spec: BundleSpec) -> bool:
    """Tell whether a case can be held back; one case alone cannot."""
    try:
        return len(set(assign_folds(cases, spec.data))) > 1
    except DatasetError as error:
        print(f"note: {error}; nothing is held back, so nothing is measured")
        return False


def on_one_grid(data: Path, out: Path) -> Path:
    """Bring MR and PET onto the grid of the CT, and list all three as channels.

    The three lie in one patient's coordinates, so no registration is needed; where MR or PET saw
    nothing the value is 0.
    """
    listed = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    out.mkdir()
    for number, item in enumerate(listed["training"]):
        ct = SimpleITK.ReadImage(str(data / item["image"]))
        images = [os.path.relpath(data / item["image"], out)]
        for other in ("mr", "pet"):
            name = f"case{number:02d}_{other}.nii.gz"
            there = SimpleITK.ReadImage(str(data / item[other]))
            moved = SimpleITK.Resample(
                there, ct, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0
            )
            SimpleITK.WriteImage(moved, str(out / name))
            images.append(name)
        item["image"] = images
        item["label"] = os.path.relpath(data / item["label"], out)
        item["name"] = f"case{number:02d}"
    listed["modality"] = {"0": "CT", "1": "MR", "2": "PET"}
    (out / "dataset.json").write_text(
        json.dumps(listed, indent=1), encoding="utf-8"
    )
    return out


def score(run: Path, held_back: Sequence[Case], out: Path) -> list[CaseScores]:
    """Segment held-back scans as users do, keep the label maps, and score them."""
    bundle = load_bundle(run)
    segmenter = Segmenter(bundle, "cpu")
    out.mkdir(exist_ok=True)
    ending = (
        ".png" if bundle.spec.preprocessing.input == "picture" else ".nii.gz"
    )
    scored = []
    for case in held_back:
        volume, reference = open_case(case, bundle.spec)
        found = segmenter.segment(volume)
        found.save(out / f"{case.name}{ending}")
        labels, spacing, ml = (
            bundle.spec.label_set,
            volume.spacing,
            volume.voxel_ml,
        )
        scored.append(
            score_case(
                found.labels,
                reference,
                labels,
                spacing,
                case=case.name,
                voxel_ml=ml,
            )
        )
    return scored


def write_csv(file: Path, scored: dict[str, list[CaseScores]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["fold", "case", "label", "dice"])
        for fold, cases in scored.items():
            for case in cases:
                table.writerows(
                    [fold, case.case, la, f"{d:.6f}"]
                    for la, d in case["dice"].items()
                )


def row(
    given: argparse.Namespace,
    spec: BundleSpec,
    scored: dict[str, list[CaseScores]],
    taken: Sequence[Taken],
    planned: Taken,
) -> str:
    """Return a Markdown table: Dice per label, and what it took."""
    cases = [case for its in scored.values() for case in its]
    cpu = ", ".join(f"{one.cpu:.1f}" for one in taken)
    wall = ", ".join(f"{one.wall:.1f}" for one in taken)
    rows = [
        "| data | label | folds | n | Dice, mean ± sd | 95 % interval | budget | CPU min per fold "
        "| wall min per fold |",
        "| --- | --- | --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for label in (*spec.label_set.names, MEAN) if cases else ("–",):
        dice = list(collect_case_values(cases, "dice", label).values())
        rows.append(
            f"| {given.set} | {label} | {', '.join(scored)} | {len(dice)} | {spread(dice)} | "
            f"{between(dice)} | {given.budget} | {cpu} | {wall} |"
        )
    return (
        "\n".join(rows)
        + f"\n\nPlanning took {planned.cpu:.1f} CPU min, once for all folds.\n"
    )


def spread(values: Sequence[float]) -> str:
    if not values:
        return "nothing held back"
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} ± {sd:.4f}"


def between(values: Sequence[float]) -> str:
    found = bootstrap_interval(values)
    return (
        "–" if math.isnan(found.low) else f"{found.low:.4f} to {found.high:.4f}"
    )


if __name__ == "__main__":
    main()
