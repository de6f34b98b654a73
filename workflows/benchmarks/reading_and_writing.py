"""Read a gzipped CT and write its label map, with medseg and with the libraries' defaults.

    python workflows/benchmarks/reading_and_writing.py WORK -n 5

A CT-like volume (a phantom with noise, int16, 512×512 and 200 or 400 slices) in a .nii.gz that
nibabel wrote, and a label map of it (3 classes, uint8). Every measurement is a process of its own
and the contestants take turns; imports are not timed. What each does:

reading   medseg   ``read_image(path)``: float32, checksum and length compared, NaN looked for
          nibabel  ``nib.load(path).get_fdata()``, its default: float64
          nibabel, float32  ``nib.load(path).get_fdata(dtype=np.float32)``
          monai    ``LoadImage()(path)``, its default reader: float32
writing   medseg   ``write_labels(path, labels, scan)``: uint8, on disk (fsync) when it returns
          nibabel  ``nib.save(nib.Nifti1Image(labels, affine), path)``: uint8
          nibabel, float32  the same after ``labels.astype(np.float32)``, as ``SaveImage`` stores
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

READING = ("medseg", "nibabel", "nibabel, float32", "monai")
WRITING = ("medseg", "nibabel", "nibabel, float32")
AFFINE = np.diag([-0.8, -0.8, 1.5, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", "--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--once", nargs=2, metavar=("TASK", "CONTESTANT"))
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(*given.once, given.work)))
        return
    names = ", ".join(
        f"{name} {version(name)}"
        for name in ("medseg", "nibabel", "monai", "isal")
    )
    print(
        f"{time.strftime('%Y-%m-%d')}; {names}; {platform.machine()}; n = {given.repeats}"
    )
    for slices in given.slices:
        work = given.work / str(slices)
        if not (work / "labels.npy").is_file():
            write_files(work, slices)
        for task, contestants in (("reading", READING), ("writing", WRITING)):
            compare(task, contestants, work, given.repeats)


def write_files(work: Path, slices: int) -> None:
    from scipy.ndimage import zoom

    from medseg.testing import make_phantom

    work.mkdir(parents=True, exist_ok=True)
    coarse, labels = make_phantom(1, (128, 128, 100), 3.2)
    rng = np.random.default_rng(7)
    image = np.empty((512, 512, slices), np.int16, order="F")
    fine = np.empty(image.shape, np.uint8, order="F")
    for k in range(slices):
        at = k * 100 // slices
        plane = zoom(coarse.array[0, :, :, at], 4, order=1)
        image[..., k] = np.rint(plane + rng.normal(0, 15, plane.shape))
        fine[..., k] = np.kron(labels[:, :, at], np.ones((4, 4), np.uint8))
    nib.save(nib.Nifti1Image(image, AFFINE), work / "scan.nii.gz")
    np.save(work / "labels.npy", fine)


def once(task: str, contestant: str, work: Path) -> dict[str, float]:
    act = (reader if task == "reading" else writer)(contestant, work)
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


def reader(contestant: str, work: Path) -> Callable[[], object]:
    path = work / "scan.nii.gz"
    if contestant == "medseg":
        from medseg.io import read_image

        return lambda: read_image(path)
    if contestant == "monai":
        from monai.transforms import LoadImage

        return lambda: LoadImage()(path)
    dtype = np.float32 if "float32" in contestant else np.float64
    return lambda: nib.load(path).get_fdata(dtype=dtype)


def writer(contestant: str, work: Path) -> Callable[[], object]:
    from medseg.io import write_labels
    from medseg.volume import Volume

    path = work / f"out-{contestant.replace(', ', '-')}.nii.gz"
    labels = np.load(work / "labels.npy")
    if contestant == "medseg":
        scan = Volume(
            np.broadcast_to(np.zeros(1, np.uint8), (1, *labels.shape)), AFFINE
        )
        return lambda: write_labels(path, labels, scan)
    dtype = np.float32 if "float32" in contestant else np.uint8
    return lambda: nib.save(nib.Nifti1Image(labels.astype(dtype), AFFINE), path)


def compare(
    task: str, contestants: tuple[str, ...], work: Path, repeats: int
) -> None:
    taken: dict[str, list[dict[str, float]]] = {
        name: [] for name in contestants
    }
    for turn in range(repeats + 1):
        for name in contestants:
            found = measured(task, name, work)
            if turn:  # the first one fills the disk's cache
                taken[name].append(found)
    print(f"\n{task}, 512×512×{work.name}\n")
    print("| | CPU s | wall s | CPU, nibabel = 1 | wall, nibabel = 1 |")
    print("| --- | --- | --- | --- | --- |")
    for name, runs in taken.items():
        cells = [spread([run[of] for run in runs]) for of in ("cpu", "wall")]
        for of in ("cpu", "wall"):
            pairs = zip(taken["nibabel"], runs, strict=True)
            cells.append(
                spread([theirs[of] / ours[of] for theirs, ours in pairs]) + "×"
            )
        print(f"| {name} | {' | '.join(cells)} |")


def measured(task: str, contestant: str, work: Path) -> dict[str, float]:
    command = [sys.executable, __file__, str(work), "--once", task, contestant]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float]) -> str:
    return (
        f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
    )


if __name__ == "__main__":
    main()
