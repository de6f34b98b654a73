"""How sure a network is of labels, its own or given ones, gathered during a sliding-window pass.

The score of a structure is the Dice that its mask can be expected to have if the network's
probabilities are right: ``2 Σ_{mask} p / (|mask| + Σ p)``. Here it is in raw form, on the network's
grid; ``medseg.quality.calibration`` turns it into the Dice that such scores meant on held-out
cases.

Before they become probabilities, logits are divided by a temperature (Guo et al., ICML 2017). A
network that is not yet sure spreads a little probability over the whole scan, which ``Σ p`` counts
whatever the mask is like; below 1, a temperature takes it away. Held-out cases choose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from medseg.inference.accumulator import Accumulator
from medseg.inference.host_writer import HostWriter
from medseg.labels import LabelSet
from medseg.metrics.confusion import Mask
from medseg.metrics.label_boxes import find_box_of_labels
from medseg.preprocessing.grid import NetworkGrid
from medseg.preprocessing.resampled_parts import (
    Box,
    find_reach,
    resample_part,
    resample_voxels,
)
from medseg.preprocessing.sending import send
from medseg.volume import Array

PERCENT = 100
"""What an error map holds where the network is sure that the label is wrong."""

_PRESENT_ABOVE = 0.25
"""A structure that is nowhere more probable than this, and has no voxel, is absent."""

_NUMBERS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}

_LEAST_VOXELS = 1e-9
"""Keeps the Dice of an empty mask without any probability from being 0 / 0."""

ClassTotals = npt.NDArray[np.float64]
"""Voxels, or sums of probabilities; one number per class along the last axis."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceSums:
    """What the probabilities of a scan add up to, per class, in voxels of the network's grid.

    Attributes:
        inside: Probability of each class summed over its own mask, ``(temperatures, estimates,
            classes)``.
        everywhere: The same over the whole scan.
        sizes: Voxels of each mask, ``(classes,)``.
        peaks: Highest probability of each class, ``(temperatures, classes)``.
        errors: Probability in percent that a voxel's label is wrong, at the first temperature;
            uint8, ``(x, y, z)``.
    """

    inside: ClassTotals
    everywhere: ClassTotals
    sizes: ClassTotals
    peaks: ClassTotals
    errors: Array

    def expected_dice(
        self, label_set: LabelSet, which: int = 0
    ) -> dict[str, float]:
        """Return label name → raw expected Dice, of the structures that seem to be present.

        Args:
            label_set: What the classes mean.
            which: Position of the temperature.
        """
        in_both = 2 * self.inside[which]
        in_either = np.maximum(
            self.everywhere[which] + self.sizes, _LEAST_VOXELS
        )
        mean_over_estimates = (in_both / in_either).mean(axis=0)
        dice = np.clip(mean_over_estimates, 0, 1)
        is_present = (self.sizes > 0) | (self.peaks[which] > _PRESENT_ABOVE)
        expected = {}
        for region in label_set.regions:
            channel = region.channel
            if is_present[channel]:
                expected[region.name] = float(dice[channel])
        return expected

    def with_voxels_outside(self, voxels: ClassTotals) -> ConfidenceSums:
        """Return the sums once voxels count that lie where the network did not look.

        Args:
            voxels: Size of each mask outside, ``(classes,)``, in voxels of the network's grid;
                the network's answer outside is background.
        """
        return replace(self, sizes=self.sizes + voxels)

    def with_share_kept(self, kept: Mapping[int, float]) -> ConfidenceSums:
        """Return the sums once masks were made smaller.

        Args:
            kept: Class → share of its mask's probability that is left.
        """
        share = np.ones_like(self.sizes)
        for index, left in kept.items():
            share[index] = left
        inside = self.inside * share
        sizes = self.sizes * share
        return replace(self, inside=inside, sizes=sizes)


