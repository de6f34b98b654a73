"""How sure a network is of labels, its own or given ones, gathered while it sweeps over a scan.

The score of a structure is the Dice that its mask can be expected to have if the network's
probabilities are right: ``2 Σ_{mask} p / (|mask| + Σ p)``. Here it is in raw form, on the network's
grid; ``medseg.quality.calibration`` turns it into the Dice that such scores meant on held-out
cases.

Before they become probabilities, logits are divided by a temperature (Guo et al., ICML 2017). A
network that is not yet sure spreads a little probability over the whole scan, which ``Σ p`` counts
whatever the mask is like; below 1, a temperature takes it away. Held-back cases choose it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medseg.inference.accumulator import Accumulator
from medseg.labels import LabelSet
from medseg.preprocessing.grid import NetworkGrid
from medseg.preprocessing.resampling import resample_linear
from medseg.volume import Array

PERCENT = 100
"""What an error map holds where the network is sure to be wrong."""

_SEEN = 0.25
"""A structure that is nowhere more probable than this, and has no voxel, is not there."""

_NUMBERS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}

Totals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the probabilities of a scan add up to, per class, in voxels of the network's grid.

    Attributes:
        inside: Probability of each class summed over its own mask, ``(temperatures, estimates,
            classes)``.
        everywhere: The same over the whole scan.
        sizes: Voxels of each mask, ``(classes,)``.
        peaks: Highest probability of each class, ``(temperatures, classes)``.
        doubt: Probability in percent that a voxel's label is wrong, at the first temperature;
            uint8, ``(x, y, z)``.
    """

    inside: Totals
    everywhere: Totals
    sizes: Totals
    peaks: Totals
    doubt: Array

    def expected_dice(self, label_set: LabelSet, which: int = 0) -> dict[str, float]:
        """Return label name → raw expected Dice, of the structures that seem to be there.

        Args:
            label_set: What the classes mean.
            which: Position of the temperature.
        """
        inside, everywhere = self.inside[which], self.everywhere[which]
        scores = 2 * inside / np.maximum(everywhere + self.sizes, 1e-9)
        mean = np.clip(scores.mean(axis=0), 0, 1)
        seen = (self.sizes > 0) | (self.peaks[which] > _SEEN)
        each = [(region.name, region.channel) for region in label_set.regions]
        return {name: float(mean[channel]) for name, channel in each if seen[channel]}

    def and_outside(self, voxels: Totals) -> Found:
        """Return what is found once voxels count that lie where the network did not look.

        Args:
            voxels: Of each mask out there, ``(classes,)``, in voxels of the network's grid; the
                network's answer there is background.
        """
        return Found(self.inside, self.everywhere, self.sizes + voxels, self.peaks, self.doubt)

    def without(self, kept: Mapping[int, float]) -> Found:
        """Return what is found once masks were made smaller.

        Args:
            kept: Class → share of its mask's probability that is left.
        """
        share = np.array([kept.get(index, 1.0) for index in range(len(self.sizes))])
        return Found(
            self.inside * share, self.everywhere, self.sizes * share, self.peaks, self.doubt
        )


class Confidence:
    """Adds up a scan's probabilities as planes of the network's grid become finished.

    Args:
        shape: Voxels of the network's grid.
        parts: Which of the accumulator's scores belong together as one estimate of all classes;
            several where a second network gives its own.
        chosen: Position of the estimate that labels are taken from.
        given: Labels ``(x, y, z)`` on the network's grid that are judged instead of its own.
        temperatures: What logits are divided by; everything is added up for each.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        parts: Sequence[slice],
        chosen: int = 0,
        given: Array | None = None,
        temperatures: Sequence[float] = (1.0,),
    ) -> None:
        classes = parts[0].stop - parts[0].start
        self._parts, self._chosen, self._done = parts, chosen, 0
        self._given, self._temperatures = given, temperatures
        self._inside = np.zeros((len(temperatures), len(parts), classes))
        self._everywhere = np.zeros_like(self._inside)
        self._sizes, self._peaks = np.zeros(classes), np.zeros((len(temperatures), classes))
        self._doubt = np.zeros(shape, np.uint8)

    def take(self, scores: Accumulator, finished: int) -> None:
        """Take every plane of the network's grid before ``finished`` that was not taken yet."""
        device = scores.sums.device.type
        plane = scores.sums[..., 0].numel()
        at_once = max(1, _NUMBERS_AT_ONCE[device] // plane)
        for first in range(self._done, finished, at_once):
            self._take_planes(scores, slice(first, min(first + at_once, finished)))
        self._done = max(self._done, finished)

    @property
    def found(self) -> Found:
        """What was added up so far."""
        return Found(self._inside, self._everywhere, self._sizes, self._peaks, self._doubt)

    def _take_planes(self, scores: Accumulator, here: slice) -> None:
        held = slice(here.start - scores.first, here.stop - scores.first)
        weights = scores.weights[..., held]
        logits = [scores.sums[part, ..., held] / weights for part in self._parts]
        which = self._labels(logits[self._chosen], here)
        sizes = torch.bincount(which.reshape(-1), minlength=len(self._sizes))
        self._sizes += sizes.cpu().numpy()
        for row, temperature in enumerate(self._temperatures):
            sharp = logits if temperature == 1 else [one / temperature for one in logits]
            own = self._take_probabilities([one.softmax(dim=0) for one in sharp], which, row)
            if row == 0:
                doubt = (PERCENT * (1 - own)).round().to(torch.uint8)
                self._doubt[..., here] = doubt.cpu().numpy()

    def _take_probabilities(
        self, estimates: Sequence[torch.Tensor], which: torch.Tensor, row: int
    ) -> torch.Tensor:
        """Add up probabilities at one temperature; return the last estimate's of the labels."""
        flat, classes = which.reshape(-1), len(self._sizes)
        peaks = estimates[self._chosen].amax(dim=(1, 2, 3)).cpu().numpy()
        self._peaks[row] = np.maximum(self._peaks[row], peaks)
        for column, probabilities in enumerate(estimates):
            own = probabilities.gather(0, which[None])[0]
            inside = torch.bincount(flat, own.reshape(-1).double(), minlength=classes)
            self._inside[row, column] += inside.cpu().numpy()
            # In two steps: single precision loses what a whole slab adds up to.
            everywhere = probabilities.sum(dim=(2, 3)).double().sum(dim=1)
            self._everywhere[row, column] += everywhere.cpu().numpy()
        return own

    def _labels(self, logits: torch.Tensor, here: slice) -> torch.Tensor:
        if self._given is None:
            return logits.max(dim=0).indices
        planes = self._given[..., here].astype(np.int64)
        return torch.from_numpy(planes).to(logits.device)


def map_errors(found: Found, grid: NetworkGrid, shape: tuple[int, int, int]) -> Array:
    """Return where labels are probably wrong, on the scan's grid.

    Args:
        found: What the network was sure of.
        grid: Where it looked.
        shape: Voxels of the scan.

    Returns:
        uint8 ``(i, j, k)``, 0 to 100: probability in percent; 0 where the network did not look.
    """
    errors = np.zeros(shape, np.uint8, order="F")
    there = grid.crop(errors[None])[0]
    there[...] = resample_linear(found.doubt[None], grid.back)[0].round().to(torch.uint8).numpy()
    return errors
