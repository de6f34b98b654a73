"""``Ensemble``: the networks of a bundle, and what windows come to in all of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import torch

from medseg.bundle.spec import BundleSpec
from medseg.inference.backends import Member
from medseg.inference.blank_window import BlankWindow
from medseg.networks.click_inputs import append_no_clicks

_MOST_ROUNDING = 0.2
"""Largest relative error of scores that coarse arithmetic causes by itself."""

_log = logging.getLogger(__name__)


class Ensemble:
    """The scores of windows: the mean over all members and flips.

    Window by window, so that memory does not grow with the number of members.

    Args:
        members: Trained networks that compute in the same way; at least one.
        dims: 2 for networks that see slices, else 3.
        mirror_axes: Axes along which windows are also flipped, 0 for x; the scores of all
            combinations are averaged.
        channels: What the networks take. Channels for clicks are missing where nobody clicked.
    """

    def __init__(
        self,
        members: Sequence[Member],
        dims: int,
        mirror_axes: Sequence[int] = (),
        channels: int | None = None,
    ) -> None:
        self._members = members
        self._dims = dims
        self._channels = channels
        # Axis 0 of a window is axis 2 of a batch ``(batch, channels, x, y, z)``.
        batch_axes = [2 + axis for axis in mirror_axes if axis < dims]
        self._flips = _list_combinations(batch_axes)
        self._blank = BlankWindow()

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
        """Compute the mean scores of windows.

        Args:
            windows: ``(batch, channels, x, y, z)``. A 2D network gets windows of one plane,
                ``z = 1``.

        Returns:
            ``(batch, classes, x, y, z)``; float32 where there is more to average than one. Of a
            window of one value, such as one outside the body, what was computed for the last.
        """
        known = self._blank.find_scores(windows)
        if known is not None:
            return known
        scores = self._compute(windows)
        self._blank.keep_scores(windows, scores)
        return scores

    def _compute(self, windows: torch.Tensor) -> torch.Tensor:
        if self._channels is not None:
            windows = append_no_clicks(windows, self._channels)
        if self._dims == 2:
            windows = windows.squeeze(-1)
        first, *others = self._members
        total = first(windows)
        count = len(self._members) * len(self._flips)
        if count > 1:
            total = total.float()
            for member in others:
                total += member(windows)
            for axes in self._flips[1:]:
                flipped = windows.flip(axes)
                for member in self._members:
                    total += member(flipped).flip(axes)
            total /= count
        if self._dims == 2:
            total = total.unsqueeze(-1)
        return total

    @torch.inference_mode()
    def measure_rounding_error(self, windows: torch.Tensor) -> float:
        """Return how far scores are from those of float32, relative to their size.

        Rounding gives a few percent. Far more comes from a fault of hardware or libraries: some
        versions of cuDNN return wrong 3D convolutions in bfloat16.
        """
        exact = self(windows).float()
        with self.arithmetic():
            coarse = self(windows).float()
        difference = (coarse - exact).norm()
        return float(difference / exact.norm())


def refuse_wrong_arithmetic(
    ensemble: Ensemble, spec: BundleSpec, device: torch.device
) -> None:
    """Fall back to float32 where the GPU's coarse arithmetic returns something else altogether."""
    if ensemble.precision == torch.float32:
        return
    generator = torch.Generator().manual_seed(0)
    size = (*spec.training.patch, 1)[:3]
    windows = torch.randn(1, len(spec.channels), *size, generator=generator)
    error = ensemble.measure_rounding_error(windows.to(device))
    # Not `error > …`, which would be false for NaN.
    if not error <= _MOST_ROUNDING:
        _log.warning(
            "scores in %s are %.0f %% off those in float32 on %s; computing in float32",
            ensemble.precision,
            100 * error,
            device,
        )
        ensemble.use_float32()


def _list_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every set of axes to flip, none at all first."""
    flips: list[tuple[int, ...]] = [()]
    for axis in axes:
        flips += [(*flip, axis) for flip in flips]
    return flips
