"""Compare label maps of imported models with nnU-Net's own, and print a Markdown table.

    python workflows/benchmarks/import/nnunet.py WORK [--only NAME ...] [--time PEER]

``WORK`` is what ``train_nnunet.py`` made in nnU-Net's environment. Each model is imported and
segments the same scans. Agreement is the share of voxels with the same label, of those that either
gave one; Dice is the lowest over scans and labels of at least ``LEAST`` voxels. With ``--time`` and
nnU-Net's environment, ``medseg segment`` and ``nnUNetv2_predict_from_modelfolder`` segment a
folder of scans in turn, each as a process of its own, imports and all: on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from medseg import Segmenter
from medseg.commands.import_model import import_model
from medseg.volume import Array

LEAST = 100
_CHANNEL = len("_0000.nii.gz")


@dataclass(slots=True)
class Agreement:
    """How far two kinds of label maps are the same, over several scans."""

    differ: int = 0
    either: int = 0
    dice: float = 1.0

    def add(self, ours: Array, theirs: Array) -> None:
        """Compare one scan's."""
        self.differ += int((ours != theirs).sum())
        self.either += int(((ours > 0) | (theirs > 0)).sum())
        for label in np.unique(theirs[theirs > 0]):
            one, other = ours == label, theirs == label
            total = int(one.sum()) + int(other.sum())
            if total >= 2 * LEAST:
                dice = 2 * int((one & other).sum()) / total
                self.dice = min(self.dice, dice)

    def __str__(self) -> str:
        share = 1 - self.differ / max(self.either, 1)
        return f"{100 * share:.3f} % | {self.differ} of {self.either} | {self.dice:.4f}"


def list_scans(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each scan by its name."""
    scans: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        scans[file.name[:-_CHANNEL]].append(file)
    return dict(scans)


def compare(model: Path, bundle: Path) -> tuple[Agreement, Agreement]:
    """Import a model and compare its label maps with nnU-Net's, and with its exact ones."""
    import_model(model / "results", bundle)
    facts = json.loads((model / "seconds.json").read_text())
    segmenter = Segmenter(
        bundle, "cpu", backend="torch", mirror=facts["mirror"]
    )
    usual, exact = Agreement(), Agreement()
    for name, files in list_scans(model / "scans").items():
        labels = segmenter.segment(files).labels
        for kind, agreement in (("expected", usual), ("exact", exact)):
            file = model / kind / f"{name}.nii.gz"
            if file.is_file():
                theirs = np.asarray(nibabel.load(file).dataobj)
                agreement.add(labels, theirs)
    return usual, exact


def time_process(command: Sequence[str], environment: dict[str, str]) -> float:
    """Return the wall time of a command."""
    start = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env=os.environ | environment
    )
    return time.perf_counter() - start


def gather_scans(model: Path, folder: Path, count: int) -> Path:
    """Return a folder of so many scans: the model's own, again and again."""
    own = list_scans(model / "scans")
    folder.mkdir()
    for number in range(count):
        name = list(own)[number % len(own)]
        for file in own[name]:
            ending = file.name[len(name) :]
            shutil.copy(file, folder / f"scan{number:02}{ending}")
    return folder


def time_both(
    model: Path, bundle: Path, peer: Path, count: int
) -> tuple[float, float]:
    """Time medseg and nnU-Net on so many scans, as processes of their own.

    nnU-Net runs as it is called by default, with its three processes for reading and three for
    writing.
    """
    facts = json.loads((model / "seconds.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scans = str(gather_scans(model, folder / "scans", count))
        flag = "--mirror" if facts["mirror"] else "--no-mirror"
        ours = time_process(
            [
                *(sys.executable, "-m", "medseg", "segment", str(bundle)),
                *(scans, str(folder / "ours")),
                *("--device", "cpu", flag),
            ],
            {},
        )
        results = next((model / "results").glob("*/*__*"))
        theirs = time_process(
            [
                str(peer / "bin" / "nnUNetv2_predict_from_modelfolder"),
                *("-i", scans, "-o", str(folder / "theirs")),
                *("-m", str(results), "-f", *map(str, facts["folds"])),
                *("-device", "cpu"),
                *(() if facts["mirror"] else ("--disable_tta",)),
            ],
            {
                f"nnUNet_{name}": temporary
                for name in ("raw", "preprocessed", "results")
            },
        )
        if len(list((folder / "theirs").glob("*.nii.gz"))) != count:
            raise RuntimeError("nnU-Net did not segment each scan")
        if len(list((folder / "ours").glob("*.nii.gz"))) != count:
            raise RuntimeError("medseg did not segment each scan")
    return ours, theirs


def describe_times(times: Sequence[tuple[float, float]]) -> str:
    """Return each run's seconds, and how many times faster medseg was."""
    ours = ", ".join(f"{own:.1f}" for own, _ in times)
    theirs = ", ".join(f"{other:.1f}" for _, other in times)
    ratios = sorted(other / own for own, other in times)
    median = ratios[len(ratios) // 2]
    return f"{ours} | {theirs} | {median:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--time", type=Path, metavar="PEER")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scans", type=int, default=10)
    options = parser.parse_args()
    columns = ["model", "same labels", "voxels that differ", "lowest Dice"]
    columns += ["same labels, nnU-Net in float32", "differ", "lowest Dice"]
    if options.time:
        columns = ["model", "medseg, s", "nnU-Net, s", "times as fast"]
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for facts in sorted(options.work.glob("*/seconds.json")):
        model = facts.parent
        if options.only and model.name not in options.only:
            continue
        bundle = Path(tempfile.mkdtemp()) / "bundle"
        if options.time:
            import_model(model / "results", bundle)
            times = [
                time_both(model, bundle, options.time, options.scans)
                for _ in range(options.repeats)
            ]
            row = f"| {model.name} | {describe_times(times)} |"
        else:
            usual, exact = compare(model, bundle)
            row = f"| {model.name} | {usual} | {exact} |"
        print(row, flush=True)
        shutil.rmtree(bundle.parent)


if __name__ == "__main__":
    main()
