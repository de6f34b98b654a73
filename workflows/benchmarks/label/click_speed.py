"""Measure what a click costs, by the size of the network: one window of 96³ voxels.

    python workflows/benchmarks/label/click_speed.py --threads 2 --channels 8,16,32

A scan of CT's size is opened once; then each click is timed, wall clock and CPU seconds of all
threads. On a busy machine the CPU seconds tell: divided by the threads, they are what a click takes
on an idle one, at best.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from medseg import Segmenter, Volume
from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.networks.building import build_network
from medseg.training.run_folder import RunFolder

SHAPE = (256, 256, 160)
WINDOW = [96, 96, 96]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--channels", default="8,16,32", help="of the top level"
    )
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--clicks", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rng = np.random.default_rng(0)
    voxels = rng.normal(0, 200, SHAPE).astype(np.int16)
    scan = Volume(voxels[None], np.diag([-1.0, -1.0, 1.0, 1.0]))
    print("| channels | open, s | click, s | CPU s per click |")
    print("| --- | --- | --- | --- |")
    for channels in map(int, given.channels.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            bundle = write_network(Path(folder), channels)
            segmenter = Segmenter(bundle, "cpu", precision=given.precision)
            began = time.perf_counter()
            # With it, the network is compiled.
            correction = segmenter.begin_correction(scan)
            opened = time.perf_counter() - began
        mask = np.zeros(SHAPE, np.uint8)
        mask[100:150, 100:150, 60:100] = 1
        walls, cpus = [], []
        for number in range(given.clicks + 1):
            click = (120 + 4 * number, 128, 80)
            wall, cpu = time.perf_counter(), time.process_time()
            mask = correction.correct(mask, 1, inside=[click])
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        # The first also plans the convolutions.
        wall, cpu = statistics.median(walls[1:]), statistics.median(cpus[1:])
        print(
            f"| {channels} | {opened:.1f} | {wall:.2f} | {cpu:.2f} |",
            flush=True,
        )


def write_network(folder: Path, channels: int) -> Path:
    """Write an interactive bundle with random weights."""
    spec = parse_spec(
        {
            "name": "speed",
            "channels": [{"name": "CT", "modality": "CT"}],
            "labels": [{"index": 1, "name": "liver"}],
            "preprocessing": {
                "intensity": {"kind": "window", "low": -200, "high": 300}
            },
            "network": {"kind": "unet", "channels": channels},
            "training": {"patch": WINDOW, "clicks": {}},
        }
    )
    run = RunFolder(folder)
    write_bundle(spec, run.bundle)
    torch.manual_seed(0)
    run.save_weights(build_network(spec, supervised=False).state_dict())
    return run.path


if __name__ == "__main__":
    main()