class ConfidenceAccumulator:
    """Adds up a scan's probabilities as planes of the network's grid become final.

    Args:
        shape: Voxels of the network's grid.
        parts: Which of the accumulator's scores belong together as one estimate of all classes;
            several where a second network gives its own.
        chosen: Position of the estimate that labels are taken from.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
        host: Adds up what a GPU has found: the sums are complete once it has finished.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        parts: Sequence[slice],
        chosen: int = 0,
        given: Array | None = None,
        temperatures: Sequence[float] = (1.0,),
        host: HostWriter | None = None,
    ) -> None:
        classes = parts[0].stop - parts[0].start
        self._parts = parts
        self._chosen = chosen
        self._given = given
        self._temperatures = temperatures
        self._host = host or HostWriter()
        self._planes_done = 0
        self._inside = np.zeros((len(temperatures), len(parts), classes))
        self._everywhere = np.zeros_like(self._inside)
        self._sizes = np.zeros(classes)
        self._peaks = np.zeros((len(temperatures), classes))
        self._errors = np.zeros(shape, np.uint8)

    @property
    def sums(self) -> ConfidenceSums:
        """What was added up so far."""
        return ConfidenceSums(
            self._inside,
            self._everywhere,
            self._sizes,
            self._peaks,
            self._errors,
        )

    def add_before(self, finished: int, scores: Accumulator) -> None:
        """Add every plane of the network's grid before ``finished`` that was not added yet."""
        device = scores.sums.device.type
        numbers_per_plane = scores.sums[..., 0].numel()
        at_once = _NUMBERS_AT_ONCE[device] // numbers_per_plane
        at_once = max(1, at_once)
        for first in range(self._planes_done, finished, at_once):
            stop = min(first + at_once, finished)
            self._add_planes(scores, slice(first, stop))
        self._planes_done = max(self._planes_done, finished)

    def _add_planes(self, scores: Accumulator, planes: slice) -> None:
        held = scores.locate_planes(planes.start, planes.stop)
        weights = scores.weights[..., held]
        logits = [
            scores.sums[part, ..., held] / weights for part in self._parts
        ]
        labels = self._get_labels(logits[self._chosen], planes)
        classes = len(self._sizes)
        sizes = torch.bincount(labels.reshape(-1), minlength=classes)
        self._host.write(sizes, self._add_sizes)
        for row, temperature in enumerate(self._temperatures):
            estimates = [
                _compute_probabilities(each, temperature) for each in logits
            ]
            of_labels = self._add_probabilities(estimates, labels, row)
            if row == 0:
                percent = round_percent(1 - of_labels)
                self._host.write(percent, partial(self._put_errors, planes))

    def _add_probabilities(
        self, estimates: Sequence[torch.Tensor], labels: torch.Tensor, row: int
    ) -> torch.Tensor:
        """Add up probabilities at one temperature.

        Returns:
            The last estimate's probability of each voxel's label, ``(x, y, planes)``.
        """
        classes = len(self._sizes)
        flat_labels = labels.reshape(-1)
        peaks = estimates[self._chosen].amax(dim=(1, 2, 3))
        found = [peaks.double()]
        for probabilities in estimates:
            of_labels = probabilities.gather(0, labels[None])[0]
            weights = of_labels.reshape(-1).double()
            inside = torch.bincount(flat_labels, weights, minlength=classes)
            # In two steps: single precision loses what a whole slab adds up to.
            of_lines = probabilities.sum(dim=(2, 3))
            found += [inside, of_lines.double().sum(dim=1)]
        # Together, so that a GPU copies once.
        self._host.write(torch.stack(found), partial(self._add_sums, row))
        return of_labels

    def _add_sizes(self, sizes: Array) -> None:
        self._sizes += sizes

    def _add_sums(self, row: int, found: Array) -> None:
        """Add what some planes have: peaks, then of each estimate what is inside and everywhere."""
        self._peaks[row] = np.maximum(self._peaks[row], found[0])
        self._inside[row] += found[1::2]
        self._everywhere[row] += found[2::2]

    def _put_errors(self, planes: slice, percent: Array) -> None:
        self._errors[..., planes] = percent

    def _get_labels(self, logits: torch.Tensor, planes: slice) -> torch.Tensor:
        if self._given is None:
            return logits.max(dim=0).indices
        given = self._given[..., planes].astype(np.int64)
        return send(torch.from_numpy(given), logits.device)


def _compute_probabilities(
    logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    if temperature != 1:
        logits = logits / temperature
    return logits.softmax(dim=0)


def round_percent(share: torch.Tensor) -> torch.Tensor:
    """Return shares of 0 to 1 in percent, uint8."""
    percent = (PERCENT * share).round()
    return percent.to(torch.uint8)


def map_errors(
    sums: ConfidenceSums, grid: NetworkGrid, shape: tuple[int, int, int]
) -> Array:
    """Map where labels are probably wrong, on the scan's grid.

    Args:
        sums: What the network was sure of.
        grid: The grid on which it saw the scan.
        shape: Voxels of the scan.

    Returns:
        uint8 ``(i, j, k)``, 0 to 100: probability in percent; 0 where the network did not look.
    """
    errors = np.zeros(shape, np.uint8, order="F")
    with_channel = grid.crop(errors[None])
    doubtful = find_box_of_labels(sums.errors)
    if doubtful is None:
        return errors
    part = find_reach(doubtful, grid.network_to_scan)
    if part is not None:
        resampled = resample_part(sums.errors[None], grid.network_to_scan, part)
        with_channel[(slice(None), *part)] = _round(resampled)
    return errors


def sample_errors(
    sums: ConfidenceSums, grid: NetworkGrid, mask: Mask, part: Box
) -> Array:
    """Return where labels are probably wrong, of the voxels of a mask alone.

    Args:
        sums: What the network was sure of.
        grid: The grid on which it saw the scan.
        mask: Which voxels of the part.
        part: A box in the view that ``grid.crop`` returns.

    Returns:
        uint8 ``(voxels,)``: what ``map_errors`` has there, in the order of ``mask.T``.
    """
    # Transposed, a mask of a label map lies in memory as numpy goes through it.
    in_order = mask.T
    positions = np.flatnonzero(in_order)
    z, y, x = np.unravel_index(positions, in_order.shape)
    voxels = [
        torch.from_numpy(index + side.start)
        for index, side in zip((x, y, z), part, strict=True)
    ]
    return _round(resample_voxels(sums.errors, grid.network_to_scan, voxels))


def _round(percent: torch.Tensor) -> Array:
    rounded: Array = percent.round().to(torch.uint8).numpy()
    return rounded
