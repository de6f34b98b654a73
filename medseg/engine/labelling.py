"""Scores on the network's grid → labels on the scan's, a few planes at a time.

The labels are those of all scores interpolated linearly to the scan's grid and then compared.
Where the eight voxels around a place share their best class, interpolation (a convex combination)
keeps it, so only the others, at the rims of structures, are computed in full.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.engine.accumulator import Accumulator
from medseg.tools.resampling import GridMap, Taps
from medseg.words.errors import MedsegError
from medseg.words.volume import Array

_VOXELS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 24}
_SCORES_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 25}


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
    """

    def __init__(self, back: GridMap, labels: Array, device: torch.device) -> None:
        self._back, self._device = back, device
        self._planes = labels.transpose(2, 1, 0)
        self._done = 0
        self._through = back.axis_taps(2)
        self._axes = [back.axis_taps(axis, device) for axis in range(3)] if back.is_straight else []
        plane = back.target[0] * back.target[1]
        self._at_once = max(1, _VOXELS_AT_ONCE[device.type] // plane)

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
        while self._done < ready:
            here = slice(self._done, min(self._done + self._at_once, ready))
            self._planes[here] = self._labels(scores, here).cpu().numpy()
            self._done = here.stop
        if ready == len(self._planes):
            return finished
        return min(finished, int(self._through.lower[ready]))

    def _labels(self, scores: Accumulator, here: slice) -> torch.Tensor:
        """Return the labels of some planes of the scan, ``(k, j, i)``."""
        first = int(self._through.lower[here.start])
        stop = int(self._through.upper[here.stop - 1]) + 1
        held = slice(first - scores.first, stop - scores.first)
        sums, weights = scores.sums[..., held], scores.weights[..., held]
        best, which = sums.max(dim=0)  # several times faster than argmax on a CPU
        if not bool(torch.isfinite(best.sum())):
            raise MedsegError(
                "the network returned scores that are no finite numbers; the arithmetic may be too "
                "coarse for it (choose precision fp32), or its weights are broken"
            )
        small = torch.uint8 if len(sums) < 256 else torch.int16
        nearest = which.to(small).permute(2, 1, 0).contiguous()
        if self._back.is_identity:
            return nearest
        cells = _shared(nearest)
        labels = self._of_cells(cells, first, here)
        flat = labels.view(-1)
        rim = (flat == _mixed(cells)).nonzero()[:, 0]
        if len(rim):
            rows = _Rows(cells, sums, weights)
            for some in torch.split(rim, max(1, _SCORES_AT_ONCE[self._device.type] // len(sums))):
                flat[some] = self._interpolated(rows, some, first, here).to(small)
        return labels

    def _of_cells(self, cells: torch.Tensor, first: int, here: slice) -> torch.Tensor:
        """Return what the cell of each voxel holds."""
        if self._back.is_straight:
            x, y, z = (taps.lower for taps in self._axes)
            found = cells.index_select(0, z[here] - first)
            return found.index_select(1, y).index_select(2, x)
        i, j, k = (
            torch.arange(n.start, n.stop, device=self._device).view(shape)
            for n, shape in (
                (slice(0, self._back.target[0]), (1, 1, -1)),
                (slice(0, self._back.target[1]), (1, -1, 1)),
                (here, (-1, 1, 1)),
            )
        )
        x, y, z = (taps.lower for taps in self._taps(i, j, k))
        _, rows, columns = cells.shape
        return cells.view(-1)[((z - first) * rows + y) * columns + x]

    def _taps(self, *index: torch.Tensor) -> list[Taps]:
        """Return the taps of voxels of the scan along each axis of the network's grid."""
        if self._axes:
            return [taps.at(at) for taps, at in zip(self._axes, index, strict=True)]
        return [self._back.taps(axis, *index) for axis in range(3)]

    def _interpolated(
        self, rows: _Rows, voxels: torch.Tensor, first: int, here: slice
    ) -> torch.Tensor:
        """Return the best class at voxels given by flat position in planes ``(k, j, i)``."""
        columns, lines, _ = self._back.target
        i, j = voxels % columns, voxels // columns % lines
        k = voxels // (columns * lines) + here.start
        x, y, z = self._taps(i, j, k)
        near, share = [], []
        one = torch.ones((), device=self._device)
        for above_z, above_y, above_x in itertools.product((False, True), repeat=3):
            near.append(
                rows.position(
                    *(
                        (taps.upper if above else taps.lower) - offset
                        for taps, above, offset in (
                            (z, above_z, first),
                            (y, above_y, 0),
                            (x, above_x, 0),
                        )
                    )
                )
            )
            shares = (
                taps.above if above else taps.below
                for taps, above in ((z, above_z), (y, above_y), (x, above_x))
            )
            share.append(math.prod(shares, start=one))
        scores = functional.embedding_bag(
            torch.stack(near, dim=1),
            rows.scores,
            per_sample_weights=torch.stack(share, dim=1),
            mode="sum",
        )
        return scores.max(dim=1).indices


class _Rows:
    """The scores of all corners of mixed cells, one row for each corner.

    Args:
        cells: What the cells share, ``(z, y, x)``.
        sums: Weighted sums, ``(classes, x, y, z)``.
        weights: Their weights, ``(x, y, z)``.
    """

    def __init__(self, cells: torch.Tensor, sums: torch.Tensor, weights: torch.Tensor) -> None:
        self._shape = cells.shape
        corners = cells == _mixed(cells)
        for axis in range(3):
            behind = corners.narrow(axis, 0, corners.shape[axis] - 1)
            corners = corners.clone()
            corners.narrow(axis, 1, behind.shape[axis]).logical_or_(behind)
        self._number = corners.view(-1).cumsum(0, dtype=torch.int32).sub_(1)
        z, y, x = corners.nonzero(as_tuple=True)
        self.scores = sums[:, x, y, z].T.contiguous()
        self.scores /= weights[x, y, z, None]

    def position(self, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the rows of corners."""
        _, rows, columns = self._shape
        return self._number[(z * rows + y) * columns + x]


def _mixed(labels: torch.Tensor) -> int:
    """Return the value, no class's index, of cells whose corners have different best classes."""
    return torch.iinfo(labels.dtype).max


def _shared(labels: torch.Tensor) -> torch.Tensor:
    """Return the label that a voxel and its next neighbours along every axis share."""
    low = high = labels
    for axis in range(3):
        low = torch.minimum(low, _next(low, axis))
        high = torch.maximum(high, _next(high, axis))
    return torch.where(low == high, low, _mixed(labels))


def _next(labels: torch.Tensor, axis: int) -> torch.Tensor:
    last = labels.shape[axis] - 1
    return torch.cat([labels.narrow(axis, 1, last), labels.narrow(axis, last, 1)], dim=axis)
