"""How many voxels a second a training step of different networks takes, side by side.

    python workflows/benchmarks/networks.py --rounds 3

The networks that ``medseg plan`` chooses from (``NETWORKS``) are trained on noise in turns, each
for some seconds a round, on one thread; a row has the median of the rounds and their range. Give
``--dims 2`` for pictures.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.training.speed import voxels_per_second

NETWORKS: dict[str, dict[str, Any]] = {
    "32 channels at the full size (nnU-Net's)": {
        "kind": "unet",
        "channels": 32,
        "strides": [1, 2, 2, 2],
        "deep_supervision": False,
    },
    "8 channels at the full size": {
        "kind": "unet",
        "channels": [8, 32, 64, 128],
        "strides": [1, 2, 2, 2],
        "deep_supervision": False,
    },
    "halves at once, 32-64-128": {
        "kind": "UNet",
        "args": {
            "channels": [32, 64, 128],
            "strides": [2, 2],
            "num_res_units": 2,
        },
    },
    "halves at once, 16-32-64-128": {
        "kind": "UNet",
        "args": {
            "channels": [16, 32, 64, 128],
            "strides": [2, 2, 2],
            "num_res_units": 2,
        },
    },
}
PATCHES = {2: [256, 256], 3: [40, 56, 40]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, choices=PATCHES, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds",
        type=float,
        default=6.0,
        help="of each network in each round",
    )
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    specs = {
        name: spec_of(network, given.dims) for name, network in NETWORKS.items()
    }
    speeds: dict[str, list[float]] = {name: [] for name in specs}
    for _ in range(given.rounds):
        for name, spec in specs.items():
            speeds[name].append(
                voxels_per_second(spec, device, given.seconds) / 1e6
            )
    slowest = statistics.median(speeds[next(iter(specs))])
    print(
        f"patch {PATCHES[given.dims]}, batch 2, fp32 unless the device computes in bf16\n"
    )
    print(
        "| network | million voxels a second, median (range) | times the first |"
    )
    print("| --- | --- | ---: |")
    for name, found in speeds.items():
        median = statistics.median(found)
        print(
            f"| {name} | {median:.3f} ({min(found):.3f}–{max(found):.3f}) | "
            f"{median / slowest:.1f} |"
        )


def spec_of(network: dict[str, Any], dims: int) -> BundleSpec:
    """Return a bundle that trains a network, with one channel and one label."""
    return parse_spec(
        {
            "name": "timed",
            "channels": [{"name": "image"}],
            "labels": [{"index": 1, "name": "label"}],
            "network": {**network, "dims": dims},
            "training": {
                "patch": PATCHES[dims],
                "batch_size": 2,
                "optimizer": "adamw",
            },
        }
    )


if __name__ == "__main__":
    main()
