"""Scores on the network's grid → labels on the scan's, a few planes at a time.

The labels are those of all scores interpolated linearly to the scan's grid and then compared, or,
with regions, painted. Where the eight voxels around a place share their winner, interpolation (a
convex combination) keeps it, so only the others, at the rims of structures, are computed in full.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.inference.accumulator import Accumulator
from medseg.networks.decoding import Painting
from medseg.preprocessing.resampling import GridMap, Taps
from medseg.volume import Array

_FEWEST_VOXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}
_MOST_VOXELS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 24}
_SCORES_AT_ONCE = 3 << 21
"""Voxels of the scan, and their scores. More are faster; those at mixed corners are gathered."""

_NUMBERS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Interpolating one voxel takes its scores and about 48 more numbers."""


def label_type(classes: int) -> npt.DTypeLike:
    """Return the smallest type of a label map for so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


class Labeller:
    """Writes labels into a label map as planes of the network's grid become finished.

    Args:
        back: Where the label map's voxels lie in the network's grid.
        labels: The label map (or a part of it, as a view), ``(i, j, k)`` along the network's
            axes; written plane by plane along the last.
        device: Where the scores lie.
        painting: How scores become labels; the highest wins unless given.
    """

    def __init__(
        self,
        back: GridMap,
        labels: Array,
        device: torch.device,
        painting: Painting = Painting(),  # noqa: B008 - a frozen value
    ) -> None:
        self._back, self._device, self._painting = back, device, painting
        self._planes = labels.transpose(2, 1, 0)
        self._done = 0
        self._through = back.axis_taps(2)
        self._axes = (
            [back.axis_taps(axis, device) for axis in range(3)] if back.is_axis_aligned else []
        )
        self._plane = back.target[0] * back.target[1]

    def label(self, scores: Accumulator, finished: int) -> int:
        """Label every plane of the scan that lies between finished planes of the network's grid.

        Args:
            scores: Holds the planes from what the last call returned.
            finished: Planes of the network's grid before this one are final.

        Returns:
            The first plane that is still needed.

        Raises:
            MedsegError: If a score is not a finite number.
        """
        ready = int((self._through.upper < finished).sum())
        at_once = self._planes_at_once(len(scores.labelled))
        while self._done < ready:
            here = slice(self._done, min(self._done + at_once, ready))
            winners = self._winners(scores, here).cpu().numpy()
            self._planes[here] = self._painting.labels(winners)
            self._done = here.stop
        if ready == len(self._planes):
            return finished
        return min(finished, int(self._through.lower[ready]))

    def _planes_at_once(self, channels: int) -> int:
        """Return how many planes of the scan to label at once: fewer with many channels."""
        fewest = _FEWEST_VOXELS_AT_ONCE[self._device.type]
        most = _MOST_VOXELS_AT_ONCE[self._device.type]
        return max(1, min(max(fewest, _SCORES_AT_ONCE // channels), most) // self._plane)

    def _winners(self, scores: Accumulator, here: slice) -> torch.Tensor:
        """Return who wins the voxels of some planes of the scan, ``(k, j, i)``."""
        first = int(self._through.lower[here.start])
        stop = int(self._through.upper[here.stop - 1]) + 1
        needed = scores.labelled[..., first - scores.first : stop - scores.first]
        highest, winners = self._painting.compare(needed)
        if not bool(torch.isfinite(highest.sum())):
            raise MedsegError(
                "the network returned scores that are no finite numbers; the arithmetic may be too "
                "coarse for it (choose precision fp32), or its weights are broken"
            )
        small = torch.uint8 if len(needed) < 255 else torch.int16
        nearest = winners.to(small).permute(2, 1, 0).contiguous()
        if self._back.is_identity:
            return nearest
        cells = _shared(nearest)
        found = self._of_cells(cells, first, here)
        flat = found.view(-1)
        rim = (flat == _mixed(cells)).nonzero()[:, 0]
        if len(rim):
            corners = _Corners(cells, scores, first)
            at_once = max(1, _NUMBERS_AT_ONCE[self._device.type] // (len(needed) + 48))
            for some in torch.split(rim, at_once):
                there = corners.scores_at(*self._taps_of(some, first, here))
                flat[some] = self._painting.compare(there, dim=1).winners.to(small)
        return found

    def _of_cells(self, cells: torch.Tensor, first: int, here: slice) -> torch.Tensor:
        """Return what the cell of each voxel of some planes holds, ``(k, j, i)``."""
        columns, lines, _ = self._back.target
        if self._back.is_axis_aligned:
            x, y, z = (taps.lower for taps in self._axes)
            return cells.index_select(0, z[here] - first).index_select(1, y).index_select(2, x)
        voxels = torch.arange((here.stop - here.start) * columns * lines, device=self._device)
        x, y, z = (taps.lower for taps in self._taps_of(voxels, first, here))
        return cells[z, y, x].view(-1, lines, columns)

    def _taps_of(self, voxels: torch.Tensor, first: int, here: slice) -> list[Taps]:
        """Return the taps of voxels of some planes, by flat position, along x, y and z.

        Planes of the network's grid are counted from ``first``.
        """
        columns, lines, _ = self._back.target
        planes = voxels // (columns * lines) + here.start
        index = (voxels % columns, voxels // columns % lines, planes)
        if self._axes:
            x, y, z = (taps.at(at) for taps, at in zip(self._axes, index, strict=True))
        else:
            x, y, z = (self._back.taps(axis, *index) for axis in range(3))
        return [x, y, z._replace(lower=z.lower - first, upper=z.upper - first)]


class _Corners:
    """The scores at all corners of mixed cells, gathered so that each corner is one row.

    Args:
        cells: What the cells share, ``(z, y, x)``.
        scores: Where the scores are.
        first: Plane of the network's grid at ``z = 0``.
    """

    def __init__(self, cells: torch.Tensor, scores: Accumulator, first: int) -> None:
        # In the order the scores have in memory.
        needed = (cells == _mixed(cells)).permute(2, 1, 0).contiguous()
        for axis in range(3):
            behind = needed.narrow(axis, 0, needed.shape[axis] - 1).clone()
            needed.narrow(axis, 1, behind.shape[axis]).logical_or_(behind)
        self._shape = needed.shape
        self._row = needed.view(-1).cumsum(0, dtype=torch.int32).sub_(1)
        x, y, z = needed.nonzero(as_tuple=True)
        _, lines, planes = scores.weights.shape
        place = (x * lines + y) * planes + z + (first - scores.first)
        # By flat position, because indexing with several tensors is ten times slower.
        rows = scores.labelled.view(len(scores.labelled), -1).index_select(1, place).T.contiguous()
        self._scores = rows.div_(scores.weights.view(-1, 1).index_select(0, place))

    def scores_at(self, *taps: Taps) -> torch.Tensor:
        """Return the interpolated scores, ``(places, channels)``, at places given by their taps."""
        _, lines, planes = self._shape
        corners, shares = [], []
        for above in itertools.product((False, True), repeat=3):
            pairs = list(zip(taps, above, strict=True))
            x, y, z = (tap.upper if up else tap.lower for tap, up in pairs)
            corners.append(self._row[(x * lines + y) * planes + z])
            x, y, z = (tap.above if up else tap.below for tap, up in pairs)
            shares.append(x * y * z)
        return functional.embedding_bag(
            torch.stack(corners, dim=1),
            self._scores,
            per_sample_weights=torch.stack(shares, dim=1),
            mode="sum",
        )


def _mixed(winners: torch.Tensor) -> int:
    """Return the value, no winner's, of cells whose corners have different winners."""
    return torch.iinfo(winners.dtype).max


def _shared(winners: torch.Tensor) -> torch.Tensor:
    """Return the winner that a voxel and its next neighbours along every axis share."""
    low = high = winners
    for axis in range(3):
        low = torch.minimum(low, _next(low, axis))
        high = torch.maximum(high, _next(high, axis))
    return torch.where(low == high, low, _mixed(winners))


def _next(winners: torch.Tensor, axis: int) -> torch.Tensor:
    last = winners.shape[axis] - 1
    return torch.cat([winners.narrow(axis, 1, last), winners.narrow(axis, last, 1)], dim=axis)
