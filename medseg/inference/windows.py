"""Windows over a whole scan: where they lie, what they weigh, and their scores one by one.

Positions and weights are those of MONAI's ``SlidingWindowInferer`` with ``mode="gaussian"``; only
the order differs, so that the planes of the third axis are finished from first to last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch.nn import functional

Shape = tuple[int, int, int]
Corner = tuple[int, int, int]
"""First voxel of a window along each axis; negative where the window reaches over the edge."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of one scan lie.

    Attributes:
        size: Voxels of a window.
        shape: Voxels of the grid they cover.
        overlap: Share by which neighbours overlap, 0 to below 1.
    """

    size: Shape
    shape: Shape
    overlap: float

    def starts(self, axis: int) -> list[int]:
        """Return where windows start along one axis, in order."""
        size, length = self.size[axis], self.shape[axis]
        if length <= size:
            return [-((size - length) // 2)]
        interval = max(1, int(size * (1 - self.overlap)))
        return [part.start for (part,) in dense_patch_slices([length], [size], [interval])]

    def corners(self) -> list[Corner]:
        """Return the first voxel of each window, ordered by the third axis first."""
        return [(x, y, z) for z in self.starts(2) for x in self.starts(0) for y in self.starts(1)]

    def weights(self, device: torch.device) -> torch.Tensor:
        """Return what each voxel of a window weighs, float32, of the window's size."""
        weights: torch.Tensor = compute_importance_map(self.size, mode="gaussian", device=device)
        return weights

    def inside(self, corner: Corner) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return the part of a window that lies on the grid, as seen from either."""
        on_grid, in_window = [], []
        for start, size, length in zip(corner, self.size, self.shape, strict=True):
            first, stop = max(start, 0), min(start + size, length)
            on_grid.append(slice(first, stop))
            in_window.append(slice(first - start, stop - start))
        return tuple(on_grid), tuple(in_window)


def cut(image: torch.Tensor, windows: Windows, corner: Corner, outside: float) -> torch.Tensor:
    """Return one window of an image.

    Args:
        image: ``(channels, x, y, z)``.
        windows: The windows.
        corner: The window's first voxel.
        outside: Value of what lies outside the image.

    Returns:
        ``(channels, *windows.size)``.
    """
    on_grid, in_window = windows.inside(corner)
    found = image[(slice(None), *on_grid)]
    if found.shape[1:] == windows.size:
        return found
    margins = [
        margin
        for part, size in zip(reversed(in_window), reversed(windows.size), strict=True)
        for margin in (part.start, size - part.stop)
    ]
    return functional.pad(found, margins, value=outside)


class Scorer:
    """Passes the windows of a scan through a network, several at a time.

    Args:
        predict: ``(batch, channels, *size)`` → scores ``(batch, classes, *size)``.
        device: Where it computes.
        batch_size: Windows at a time; halved when memory runs out.
        outside: Value of what lies outside the image.
    """

    def __init__(
        self,
        predict: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        batch_size: int,
        outside: float,
    ) -> None:
        self._predict, self._device, self._outside = predict, device, outside
        self.batch_size = batch_size

    def __call__(
        self, image: torch.Tensor, windows: Windows
    ) -> Iterator[tuple[Corner, torch.Tensor]]:
        """Yield each window's corner and its scores ``(classes, *size)``, in order.

        Raises:
            torch.OutOfMemoryError: If there is too little memory even for one window.
        """
        left = windows.corners()
        while left:
            batch = left[: self.batch_size]
            try:
                scores = self._scores(image, windows, batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.batch_size = len(batch) // 2
                _log.warning(
                    "%d windows at a time do not fit the memory of %s; going on with %d",
                    len(batch),
                    self._device,
                    self.batch_size,
                )
                torch.cuda.empty_cache()
                continue
            left = left[len(batch) :]
            yield from zip(batch, scores, strict=True)
            del scores  # or memory would hold them beside the next ones

    def _scores(
        self, image: torch.Tensor, windows: Windows, batch: Sequence[Corner]
    ) -> torch.Tensor:
        cuts = [cut(image, windows, corner, self._outside) for corner in batch]
        return self._predict(torch.stack([part.to(self._device) for part in cuts]))
