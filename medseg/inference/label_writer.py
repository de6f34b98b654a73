"""Scores on the network's grid → labels on the scan's, a few planes at a time.

The labels are those of all scores, or of their probabilities, interpolated linearly to the scan's
grid and then decoded: the highest score wins, or regions in order. Where the eight voxels around a
point share their winner, interpolation (a convex combination) keeps it, so only the others, at the
rims of structures, are computed in full. Or each label is that of the nearest voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.errors import MedsegError
from medseg.inference.accumulator import Accumulator
from medseg.inference.host_writer import HostWriter
from medseg.networks.decoding import Decoding
from medseg.preprocessing.grid_map import GridMap, Taps
from medseg.volume import Array

Activation = Callable[..., torch.Tensor]
"""Makes of logits, and the axis ``dim`` of their channels, something of the same shape."""
Choice = Callable[[Taps], torch.Tensor]
"""Chooses one neighbour of each position."""

_FEWEST_VOXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}
_MOST_VOXELS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 24}
_SCORES_AT_ONCE = 3 << 21
"""Voxels of the scan, and their scores. More are faster; those at mixed corners are gathered."""

_NUMBERS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 27}
_NUMBERS_PER_VOXEL = 48
"""Interpolating one voxel takes its scores and about this many more numbers."""


def choose_label_type(classes: int) -> npt.DTypeLike:
    """Return the smallest type of a label map for so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


