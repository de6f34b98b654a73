"""Sums of window scores, held for a few planes of the scan at a time."""

from __future__ import annotations

import torch

from medseg.inference.windows import Corner, Windows

SPARE_PLANES = 16
"""Planes held beyond a window, so that finished ones are labelled several at a time."""

_BYTES_PER_NUMBER = 4

_EVERY = slice(None)


def count_planes_held(windows: Windows) -> int:
    """Return how many planes are held: a window, the plane before it and some to spare; or all."""
    if windows.keep_order:
        return windows.shape[2]
    return min(windows.shape[2], windows.size[2] + SPARE_PLANES)


def count_bytes_held(windows: Windows, classes: int) -> int:
    """Return the memory that the sums of a scan, and of its weights, take."""
    x, y, _ = windows.shape
    return (
        _BYTES_PER_NUMBER * (classes + 1) * x * y * count_planes_held(windows)
    )


class Accumulator:
    """Adds up weighted window scores over a range of planes along the third axis.

    Windows come in order of their first plane, so the planes before it are finished and can be
    dropped once they are labelled. Memory does not grow with the number of planes of the scan.

    Args:
        windows: Where the windows lie.
        classes: Scores per voxel.
        device: Where the sums lie.
        labelled: Which of the scores labels are taken from; all unless given.

    Attributes:
        first: Index of the first plane held.
        sums: Weighted sums, float32, ``(classes, x, y, planes)``.
        weights: What was added up for each voxel, float32, ``(x, y, planes)``.
        in_half: Whether sums, scores and what is interpolated between them are rounded to half
            precision.
    """

    def __init__(
        self,
        windows: Windows,
        classes: int,
        device: torch.device,
        labelled: slice = slice(None),
    ) -> None:
        x, y, _ = windows.shape
        planes = count_planes_held(windows)
        self._windows = windows
        self._window_weights = windows.weights(device)
        self._labelled = labelled
        # nnU-Net adds up in half precision. At a scan's corners, where weights are smallest, its
        # rounding decides labels.
        self.in_half = windows.weighting == "nnunet"
        self.first = 0
        self.sums = torch.zeros(classes, x, y, planes, device=device)
        self.weights = torch.zeros(x, y, planes, device=device)

    @property
    def labelled(self) -> torch.Tensor:
        """The sums that labels are taken from, ``(classes, x, y, planes)``; shares memory."""
        return self.sums[self._labelled]

    def locate_planes(self, first: int, stop: int) -> slice:
        """Return where planes of the grid lie among the planes held."""
        return slice(first - self.first, stop - self.first)

    def has_room_for(self, corner: Corner) -> bool:
        """Tell whether all planes of a window are held."""
        on_grid, _ = self._windows.part_on_grid(corner)
        stop = int(on_grid[2].stop)
        return stop - self.first <= self.weights.shape[2]

    def add(self, corner: Corner, scores: torch.Tensor) -> None:
        """Add one window's scores, ``(classes, *size)`` of any float type on any device."""
        (x, y, z), in_window = self._windows.part_on_grid(corner)
        planes = self.locate_planes(z.start, z.stop)
        weights = self._window_weights[in_window]
        inside = scores[(_EVERY, *in_window)]
        inside = inside.to(self.sums.device).float()
        sums = self.sums[_EVERY, x, y, planes]
        total = self.weights[x, y, planes]
        if self.in_half:
            sums.copy_(torch.addcmul(sums, inside, weights).half())
            total.copy_((total + weights).half())
        else:
            sums.addcmul_(inside, weights)
            total.add_(weights)

    def settle_before(self, plane: int) -> None:
        """Divide the sums of final planes by their weights, where the result has half precision.

        Elsewhere whoever needs it divides; a plane that is settled already stays what it is.

        Args:
            plane: No window that is still to come reaches the planes before it.
        """
        if not self.in_half:
            return
        final = self.locate_planes(self.first, plane)
        sums, weights = self.sums[..., final], self.weights[..., final]
        sums.copy_((sums / weights).half())
        weights.fill_(1)

    def drop_before(self, plane: int) -> None:
        """Forget the planes before ``plane`` and make room for as many new ones."""
        step = plane - self.first
        _shift_planes(self.sums, step)
        _shift_planes(self.weights, step)
        self.first = plane


def _shift_planes(held: torch.Tensor, step: int) -> None:
    """Move planes ``step`` places to the front and clear the places behind them."""
    if step == 0:
        return
    planes = held.shape[-1]
    kept = max(planes - step, 0)
    # In blocks no longer than the step, because memory is not copied onto itself in one go.
    for target in range(0, kept, step):
        stop = min(target + step, kept)
        held[..., target:stop] = held[..., target + step : stop + step]
    held[..., kept:] = 0
