"""``Correction``: a scan whose label map is corrected click by click.

Only a window around a click is computed, so that a click costs the same in any scan; the rest of
the label map stays as it is. Within the window one label alone is corrected: it takes voxels from
others where the network finds it, and those that it gives up become what the network finds there
instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.bundle.spec import BundleSpec, ClicksSpec
from medseg.errors import MedsegError, ScanError
from medseg.inference.click_field import obey_clicks
from medseg.inference.clicks import Points, Space, find_voxels, parse_clicks
from medseg.inference.given_labels import check_labels, find_label_index
from medseg.inference.windows import Corner, Windows, cut_window
from medseg.networks.click_inputs import draw_click_inputs
from medseg.preprocessing.grid import compute_network_grid, crop_input
from medseg.preprocessing.grid_map import GridMap, Shape
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.resampling import resample_linear, resample_nearest
from medseg.preprocessing.transforms import get_padding_value
from medseg.volume import Affine, Array, Volume

_EDGE_SHARE = 1 / 8
"""How much of a window at each side is seen but not changed, because little is seen around it."""

ComputeScores = Callable[[torch.Tensor], torch.Tensor]
"""Maps windows ``(1, channels, x, y, z)`` to scores ``(1, classes, x, y, z)``."""

Limits = npt.NDArray[np.float64]
"""``(2, 3)``: from where to where along each axis of the network's grid, in voxels."""


@dataclass(frozen=True, slots=True)
class _Clicks:
    """Clicks on one label.

    Attributes:
        inside: Where they lie on the network's grid, in voxels.
        outside: The same of clicks outside of the label.
        voxels_inside: Their voxels in the box that the network looks at.
        voxels_outside: The same of clicks outside of the label.
    """

    inside: Points
    outside: Points
    voxels_inside: npt.NDArray[np.int_]
    voxels_outside: npt.NDArray[np.int_]


