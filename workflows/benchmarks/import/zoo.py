"""Compare label maps of imported models of MONAI's with MONAI's own, and print a Markdown table.

    python workflows/benchmarks/import/zoo.py WORK [--only NAME ...]

The bundles and models are made here, with random or barely trained weights. Bundles are run by
``python -m monai.bundle run``, Auto3DSeg's models as its template infers. Agreement is the share of
voxels with the same label, of those that either gave one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import auto3dseg_models
import monai_models
import nibabel
import numpy as np

from medseg import Segmenter
from medseg.commands.import_model import import_model

PAINTED = ((1, 2), (0, 1), (2, 3))
"""Channel and value of the structures that overlap, as they are painted."""

Maps = Iterator[tuple[str, np.ndarray, np.ndarray]]
"""Grid, our label map, theirs."""


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    print("| model | scan | same labels | voxels that differ |")
    print("| --- | --- | --- | --- |")
    for name in [*monai_models.FORMS, *auto3dseg_models.FORMS]:
        if arguments.only and name not in arguments.only:
            continue
        folder = arguments.work / name
        shutil.rmtree(folder, ignore_errors=True)
        is_bundle = name in monai_models.FORMS
        compare = compare_bundle if is_bundle else compare_auto3dseg
        for grid, own, theirs in compare(name, folder):
            either = int(((own > 0) | (theirs > 0)).sum())
            differ = int((own != theirs).sum())
            same = 100 * (1 - differ / max(1, either))
            row = f"| {name} | {grid} | {same:.3f} % | {differ} of {either} |"
            print(row, flush=True)


def compare_bundle(name: str, folder: Path) -> Maps:
    """Yield the label maps of a MONAI Bundle."""
    bundle = monai_models.write_bundle(name, folder / "bundle")
    channels = len(monai_models.FORMS[name]().get("channels", ["image"]))
    scans = monai_models.write_scans(folder / "scans", channels)
    command = [
        *(sys.executable, "-m", "monai.bundle", "run"),
        *("--config_file", "configs/inference.json", "--bundle_root", "."),
        *("--dataset_dir", str((folder / "scans").resolve())),
        *("--output_dir", str((folder / "stock").resolve())),
    ]
    subprocess.run(command, cwd=bundle, check=True, capture_output=True)
    for grid, own in segment(bundle, folder, scans):
        file = scans[grid][0].name.replace(".nii.gz", "_trans.nii.gz")
        stock = nibabel.load(folder / "stock" / file).get_fdata()
        yield grid, own, np.rint(stock).astype(int)


def compare_auto3dseg(name: str, folder: Path) -> Maps:
    """Yield the label maps of a model of Auto3DSeg's."""
    model = folder / "segresnet_0"
    file = auto3dseg_models.write_model(name, model / "model")
    scans = auto3dseg_models.write_scans(name, folder / "scans")
    for grid, own in segment(model, folder, scans):
        theirs = auto3dseg_models.infer(file, scans[grid])
        if theirs.ndim > own.ndim:
            theirs = paint(theirs)
        yield grid, own, theirs


def paint(structures: np.ndarray) -> np.ndarray:
    """Return a label map of structures that overlap."""
    painted = np.zeros(structures.shape[1:], int)
    for channel, value in PAINTED:
        painted[structures[channel]] = value
    return painted


def segment(
    model: Path, folder: Path, scans: dict[str, Sequence[Path]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Import a model and yield its label maps, by the values that the original writes."""
    spec = import_model(model, folder / "imported").spec
    values = [0, *(label.file_values[0] for label in spec.labels)]
    segmenter = Segmenter(folder / "imported", "cpu")
    for grid, files in scans.items():
        labels = segmenter.segment(list(files)).labels
        yield grid, np.array(values)[labels]


if __name__ == "__main__":
    main()