class LabelWriter:
    """Writes labels into a label map as planes of the network's grid become final.

    Args:
        back: Where the label map's voxels lie in the network's grid.
        labels: The label map (or a part of it, as a view), ``(i, j, k)`` along the network's
            axes; written plane by plane along the last.
        device: Where the scores lie.
        decoding: How scores become labels; the highest wins unless given.
        probabilities: Where the probabilities of all channels go, ``(channels, i, j, k)`` along
            the network's axes, if they are wanted.
        temperature: What logits are divided by before they become probabilities.
        host: Writes labels of a GPU into the map: they are there once it has finished.
    """

    def __init__(
        self,
        back: GridMap,
        labels: Array,
        device: torch.device,
        decoding: Decoding = Decoding(),  # noqa: B008 - a frozen value
        probabilities: Array | None = None,
        temperature: float = 1.0,
        host: HostWriter | None = None,
    ) -> None:
        self._back = back
        self._device = device
        self._decoding = decoding
        self._probabilities = probabilities
        self._temperature = temperature
        self._host = host or HostWriter()
        self._planes = labels.transpose(2, 1, 0)
        self._planes_done = 0
        columns, lines, _ = back.target
        self._voxels_per_plane = columns * lines
        self._through = back.axis_taps(2)
        self._axes: list[Taps] = []
        if back.is_axis_aligned:
            self._axes = [back.axis_taps(axis, device) for axis in range(3)]

    def write_before(self, finished: int, scores: Accumulator) -> int:
        """Label every plane of the scan that lies between final planes of the network's grid.

        Args:
            finished: Planes of the network's grid before this one are final.
            scores: Holds the planes from what the last call returned.

        Returns:
            The first plane of the network's grid that is still needed.

        Raises:
            MedsegError: If a score is not a finite number; on a GPU perhaps by a later call, or
                when the host's writer finishes.
        """
        # The planes of a scan are in order, so those whose upper neighbour is final come first.
        is_ready = self._through.upper < finished
        ready = int(is_ready.sum())
        channels = len(scores.labelled)
        at_once = self._count_planes_at_once(channels)
        while self._planes_done < ready:
            stop = min(self._planes_done + at_once, ready)
            self._write(slice(self._planes_done, stop), scores)
            self._planes_done = stop
        if ready == len(self._planes):
            return finished
        first_needed = int(self._through.lower[ready])
        return min(finished, first_needed)

    def write_nearest(self, on_grid: Array) -> None:
        """Write labels that lie on the network's grid, each to where it is the nearest.

        Args:
            on_grid: Label indices ``(x, y, z)``.
        """
        # Torch looks up no unsigned numbers of two bytes.
        cells = torch.from_numpy(on_grid.transpose(2, 1, 0).astype(np.int32))
        at_once = self._count_planes_at_once(channels=1)
        for start in range(0, len(self._planes), at_once):
            planes = slice(start, min(start + at_once, len(self._planes)))
            found = self._look_up(cells, 0, planes, find_nearest)
            self._planes[planes] = found.numpy()

    def _write(self, planes: slice, scores: Accumulator) -> None:
        winners = self._find_winners(scores, planes)
        self._host.write(winners, partial(self._put, planes))
        if self._probabilities is not None:
            self._write_probabilities(planes, scores, self._probabilities)

    def _put(self, planes: slice, winners: Array) -> None:
        self._planes[planes] = self._decoding.to_labels(winners)

    def _write_probabilities(
        self, planes: slice, scores: Accumulator, target: Array
    ) -> None:
        """Interpolate the scores of every voxel, as those of rims are, and write probabilities."""
        first = int(self._through.lower[planes.start])
        last = int(self._through.upper[planes.stop - 1])
        x, y, _ = scores.weights.shape
        z = last + 1 - first
        everywhere = torch.zeros(z, y, x, dtype=torch.uint8).to(self._device)
        everywhere.fill_(_get_mixed_mark(everywhere))
        before, after = self._choose_activations()
        corners = _CornerScores(everywhere, scores, first, before)
        count = (planes.stop - planes.start) * self._voxels_per_plane
        every_voxel = torch.arange(count, device=self._device)
        parts = []
        for voxels in self._split(every_voxel, scores):
            taps = self._compute_taps(voxels, first, planes)
            found = after(corners.interpolate(*taps), dim=1)
            parts.append(found.cpu())
        in_order = torch.cat(parts).numpy()
        columns, lines, _ = self._back.target
        by_plane = in_order.reshape(-1, lines, columns, len(target))
        target[..., planes] = by_plane.transpose(3, 2, 1, 0)

    def _choose_activations(self) -> tuple[Activation, Activation]:
        """Return what makes probabilities of logits before and after interpolation."""
        activate = partial(
            self._decoding.to_probabilities, temperature=self._temperature
        )
        if self._decoding.resample == "probabilities":
            return activate, _keep
        return _keep, activate

    def _split(
        self, voxels: torch.Tensor, scores: Accumulator
    ) -> Sequence[torch.Tensor]:
        """Split voxels into as many as are interpolated at a time."""
        numbers_per_voxel = len(scores.labelled) + _NUMBERS_PER_VOXEL
        at_once = _NUMBERS_AT_ONCE[self._device.type] // numbers_per_voxel
        return torch.split(voxels, max(1, at_once))

    def _count_planes_at_once(self, channels: int) -> int:
        """Return how many planes of the scan to label at once: fewer with many channels."""
        fewest = _FEWEST_VOXELS_AT_ONCE[self._device.type]
        most = _MOST_VOXELS_AT_ONCE[self._device.type]
        voxels = _SCORES_AT_ONCE // channels
        voxels = max(voxels, fewest)
        voxels = min(voxels, most)
        return max(1, voxels // self._voxels_per_plane)

    def _find_winners(self, scores: Accumulator, planes: slice) -> torch.Tensor:
        """Return who wins the voxels of some planes of the scan, ``(k, j, i)``."""
        first = int(self._through.lower[planes.start])
        last = int(self._through.upper[planes.stop - 1])
        held = scores.locate_planes(first, last + 1)
        needed = scores.labelled[..., held]
        highest, winners = self._decoding.find_winners(needed)
        self._host.write(highest.sum(), _require_finite)
        small = torch.uint8 if len(needed) < 255 else torch.int16
        winners = winners.to(small)
        on_grid = winners.permute(2, 1, 0).contiguous()
        if self._back.is_identity:
            return on_grid
        if self._decoding.resample == "labels":
            return self._look_up(on_grid, first, planes, find_nearest)
        cells = _find_shared_winners(on_grid)
        on_scan = self._look_up(cells, first, planes, _find_lower)
        self._fill_rims(on_scan, cells, scores, first, planes)
        return on_scan

    def _fill_rims(
        self,
        on_scan: torch.Tensor,
        cells: torch.Tensor,
        scores: Accumulator,
        first: int,
        planes: slice,
    ) -> None:
        """Replace the mark of mixed cells by the winner of the interpolated scores."""
        flat = on_scan.view(-1)
        is_rim = flat == _get_mixed_mark(cells)
        rim = is_rim.nonzero()[:, 0]
        if not len(rim):
            return
        corners = _CornerScores(
            cells, scores, first, self._decoding.to_interpolated
        )
        for voxels in self._split(rim, scores):
            taps = self._compute_taps(voxels, first, planes)
            interpolated = corners.interpolate(*taps)
            if scores.in_half:
                interpolated = interpolated.half().float()
            winners = self._decoding.find_winners(interpolated, dim=1).winners
            flat[voxels] = winners.to(on_scan.dtype)

    def _look_up(
        self, cells: torch.Tensor, first: int, planes: slice, choose: Choice
    ) -> torch.Tensor:
        """Return what stands beside each voxel of some planes, ``(k, j, i)``.

        Args:
            cells: What stands there, ``(z, y, x)``, from the plane ``first`` on.
            first: A plane of the network's grid.
            planes: Of the scan.
            choose: Which neighbour along an axis is taken.
        """
        if self._back.is_axis_aligned:
            x, y, z = map(choose, self._axes)
            of_planes = cells.index_select(0, z[planes] - first)
            of_lines = of_planes.index_select(1, y)
            return of_lines.index_select(2, x)
        columns, lines, _ = self._back.target
        count = (planes.stop - planes.start) * self._voxels_per_plane
        voxels = torch.arange(count, device=self._device)
        x, y, z = map(choose, self._compute_taps(voxels, first, planes))
        on_scan = cells[z, y, x]
        return on_scan.view(-1, lines, columns)

    def _compute_taps(
        self, voxels: torch.Tensor, first: int, planes: slice
    ) -> list[Taps]:
        """Return the taps of voxels of some planes, by flat position, along x, y and z.

        Planes of the network's grid are counted from ``first``.
        """
        columns, lines, _ = self._back.target
        i = voxels % columns
        j = voxels // columns % lines
        k = voxels // self._voxels_per_plane + planes.start
        if self._axes:
            along_x, along_y, along_z = self._axes
            x = along_x.at(i)
            y = along_y.at(j)
            z = along_z.at(k)
        else:
            x, y, z = (self._back.taps(axis, i, j, k) for axis in range(3))
        return [x, y, z.after(first)]


class _CornerScores:
    """The scores at all corners of mixed cells, gathered so that each corner is one row.

    Args:
        cells: What the cells share, ``(z, y, x)``.
        scores: Where the scores are.
        first: Plane of the network's grid at ``z = 0``.
        activate: What is made of logits, ``(points, channels)``, before they are interpolated.
    """

    def __init__(
        self,
        cells: torch.Tensor,
        scores: Accumulator,
        first: int,
        activate: Activation,
    ) -> None:
        needed = _find_corners_of_mixed(cells)
        self._shape = needed.shape
        counted = needed.view(-1).cumsum(0, dtype=torch.int32)
        self._row = counted.sub_(1)
        x, y, z = needed.nonzero(as_tuple=True)
        z_held = z + (first - scores.first)
        # By flat position, because indexing with several tensors is ten times slower.
        _, lines, planes = scores.weights.shape
        position = (x * lines + y) * planes + z_held
        labelled = scores.labelled
        sums = labelled.view(len(labelled), -1).index_select(1, position)
        sums = sums.T.contiguous()
        weights = scores.weights.view(-1, 1).index_select(0, position)
        self._scores = activate(sums.div_(weights), dim=1)

    def interpolate(self, *taps: Taps) -> torch.Tensor:
        """Return the scores ``(points, channels)`` at points given by their taps."""
        _, lines, planes = self._shape
        rows, shares = [], []
        for corner in itertools.product((False, True), repeat=3):
            ends = [
                _select_end(tap, is_upper)
                for tap, is_upper in zip(taps, corner, strict=True)
            ]
            (x, share_x), (y, share_y), (z, share_z) = ends
            position = (x * lines + y) * planes + z
            rows.append(self._row.index_select(0, position))
            shares.append(share_x * share_y * share_z)
        return functional.embedding_bag(
            torch.stack(rows, dim=1),
            self._scores,
            per_sample_weights=torch.stack(shares, dim=1),
            mode="sum",
        )


def find_nearest(taps: Taps) -> torch.Tensor:
    """Return the nearest index of each position; of two as near, the even one, as torch does."""
    is_tie = taps.above == taps.below
    upper_is_even = taps.upper % 2 == 0
    takes_upper = (taps.above > taps.below) | (is_tie & upper_is_even)
    return torch.where(takes_upper, taps.upper, taps.lower)


def _find_lower(taps: Taps) -> torch.Tensor:
    return taps.lower


def _keep(logits: torch.Tensor, dim: int) -> torch.Tensor:
    return logits


def _require_finite(total: Array) -> None:
    if not np.isfinite(total):
        raise MedsegError(
            "the network returned scores that are not finite numbers; its weights are broken, "
            "or the arithmetic is too coarse for it: try precision fp32"
        )


def _select_end(tap: Taps, is_upper: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices of a tap's upper or lower neighbours, and their shares."""
    if is_upper:
        return tap.upper, tap.above
    return tap.lower, tap.below


def _find_corners_of_mixed(cells: torch.Tensor) -> torch.Tensor:
    """Return which voxels are a corner of a mixed cell, bool ``(x, y, z)``."""
    is_mixed = cells == _get_mixed_mark(cells)
    # In the order the scores have in memory.
    needed = is_mixed.permute(2, 1, 0).contiguous()
    for axis in range(3):
        others = needed.shape[axis] - 1
        # A copy, or a voxel would pass on what it was given.
        before = needed.narrow(axis, 0, others).clone()
        needed.narrow(axis, 1, others).logical_or_(before)
    return needed


def _get_mixed_mark(winners: torch.Tensor) -> int:
    """Return the value, no winner's, of cells whose corners have different winners."""
    return torch.iinfo(winners.dtype).max


def _find_shared_winners(winners: torch.Tensor) -> torch.Tensor:
    """Return the winner that a voxel and its next neighbours along every axis share."""
    low = high = winners
    for axis in range(3):
        low = torch.minimum(low, _shift_along(low, axis))
        high = torch.maximum(high, _shift_along(high, axis))
    is_shared = low == high
    return torch.where(is_shared, low, _get_mixed_mark(winners))


def _shift_along(winners: torch.Tensor, axis: int) -> torch.Tensor:
    """Return each voxel's next neighbour along an axis; the last voxel is its own neighbour."""
    last = winners.shape[axis] - 1
    from_second = winners.narrow(axis, 1, last)
    border = winners.narrow(axis, last, 1)
    return torch.cat([from_second, border], dim=axis)
