"""Compare the training steps of one process with those of several, input excluded.

    python workflows/benchmarks/training_processes.py --processes 2 --steps 20 -n 3

Each process has a core (or a GPU, with --device cuda) of its own, and all share each batch, as
`torchrun … medseg train` does. The batch is made once, so that neither reading nor augmentation
counts. The two take turns; wall time counts, so the machine must be quiet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.training.distributed import (
    choose_local_device,
    join_process_group,
)
from medseg.training.learner import Callbacks, Learner

WARM_UP = 3
RESULT = "seconds per step:"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("-n", "--repeats", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help="internal")
    given = parser.parse_args()
    if given.worker:
        work(given)
        return
    seconds: dict[int, list[float]] = {1: [], given.processes: []}
    for _ in range(given.repeats):
        for count, measured in seconds.items():
            measured.append(measure(count))
    print("| processes | seconds per step | speed-up |\n| --- | --- | --- |")
    alone = statistics.median(seconds[1])
    for count, measured in seconds.items():
        median = statistics.median(measured)
        spread = f"{median:.3f} ({min(measured):.3f}–{max(measured):.3f})"
        print(f"| {count} | {spread} | {alone / median:.2f} |")


def measure(processes: int) -> float:
    """Return the seconds per step of some processes together."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    own = [str(processes), __file__, "--worker", *sys.argv[1:]]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", *own],
        check=True,
        capture_output=True,
        text=True,
    )
    (line,) = (
        line for line in done.stdout.splitlines() if line.startswith(RESULT)
    )
    return float(line.removeprefix(RESULT))


def work(given: argparse.Namespace) -> None:
    """Take the steps in one process of a group, and print how long one took."""
    device = choose_local_device(given.device)
    if device.type == "cpu":
        cores = sorted(os.sched_getaffinity(0))
        core = cores[int(os.environ["LOCAL_RANK"]) % len(cores)]
        os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
    with join_process_group(device) as group:
        spec = make_spec(given)
        case = make_case(given.patch)
        learner = Learner(spec, [case], device, group=group)
        batch = learner.batches.batch(1)
        learner.batches.batch = lambda step: batch  # type: ignore[method-assign]
        ends: list[float] = []

        def note_end(step: int) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            ends.append(time.perf_counter())

        callbacks = Callbacks(lambda step: True, lambda step: None, note_end)
        learner.learn(callbacks)
        if group.is_main:
            measured = ends[-1] - ends[WARM_UP - 1]
            print(RESULT, measured / given.steps)


def make_spec(given: argparse.Namespace) -> BundleSpec:
    """Return a bundle of a small network, and as many steps as are asked for."""
    steps = given.steps + WARM_UP
    return parse_spec(
        {
            "name": "processes",
            "channels": [{"name": "CT"}],
            "labels": [{"index": 1, "name": "organ"}],
            "network": {
                "kind": "unet",
                "channels": [16, 32, 64],
                "strides": [1, 2, 2],
            },
            "training": {
                "patch": [given.patch] * 3,
                "steps": steps,
                "batch_size": given.batch,
                "precision": "fp32",
                "checkpoint_every": steps,
                "validate_every": steps,
            },
        }
    )


def make_case(size: int) -> CachedCase:
    """Return a case of noise, somewhat larger than a patch."""
    shape = (size + 8, size + 8, size + 8)
    chance = torch.Generator().manual_seed(0)
    image = torch.randn((1, *shape), generator=chance).half()
    label = torch.zeros((1, *shape), dtype=torch.uint8)
    label[:, 8:-8, 8:-8, 8:-8] = 1
    inside = np.flatnonzero(label.numpy())
    return CachedCase(
        "case", "label", image, label, {1: inside}, (1.0, 1.0, 1.0)
    )


if __name__ == "__main__":
    main()
