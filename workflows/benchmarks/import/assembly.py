"""What an assembly of five networks and 117 classes takes: memory, and time beside its forwards.

The networks have random weights and the sizes of TotalSegmentator's task ``total``: 24, 26, 18, 23
and 26 labels, voxels of 1.5 mm, windows of 128³. The scan is CT-like noise of 0.8 × 0.8 × 1.5 mm.
Seconds are those of the processor, so that other work on the machine does not count::

    OMP_NUM_THREADS=1 python workflows/benchmarks/import/assembly.py --slices 300

With ``--alike`` all five normalise alike and get each window in turn; else each has its own CT
window, as TotalSegmentator's do, and they share the resampled scan.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg import Segmenter, Volume
from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.inference.bundle_predictor import Ensemble
from medseg.networks.building import build_network
from medseg.training.run_folder import RunFolder

LABELS = (24, 26, 18, 23, 26)
"""Of each part."""


def write_assembly(
    folder: Path, channels: list[int], patch: int, alike: bool
) -> None:
    """Write five bundles of random weights and the assembly of them."""
    parts, names = [], []
    for number, count in enumerate(LABELS):
        own = [f"part{number}_label{index}" for index in range(1, count + 1)]
        shift = 0 if alike else number
        content: dict[str, Any] = {
            "name": f"part{number}",
            "channels": [{"name": "CT", "modality": "CT"}],
            "labels": list_labels(own),
            "network": {
                "kind": "unet",
                "channels": channels,
                "strides": [1] + [2] * (len(channels) - 1),
            },
            "training": {"patch": [patch] * 3},
            "preprocessing": {
                "spacing_mm": [1.5] * 3,
                "resampling": {"interpolation": "cubic", "grid": "extent"},
                "intensity": {
                    "kind": "window",
                    "low": -1000 + shift,
                    "high": 1000,
                },
            },
            "inference": {
                "overlap": 0.2,
                "window_steps": "even",
                "window_weights": "nnunet",
                "resample": "labels",
                "keep_largest": [],
            },
        }
        run = RunFolder(folder / f"part{number}")
        spec = parse_spec(content)
        write_bundle(spec, run.bundle)
        torch.manual_seed(number)
        network = build_network(spec, supervised=False)
        run.save_weights(network.state_dict())
        parts.append({"name": f"part{number}", "bundle": f"part{number}"})
        names += own
    assembly = {"name": "five", "labels": list_labels(names), "parts": parts}
    (folder / "assembly.json").write_text(json.dumps(assembly))


def list_labels(names: list[str]) -> list[dict[str, Any]]:
    """Return names as a bundle lists labels."""
    return [
        {"index": index, "name": name}
        for index, name in enumerate(names, start=1)
    ]


def make_scan(slices: int) -> Volume:
    """Make a CT-like scan: a body of noise in air."""
    generator = np.random.default_rng(0)
    shape = (1, 512, 512, slices)
    array = generator.standard_normal(shape, dtype=np.float32)
    array *= 100
    array[:, :60] = -1000
    array[:, -60:] = -1000
    affine = np.diag([0.8, 0.8, 1.5, 1.0])
    return Volume(np.asfortranarray(array), affine)


def main() -> None:
    """Run it once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument(
        "--channels", type=int, nargs="+", default=[16, 32, 64, 128]
    )
    parser.add_argument("--alike", action="store_true")
    given = parser.parse_args()
    forward = [0.0]
    compute = Ensemble.__call__

    def measure(self: Ensemble, windows: torch.Tensor) -> torch.Tensor:
        began = time.process_time()
        scores = compute(self, windows)
        forward[0] += time.process_time() - began
        return scores

    Ensemble.__call__ = measure  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        write_assembly(Path(folder), given.channels, given.patch, given.alike)
        segmenter = Segmenter(folder, "cpu", backend="torch")
        scan = make_scan(given.slices)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        began = time.process_time()
        found = segmenter.segment(scan)
        total = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"labels found       {len(np.unique(found.labels)) - 1}")
    print(f"CPU seconds        {total:.1f}")
    print(f"  of forwards      {forward[0]:.1f}")
    print(f"ratio              {total / forward[0]:.2f}")
    print(f"peak memory, GiB   {peak:.2f} (before segmenting {before:.2f})")
    print({stage: round(took, 1) for stage, took in found.seconds.items()})


if __name__ == "__main__":
    main()
