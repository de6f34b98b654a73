"""``Member``: the seam between the sweep over a scan and what computes a network."""

from __future__ import annotations

import contextlib
from typing import Protocol

import torch


class Member(Protocol):
    """One trained network, as one backend computes it. May be called by several threads.

    Attributes:
        precision: Of the arithmetic.
    """

    precision: torch.dtype

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to call: entered once per scan, by the calling thread."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *size)`` to scores ``(batch, classes, *size)``.

        ``size`` has as many axes as the network. The scores are the caller's to change.
        """