class Correction:
    """A scan whose label map is corrected click by click; resampled and normalised once.

    Args:
        scan: The scan, with the bundle's channels, checked.
        spec: An interactive bundle.
        compute: What computes the scores of a window.
        device: Where it computes.

    Raises:
        ScanError: If the scan cannot be brought onto the network's grid.
    """

    def __init__(
        self,
        scan: Volume,
        spec: BundleSpec,
        compute: ComputeScores,
        device: torch.device,
    ) -> None:
        self.scan = scan.grid
        self._label_set = spec.label_set
        self._sigma = (spec.training.clicks or ClicksSpec()).sigma
        self._is_flat = spec.network.dims == 2
        self._compute = compute
        self._device = device
        self._padding = get_padding_value(spec)
        prep = spec.preprocessing
        grid = compute_network_grid(scan, prep)
        image = NetworkInput(spec)(scan, grid)
        self._image, self._grid = crop_input(image, grid, prep, scan)
        x, y, z = (*spec.training.patch, 1)[:3]
        self._windows = Windows((x, y, z), self._grid.shape, overlap=0)
        self._voxel = np.linalg.norm(self._grid.affine[:3, :3], axis=0)
        to_grid = np.linalg.inv(self._grid.affine)
        self._scan_to_grid: Affine = to_grid @ scan.affine

    def correct(
        self,
        mask: Array,
        label: str | int,
        inside: Any = (),
        outside: Any = (),
        *,
        space: Space = "voxel",
        around: Any = None,
    ) -> Array:
        """Return a label map in which one label follows clicks.

        Args:
            mask: Label indices ``(i, j, k)`` on the scan's grid; not changed.
            label: The label to correct: its name, or its index.
            inside: Clicks inside it, ``(n, 3)``: all so far, not only the last.
            outside: Clicks outside of it.
            space: ``voxel`` for indices ``(i, j, k)`` of the scan's array, ``ras`` for mm.
            around: The clicks to compute windows around: those that came since the mask was made.
                All of them unless given.

        Returns:
            Label indices, uint8 or uint16. A click's own voxel is what the click says, whatever the
            network does.

        Raises:
            ScanError: If there is no such label, a click is none or lies outside the scan, or the
                mask holds other labels.
            GeometryError: If the mask does not have the scan's shape.
            MedsegError: If the network returns no numbers.
        """
        scan = self.scan
        index = find_label_index(label, self._label_set)
        corrected = check_labels(mask, scan.shape, len(self._label_set)).copy()
        points_inside = parse_clicks(inside, scan, "clicks inside", space)
        points_outside = parse_clicks(outside, scan, "clicks outside", space)
        clicks = self._place_clicks(points_inside, points_outside)
        waiting = np.concatenate([clicks.inside, clicks.outside])
        if around is not None:
            points = parse_clicks(around, scan, "clicks", space)
            waiting = self._to_grid(points)
        in_box = self._grid.crop(corrected[None])[0]
        while len(waiting):
            limits = self._correct_around(waiting[0], in_box, index, clicks)
            is_done = _is_within(waiting, limits)
            is_done[0] = True
            waiting = waiting[~is_done]
        _obey(in_box, index, clicks)
        return corrected

    def _place_clicks(self, inside: Points, outside: Points) -> _Clicks:
        return _Clicks(
            self._to_grid(inside),
            self._to_grid(outside),
            self._find_in_box(inside),
            self._find_in_box(outside),
        )

    def _to_grid(self, points: Points) -> Points:
        """Return where positions in the scan lie on the network's grid."""
        return _map(points, self._scan_to_grid)

    def _find_in_box(self, points: Points) -> npt.NDArray[np.int_]:
        """Return in which voxels of the box that the network looks at positions in the scan lie.

        Raises:
            ScanError: If it does not look there.
        """
        voxels = find_voxels(points, self.scan.shape)
        to_box = self._grid.scan_to_network
        positions = _map(self._to_grid(voxels.astype(float)), to_box.matrix)
        in_box = np.rint(positions).astype(int)
        is_outside = (in_box < 0) | (in_box >= np.array(to_box.source))
        if is_outside.any():
            raise ScanError(
                "a click lies where the network does not look: outside of the part that the "
                "bundle crops a scan to (preprocessing.crop_above)"
            )
        return in_box

    def _correct_around(
        self, point: Points, in_box: Array, index: int, clicks: _Clicks
    ) -> Limits:
        """Correct a label in the window around a point; return what the window may change."""
        corner = self._find_corner(point)
        on_grid, _ = self._windows.part_on_grid(corner)
        first = np.array([part.start for part in on_grid], float)
        scores = self._score(corner, in_box, index, clicks)
        scores[index] += obey_clicks(
            scores,
            index,
            clicks.inside - first,
            clicks.outside - first,
            self._voxel,
        )
        limits = self._find_limits(corner)
        to_grid = self._grid.network_to_scan
        start, stop = self._find_box(limits)
        target = _as_shape(stop - start)
        matrix = _shift(-first) @ to_grid.matrix @ _shift(start)
        on_scan = GridMap(matrix, _as_shape(scores.shape[1:]), target)
        on_scan_scores = resample_linear(scores, on_scan)
        for voxels, score in (
            (clicks.voxels_inside, torch.inf),
            (clicks.voxels_outside, -torch.inf),
        ):
            is_here = ((voxels >= start) & (voxels < stop)).all(axis=1)
            here = voxels[is_here] - start
            on_scan_scores[index][tuple(here.T)] = score
        winners = on_scan_scores.max(dim=0).indices.numpy()
        may_change = _find_within(to_grid, limits, start, target)
        part = in_box[tuple(map(slice, start, stop))]
        is_new = (winners == index) & may_change
        is_given_up = (part == index) & (winners != index) & may_change
        part[is_new] = index
        part[is_given_up] = winners[is_given_up]
        return limits

    def _find_corner(self, point: Points) -> Corner:
        """Return the first voxel of the window whose middle is nearest to a point."""
        corner = []
        for axis, centre in enumerate(np.floor(point + 0.5).astype(int)):
            size, length = self._windows.size[axis], self._windows.shape[axis]
            if length <= size:
                corner += self._windows.starts(axis)
                continue
            first = int(centre) - size // 2
            corner.append(min(max(first, 0), length - size))
        x, y, z = corner
        return x, y, z

    def _score(
        self, corner: Corner, in_box: Array, index: int, clicks: _Clicks
    ) -> Array:
        """Return the scores of a window, ``(classes, …)``: of its part on the grid."""
        windows = self._windows
        image = cut_window(self._image, windows, corner, self._padding)
        on_grid, in_window = windows.part_on_grid(corner)
        first = np.array([part.start for part in on_grid], float)
        target = _as_shape([part.stop - part.start for part in on_grid])
        to_box = self._grid.scan_to_network
        matrix = to_box.matrix @ _shift(first)
        labels = resample_nearest(
            in_box, GridMap(matrix, to_box.source, target)
        )
        mask = torch.zeros(windows.size)
        is_label = np.asarray(labels == index, np.float32)
        mask[in_window] = torch.from_numpy(is_label)
        drawn = draw_click_inputs(
            self._find_visible(clicks.inside, corner),
            self._find_visible(clicks.outside, corner),
            mask,
            self._sigma,
        )
        window = torch.cat([image, drawn])[None].to(self._device)
        scores = self._compute(window)[0].float().cpu()
        if not bool(scores.isfinite().all()):
            raise MedsegError(
                "the network returns no numbers for this scan; its weights or the scan's "
                "intensities are broken"
            )
        return scores[(slice(None), *in_window)].numpy().copy()

    def _find_visible(
        self, points: Points, corner: Corner
    ) -> list[list[float]]:
        """Return the points as positions in a window; a slice shows those in it alone."""
        positions = points - np.array(corner)
        if self._is_flat:
            in_slice = np.abs(positions[:, 2]) <= 0.5
            positions = positions[in_slice]
            positions[:, 2] = 0
        listed: list[list[float]] = positions.tolist()
        return listed

    def _find_limits(self, corner: Corner) -> Limits:
        """Return what a window may change: all but its edges, unless they are the scan's."""
        limits = np.empty((2, 3))
        for axis, first in enumerate(corner):
            size, length = self._windows.size[axis], self._windows.shape[axis]
            edge = size * _EDGE_SHARE if size > 1 else -0.5
            end = first + size
            limits[0, axis] = first + edge if first > 0 else -1
            limits[1, axis] = end - 1 - edge if end < length else length
        return limits

    def _find_box(
        self, limits: Limits
    ) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
        """Return the first and the last voxel + 1 of the box that limits reach over."""
        to_box = self._grid.scan_to_network
        corners = np.array(list(itertools.product(*limits.T)))
        positions = _map(corners, to_box.matrix)
        length = np.array(to_box.source)
        start = np.floor(positions.min(axis=0)).astype(int)
        stop = np.ceil(positions.max(axis=0)).astype(int) + 1
        return np.clip(start, 0, length - 1), np.clip(stop, 1, length)


