"""One sweep over a scan: input → windows → sums → labels, in bounded memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg.bundle.spec import BundleSpec
from medseg.inference.accumulator import Accumulator, bytes_held
from medseg.inference.confidence import Found, Totals
from medseg.inference.label_writer import Labeller, label_type
from medseg.inference.predictor import Predictor
from medseg.inference.region_confidence import confidence_of, sizes_of_channels
from medseg.inference.windows import Scorer, Windows
from medseg.labels import LabelSet
from medseg.metrics.metrics import count_voxels
from medseg.networks.decoding import painting_of
from medseg.networks.loading import Answer
from medseg.preprocessing.grid import NetworkGrid, NetworkInput, compute_network_grid
from medseg.preprocessing.resampling import resample_nearest
from medseg.preprocessing.transforms import get_padding_value
from medseg.volume import Array, Volume

GPU_SHARE = 0.6
"""Share of a GPU's free memory that image and sums may take; the rest is the network's."""

HOST = torch.device("cpu")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Swept:
    """What a sweep made.

    Attributes:
        labels: Label indices on the scan's grid, ``(i, j, k)``.
        grid: Where the network looked.
        found: What its probabilities add up to.
        temperatures: What logits were divided by in ``found``.
        seconds: Stage → time. On a GPU, work counts where it is waited for.
        warnings: What had to be done differently from what was planned.
        given: What they add up to for labels that were given, if some were.
    """

    labels: Array
    grid: NetworkGrid
    found: Found
    temperatures: Sequence[float]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    given: Found | None = None


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a scan's image and its sums lie."""

    image: torch.device
    sums: torch.device


class Sweep:
    """Segments scans by sweeping windows over them, from the first plane to the last.

    The planes that no later window reaches are labelled and their scores forgotten.

    Args:
        spec: The bundle.
        predict: Its network.
        device: Where the network computes.
        gpu_memory: Most bytes of GPU memory for image and sums, or ``None`` for a share of
            what is free.
        answer: What the network's channels are; one estimate of all classes unless given.
        temperature: What logits are divided by where confidence is judged.
    """

    def __init__(
        self,
        spec: BundleSpec,
        predict: Predictor,
        device: torch.device,
        gpu_memory: int | None,
        answer: Answer | None = None,
        temperature: float = 1.0,
    ) -> None:
        self._spec, self._predict, self._device = spec, predict, device
        self._temperature = temperature
        self._gpu_memory = gpu_memory
        self._answer = answer or Answer(spec.label_set.channels)
        self._painting = painting_of(spec.label_set)
        self._make_input = NetworkInput(spec)

    def __call__(
        self, volume: Volume, given: Array | None = None, temperatures: Sequence[float] = ()
    ) -> Swept:
        """Segment a scan.

        Args:
            volume: With the bundle's channels.
            given: Label indices ``(i, j, k)`` on the scan's grid that are to be judged, too.
            temperatures: Others to judge confidence at, besides the bundle's, which comes first.

        Raises:
            ScanError: If the scan cannot be brought onto the network's grid.
            MedsegError: If the network returns no finite numbers.
            torch.OutOfMemoryError: If the device has too little memory even for one window.
        """
        began = time.perf_counter()
        grid = compute_network_grid(volume, self._spec.preprocessing)
        x, y, z = (*self._spec.training.patch, 1)[:3]
        windows = Windows((x, y, z), grid.shape, self._spec.inference.overlap)
        labels = np.zeros(volume.shape, label_type(self._spec.label_set.classes), order="F")
        seconds, warnings = {"input": time.perf_counter() - began}, []
        planned, judged = self._planned(windows), (self._temperature, *temperatures)
        try:
            found = self._fill(labels, seconds, volume, grid, windows, planned, given, judged)
        except torch.OutOfMemoryError:
            if planned == Storage(HOST, HOST):
                raise
            warning = (
                f"the memory of {self._device} ran out; image and scores were kept in the host's"
            )
            _log.warning(warning)
            warnings.append(warning)
            torch.cuda.empty_cache()
            kept = Storage(HOST, HOST)
            found = self._fill(labels, seconds, volume, grid, windows, kept, given, judged)
        return Swept(labels, grid, found[0], judged, seconds, tuple(warnings), *found[1:])

    def _planned(self, windows: Windows) -> Storage:
        """Decide where image and sums lie before any memory is taken."""
        if self._device.type == "cpu":
            return Storage(HOST, HOST)
        left = self._gpu_memory
        if left is None:
            left = int(GPU_SHARE * _free_memory(self._device))
        # The sums come first: every window's scores are added to them.
        sums = bytes_held(windows, self._answer.channels)
        sums_on = self._device if sums <= left else HOST
        left -= sums if sums_on == self._device else 0
        image = 4 * len(self._spec.channels) * math.prod(windows.shape)
        return Storage(self._device if image <= left else HOST, sums_on)

    def _fill(
        self,
        labels: Array,
        seconds: dict[str, float],
        volume: Volume,
        grid: NetworkGrid,
        windows: Windows,
        storage: Storage,
        given: Array | None,
        temperatures: Sequence[float],
    ) -> tuple[Found, ...]:
        watch = _Watch(seconds)
        image = self._make_input(volume, grid, storage.image)
        watch.lap("input")
        score = Scorer(
            self._predict,
            self._device,
            self._spec.inference.batch_size if self._device.type == "cuda" else 1,
            get_padding_value(self._spec),
        )
        answer = self._answer
        sums = Accumulator(windows, answer.channels, storage.sums, answer.labelled)
        label_set = self._spec.label_set
        judged: list[Array | None] = [None]
        if given is not None:
            judged.append(resample_nearest(grid.crop(given[None])[0], grid.there))
        confidence = [
            confidence_of(label_set, grid.shape, answer, labels_there, temperatures)
            for labels_there in judged
        ]
        part = grid.crop(labels[None])[0]
        labeller = Labeller(grid.back, part, storage.sums, self._painting)
        with self._predict.arithmetic():
            for corner, scores in score(image, windows):
                watch.lap("network")
                if not sums.has_room_for(corner):
                    needed = labeller.label(sums, finished=corner[2])
                    for one in confidence:
                        one.take(sums, finished=corner[2])
                    sums.drop_before(needed)
                sums.add(corner, scores)
                del scores  # or memory would hold them beside the next window's
                watch.lap("labels")
        labeller.label(sums, finished=grid.shape[2])
        for one in confidence:
            one.take(sums, finished=grid.shape[2])
        watch.lap("labels")
        own, *others = (one.found for one in confidence)
        return own, *(one.and_outside(_outside(given, grid, label_set)) for one in others)


def _outside(given: Array | None, grid: NetworkGrid, label_set: LabelSet) -> Totals:
    """Return how much of each channel's mask lies outside the box, in the network's voxels."""
    if given is None:
        return np.zeros(label_set.channels)
    box = grid.crop(given[None])[0]
    counts = count_voxels(given, label_set.classes) - count_voxels(box, label_set.classes)
    voxels = counts * np.float64(math.prod(grid.shape) / box.size)
    return sizes_of_channels(voxels, label_set)


class _Watch:
    """Adds the time since the last lap to a stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for reuse is free for us, though not for others.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(kept)
