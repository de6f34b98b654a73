"""A folder of scans against its own parts: do reading, network and writing overlap?

    python workflows/benchmarks/inference.py prepare WORK
    python workflows/benchmarks/batch.py WORK -n 3

Twenty CT-like scans are read, segmented and written one stage after the other, each stage timed by
itself; then ``medseg.segment`` does the folder as users call it. The batch should take little more
than the larger of (all reads and writes, all forwards). Both take turns in one process; pictures
and the report are part of the batch, and of its writes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import torch
from inference import write_scan

import medseg
from medseg.bundle.hashes import hash_file
from medseg.inference.segmenter import Segmenter
from medseg.io import read_image, write_labels
from medseg.plots.thumbnails import draw_thumbnail

SHAPE = (256, 256, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", "--repeats", type=int, default=3)
    parser.add_argument("--network", default="small")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    scans = given.work / "folder"
    for number in range(given.scans):
        file = scans / f"scan_{number:02d}.nii.gz"
        if not file.is_file():
            write_scan(file, SHAPE)
    bundle = given.work / given.network
    stages, batches = [], []
    for _ in range(given.repeats):
        stages.append(
            one_after_the_other(
                bundle, sorted(scans.iterdir()), given.work / "parts"
            )
        )
        batches.append(as_a_batch(bundle, scans, given.work / "whole"))
        print(stages[-1], round(batches[-1], 2), flush=True)
    ratios = [
        whole / max(part["read"] + part["write"], part["network"])
        for whole, part in zip(batches, stages, strict=True)
    ]
    print(
        "\n| reads s | writes s | forwards s | batch s | batch / larger part |"
    )
    print("| --- | --- | --- | --- | --- |")
    for part, whole, ratio in zip(stages, batches, ratios, strict=True):
        cells = [f"{part[name]:.2f}" for name in ("read", "write", "network")]
        print(f"| {' | '.join(cells)} | {whole:.2f} | {ratio:.3f} |")
    print(
        f"\nmedian ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    )


def one_after_the_other(
    bundle: Path, scans: list[Path], out: Path
) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    segmenter = Segmenter(bundle, "cpu")
    took = {"read": 0.0, "network": 0.0, "write": 0.0}
    for scan in scans:
        began = time.perf_counter()
        hash_file(scan)
        volume = read_image(scan)
        read = time.perf_counter()
        found = segmenter.segment(volume)
        segmented = time.perf_counter()
        write_labels(out / scan.name, found.labels, volume)
        hash_file(out / scan.name)
        draw_thumbnail(volume, found.labels, found.label_set)
        written = time.perf_counter()
        took["read"] += read - began
        took["network"] += segmented - read
        took["write"] += written - segmented
    return took


def as_a_batch(bundle: Path, scans: Path, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    batch = medseg.segment(bundle, scans, out, device="cpu")
    assert not batch.failed
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