def _obey(in_box: Array, index: int, clicks: _Clicks) -> None:
    """Let the voxels that were clicked on be what the clicks say, also outside every window."""
    in_box[tuple(clicks.voxels_inside.T)] = index
    outside = tuple(clicks.voxels_outside.T)
    former = in_box[outside]
    in_box[outside] = np.where(former == index, 0, former)


def _find_within(
    to_grid: GridMap, limits: Limits, start: npt.NDArray[np.int_], shape: Shape
) -> Array:
    """Return which voxels of a part of the box lie within limits on the network's grid."""
    index = []
    for axis, length in enumerate(shape):
        along = torch.arange(length) + int(start[axis])
        index.append(along.view([-1 if axis == n else 1 for n in range(3)]))
    is_within = torch.ones(shape, dtype=torch.bool)
    for axis in range(3):
        position = to_grid.position(axis, *index)
        low, high = limits[:, axis]
        is_within &= (position >= low) & (position <= high)
    return is_within.numpy()


def _is_within(points: Points, limits: Limits) -> Array:
    is_within: Array = ((points >= limits[0]) & (points <= limits[1])).all(1)
    return is_within


def _map(points: Points, matrix: Affine) -> Points:
    mapped: Points = points @ matrix[:3, :3].T + matrix[:3, 3]
    return mapped


def _shift(voxels: Array) -> Affine:
    matrix: Affine = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def _as_shape(sizes: Sequence[int] | Array) -> Shape:
    x, y, z = (int(size) for size in sizes)
    return x, y, z
