"""How the networks of a bundle compute in inference: over members, mirrored or not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from medseg.inference.backends import Member


class Predictor:
    """The scores of a window: the mean over all members and flips.

    Window by window, so that memory does not grow with the number of members.

    Args:
        members: Trained networks that compute in the same way; at least one.
        dims: 2 for networks that see slices, else 3.
        mirror_axes: Axes along which windows are also flipped; the scores of all combinations
            are averaged.
    """

    def __init__(
        self, members: Sequence[Member], dims: int, mirror_axes: Sequence[int] = ()
    ) -> None:
        self._members, self._dims = members, dims
        self._flips = _combinations([axis for axis in mirror_axes if axis < dims])

    @property
    def precision(self) -> torch.dtype:
        """The precision of the arithmetic."""
        return self._members[0].precision

    def use_float32(self) -> None:
        """Compute in float32 from now on."""
        for member in self._members:
            member.precision = torch.float32

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to call: entered once per scan."""
        return self._members[0].arithmetic()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, x, y, z)`` to scores ``(batch, classes, x, y, z)``.

        A 2D network gets windows of one plane, ``z = 1``.
        """
        if self._dims == 2:
            return self._mean(windows.squeeze(-1)).unsqueeze(-1)
        return self._mean(windows)

    @torch.inference_mode()
    def rounding_error(self, windows: torch.Tensor) -> float:
        """Return how far scores are from those of float32, relative to their size.

        Rounding gives a few percent. Far more comes from a fault of hardware or libraries: some
        versions of cuDNN return wrong 3D convolutions in bfloat16.
        """
        exact = self(windows).float()
        with self.arithmetic():
            coarse = self(windows).float()
        return float((coarse - exact).norm() / exact.norm())

    def _mean(self, windows: torch.Tensor) -> torch.Tensor:
        every = self._all_scores(windows)
        total = next(every)
        count = len(self._members) * len(self._flips)
        if count > 1:
            total = total.float()
            for scores in every:
                total += scores
            total /= count
        return total

    def _all_scores(self, windows: torch.Tensor) -> Iterator[torch.Tensor]:
        for flip in self._flips:
            axes = [2 + axis for axis in flip]
            given = windows.flip(axes) if axes else windows
            for member in self._members:
                scores = member(given)
                yield scores.flip(axes) if axes else scores


def _combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for axis in axes:
        found += [(*flip, axis) for flip in found]
    return found
