"""Where the windows over a scan lie, what they weigh, and how one is cut out of the image.

Positions and weights are those of MONAI's ``SlidingWindowInferer`` with ``mode="gaussian"``, or
what a bundle says instead; only the order differs, so that the planes of the third axis are
finished from first to last.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from medseg.networks.window_weights import (
    WindowWeights,
    compute_window_weights,
)

Shape = tuple[int, int, int]
Corner = tuple[int, int, int]
"""First voxel of a window along each axis; negative where the window reaches over the edge."""

Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of one scan lie.

    Attributes:
        size: Voxels of a window.
        shape: Voxels of the grid they cover.
        overlap: Share by which neighbours overlap, 0 to below 1.
        are_even: Whether all lie at equal distances and overlap by at least this share; else the
            last is moved to fit.
        weighting: What their voxels weigh.
        keep_order: Whether they come in nnU-Net's order, by the first axis first, for which all
            planes are held until the end. Where sums are rounded to half precision, the order
            decides labels.
    """

    size: Shape
    shape: Shape
    overlap: float
    are_even: bool = False
    weighting: WindowWeights = "gaussian"
    keep_order: bool = False

    def starts(self, axis: int) -> list[int]:
        """Return where windows start along one axis, in order."""
        size = self.size[axis]
        length = self.shape[axis]
        if length <= size:
            margin_before = (size - length) // 2
            return [-margin_before]
        if self.are_even:
            return self._space_evenly(size, length)
        from monai.data.utils import dense_patch_slices

        interval = max(1, int(size * (1 - self.overlap)))
        patches = dense_patch_slices([length], [size], [interval])
        return [patch[0].start for patch in patches]

    def _space_evenly(self, size: int, length: int) -> list[int]:
        """Return where windows start along an axis, at equal distances, as in nnU-Net."""
        # Rounded, because 1 - 0.7 is not 0.3 and makes a step more.
        # Of one slice, half a step would look at each slice twice.
        furthest_step = max(1.0, size * round(1 - self.overlap, 9))
        steps = math.ceil((length - size) / furthest_step)
        return [
            round((length - size) / steps * step) for step in range(steps + 1)
        ]

    def corners(self) -> list[Corner]:
        """Return the first voxel of each window, by the third axis first unless order is kept."""
        if self.keep_order:
            first, second, third = map(self.starts, range(3))
            return list(itertools.product(first, second, third))
        starts_x = self.starts(0)
        starts_y = self.starts(1)
        corners = []
        for z in self.starts(2):
            for x in starts_x:
                corners += [(x, y, z) for y in starts_y]
        return corners

    def weights(self, device: torch.device) -> torch.Tensor:
        """Return what each voxel of a window weighs, float32, of the window's size."""
        return compute_window_weights(self.size, self.weighting, device)

    def part_on_grid(self, corner: Corner) -> tuple[Box, Box]:
        """Return the part of a window that lies on the grid.

        Returns:
            The part as slices of the grid, and the same as slices of the window.
        """
        on_grid, in_window = [], []
        for axis, start in enumerate(corner):
            end = start + self.size[axis]
            first = max(start, 0)
            stop = min(end, self.shape[axis])
            on_grid.append(slice(first, stop))
            in_window.append(slice(first - start, stop - start))
        return tuple(on_grid), tuple(in_window)


def cut_window(
    image: torch.Tensor,
    windows: Windows,
    corner: Corner,
    outside: float,
    repeats_border: bool = False,
) -> torch.Tensor:
    """Cut one window out of an image.

    Args:
        image: ``(channels, x, y, z)``.
        windows: Where the windows lie.
        corner: The window's first voxel.
        outside: Value of what lies outside the image.
        repeats_border: Whether its outermost voxels lie there instead.

    Returns:
        ``(channels, *windows.size)``.
    """
    on_grid, in_window = windows.part_on_grid(corner)
    window = image[(slice(None), *on_grid)]
    if window.shape[1:] == windows.size:
        return window
    # torch pads from the last axis to the first.
    margins = []
    for axis in (2, 1, 0):
        part = in_window[axis]
        behind = windows.size[axis] - part.stop
        margins += [part.start, behind]
    if repeats_border:
        return functional.pad(window, margins, mode="replicate")
    return functional.pad(window, margins, value=outside)
