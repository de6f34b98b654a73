"""Cubic resampling of a CT-size volume: medseg's small matrices against nnU-Net's skimage.

    python workflows/benchmarks/import/resampling.py [--shape 512 512 200] [--repeats 3]

Both run in turn, on one thread each, in this process. CPU seconds are compared, which a busy
machine spoils less than wall time. The largest difference of the results stands beside the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from medseg.bundle.spec import ResamplingSpec
from medseg.preprocessing.cubic import compute_bands, resample_cubic
from medseg.preprocessing.extent import compute_extent_maps

SPACING = (0.8, 0.8, 2.5)
WANTED = (1.5, 1.5, 1.5)


def make_volume(shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return smooth tissue with noise, int16 in HU, laid out as a reader does."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, shape).astype(np.float32)
    tissue = gaussian_filter(noise, 4)
    volume = tissue / tissue.std() * 200 + noise * 20
    return np.asfortranarray(volume.astype(np.int16))


def measure(act: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds that an act takes, and its result."""
    start = time.process_time()
    result = act()
    return time.process_time() - start, result


def main() -> None:
    """Measure both, in turn, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    i, j, k = options.shape
    volume = make_volume((i, j, k))
    cubic = ResamplingSpec(interpolation="cubic", grid="extent")
    grid_map, _ = compute_extent_maps(SPACING, (i, j, k), WANTED, cubic)
    acts: dict[str, Callable[[], Any]] = {
        "medseg": lambda: resample_cubic(volume[None], grid_map)[0],
        "skimage": lambda: resize(
            volume.astype(float),
            grid_map.target,
            order=3,
            mode="edge",
            anti_aliasing=False,
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    results: dict[str, Any] = {}
    for _ in range(options.repeats):
        compute_bands.cache_clear()
        for name, act in acts.items():
            took, results[name] = measure(act)
            seconds[name].append(took)
    difference = np.abs(results["medseg"].numpy() - results["skimage"])
    ratios = [
        theirs / ours
        for ours, theirs in zip(
            seconds["medseg"], seconds["skimage"], strict=True
        )
    ]
    report = {
        "source": grid_map.source,
        "target": grid_map.target,
        "cpu_seconds": {
            name: [round(took, 3) for took in all_took]
            for name, all_took in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "largest_difference_hu": float(difference.max()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
