"""Plans of sliding-window passes over scans: where windows lie, and what is held where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from medseg.bundle.spec import BundleSpec
from medseg.inference.accumulator import count_bytes_held
from medseg.inference.label_writer import choose_label_type
from medseg.inference.pass_plan import (
    HOST_ONLY,
    PassPlan,
    Stopwatch,
    Storage,
    choose_storage,
)
from medseg.inference.probabilities import allocate_probabilities
from medseg.inference.windows import Windows
from medseg.networks.decoding import choose_decoding
from medseg.networks.loading import OutputLayout
from medseg.preprocessing.grid import (
    NetworkGrid,
    compute_network_grid,
)
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.transforms import get_padding_value
from medseg.volume import Array, Volume

GPU_SHARE = 0.6
"""Share of a GPU's free memory that image and sums may take; the rest is the network's."""

_BYTES_PER_NUMBER = 4

_MOST_BYTES_IN_ORDER = 256 << 20
"""Sums of a whole scan that are held so that windows come in nnU-Net's order."""


class SlidingWindow:
    """Plans passes over scans, for one bundle on one device.

    Args:
        spec: The bundle.
        device: Where the network computes.
        gpu_memory: Most bytes of GPU memory for image and sums, or ``None`` for a share of
            what is free.
        layout: What the network's channels are; one estimate of all classes unless given.
        temperature: What logits are divided by where confidence is judged.

    Attributes:
        batch_size: How many windows are computed at a time: fewer once memory ran out.
    """

    def __init__(
        self,
        spec: BundleSpec,
        device: torch.device,
        gpu_memory: int | None = None,
        layout: OutputLayout | None = None,
        temperature: float = 1.0,
    ) -> None:
        self.spec = spec
        self.device = device
        self.layout = layout or OutputLayout(spec.label_set.channels)
        self.decoding = choose_decoding(spec.label_set, spec.inference.resample)
        self.make_input = NetworkInput(spec)
        self.batch_size = (
            spec.inference.batch_size if device.type == "cuda" else 1
        )
        self.outside = get_padding_value(spec)
        self.repeats_border = spec.preprocessing.padding == "replicate"
        self._gpu_memory = gpu_memory
        self._temperature = temperature

    def plan(
        self,
        volume: Volume,
        given: Array | None = None,
        temperatures: Sequence[float] = (),
        probabilities: bool = False,
        grid: NetworkGrid | None = None,
    ) -> PassPlan:
        """Decide how a scan is passed over.

        Args:
            volume: With the bundle's channels.
            given: Label indices ``(i, j, k)`` on the scan's grid that are to be judged, too.
            temperatures: Others to judge confidence at, besides the bundle's, which comes first.
            probabilities: Whether those of every class are wanted on the scan's grid.
            grid: The grid on which the network sees the scan, if it is known.

        Raises:
            MedsegError: If these would take too much memory.
            ScanError: If the scan cannot be brought onto the network's grid.
        """
        stopwatch = Stopwatch()
        is_shared = grid is not None
        if grid is None:
            grid = compute_network_grid(volume, self.spec.preprocessing)
        windows = self._place_windows(grid, is_shared)
        labels = np.zeros(
            volume.shape,
            choose_label_type(self.spec.label_set.classes),
            order="F",
        )
        scores = None
        if probabilities:
            scores = allocate_probabilities(volume.shape, self.spec.label_set)
        storage = self._choose_storage(windows)
        stopwatch.lap("input")
        return PassPlan(
            volume,
            grid,
            windows,
            storage,
            (self._temperature, *temperatures),
            labels,
            stopwatch,
            given,
            probabilities=scores,
        )

    def _place_windows(self, grid: NetworkGrid, is_shared: bool) -> Windows:
        """Return where windows lie; in nnU-Net's order where its sums are ours and fit.

        Args:
            grid: The grid on which the network sees the scan.
            is_shared: Whether other networks take the same windows, whose sums may not fit.
        """
        inference = self.spec.inference
        windows = Windows(
            self._get_window_size(),
            grid.shape,
            inference.overlap,
            inference.window_steps == "even",
            inference.window_weights,
        )
        if is_shared or windows.weighting != "nnunet":
            return windows
        ordered = replace(windows, keep_order=True)
        held = count_bytes_held(ordered, self.layout.channels)
        return ordered if held <= _MOST_BYTES_IN_ORDER else windows

    def has_windows_of(self, other: SlidingWindow) -> bool:
        """Tell whether every window of a scan is the same as another bundle's."""
        return self._describe_windows() == other._describe_windows()

    def _describe_windows(self) -> tuple[object, ...]:
        """Return what windows and their content follow from."""
        inference = self.spec.inference
        return (
            self.spec.preprocessing,
            self._get_window_size(),
            inference.overlap,
            inference.window_steps,
            self.batch_size,
            self.outside,
            self.device,
        )

    def _get_window_size(self) -> tuple[int, int, int]:
        x, y, z = (*self.spec.training.patch, 1)[:3]
        return x, y, z

    def _choose_storage(self, windows: Windows) -> Storage:
        """Decide where image and sums lie before any memory is taken."""
        if self.device.type == "cpu":
            return HOST_ONLY
        free = self._gpu_memory
        if free is None:
            free = int(GPU_SHARE * _measure_free_gpu_memory(self.device))
        voxels = math.prod(windows.shape)
        image = _BYTES_PER_NUMBER * len(self.spec.channels) * voxels
        sums = count_bytes_held(windows, self.layout.channels)
        return choose_storage(self.device, free, image, sums)


def _measure_free_gpu_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for reuse is free for us, though not for others.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
        device
    )
    return int(free) + int(kept)
