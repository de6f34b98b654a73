"""How long a pass over a scan will take, and over how many windows, before it is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from medseg.inference.assembly_predictor import AssemblyPredictor
from medseg.inference.blank_window import find_values
from medseg.inference.bundle_predictor import BundlePredictor
from medseg.inference.segmenter import Segmenter
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.volume import Volume

_TRIES = 2
"""What is computed for the first time takes longer."""


@torch.inference_mode()
def estimate_seconds(segmenter: Segmenter, volume: Volume) -> float:
    """Estimate how long the networks of a bundle compute for a scan.

    Args:
        segmenter: Of one bundle, on a CPU.
        volume: With the bundle's channels.

    Returns:
        Seconds: those of one window, times the windows that are not blank.
    """
    predictor = segmenter._predictor
    if isinstance(predictor, AssemblyPredictor):
        raise TypeError("only the windows of one bundle are alike")
    window = predictor.sliding_window
    scan_pass = SlidingWindowPass(window, window.plan(volume))
    seen = None
    count = 0
    for corner in scan_pass.list_corners():
        cut = scan_pass.cut([corner])
        if find_values(cut) is None:
            seen = cut
            count += 1
    if seen is None:
        return 0.0
    return count * _measure(predictor, seen)


def count_windows(
    segmenter: Segmenter, volume: Volume, overlaps: Sequence[float]
) -> list[int]:
    """Count the windows over a scan, blank ones included.

    Args:
        segmenter: Of one bundle.
        volume: With the bundle's channels.
        overlaps: Shares by which windows overlap.

    Returns:
        The number with each overlap.
    """
    predictor = segmenter._predictor
    if isinstance(predictor, AssemblyPredictor):
        raise TypeError("only the windows of one bundle are alike")
    window = predictor.sliding_window
    # A box that is looked for in the network's input is known once that is made.
    placed = SlidingWindowPass(window, window.plan(volume)).windows
    moved = [replace(placed, overlap=overlap) for overlap in overlaps]
    return [len(windows.corners()) for windows in moved]


def _measure(predictor: BundlePredictor, windows: torch.Tensor) -> float:
    """Return how long the networks take for a window."""
    taken = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        predictor.ensemble.compute(windows)
        taken.append(time.perf_counter() - began)
    return min(taken)
