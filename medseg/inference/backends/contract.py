"""The contract of a backend: what computes a trained bundle's networks.

Another package adds one by an entry point, whose name is what ``--backend`` takes::

    [project.entry-points."medseg.backends"]
    abacus = "my_package.backend:ABACUS"

The entry point is a ``Backend`` object, not a class. ``medseg.testing.backends`` has a suite of
tests that every backend should pass. ``--backend auto`` never chooses a backend of another
package: it must be asked for by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from medseg.bundle.bundle import Bundle


class Member(Protocol):
    """One trained network of a bundle, as a backend computes it.

    May be called by several threads at once.

    Attributes:
        precision: Of the arithmetic. May be set to ``torch.float32`` after loading, on a GPU whose
            coarse arithmetic turns out to be wrong.
    """

    precision: torch.dtype

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to call: entered once per scan, by the calling thread."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the scores of windows.

        Args:
            windows: float32 ``(batch, channels, *size)`` on the device that the member was loaded
                for; ``size`` is the bundle's ``training.patch``, of two or three axes.

        Returns:
            Logits ``(batch, classes, *size)``, of any float type, on the same device. The caller
            may change them, so they share no memory with what later calls return.
        """


class Backend(Protocol):
    """Loads a bundle's networks so that they can be computed."""

    def load(
        self,
        bundle: Bundle,
        files: Sequence[Path],
        device: torch.device,
        precision: torch.dtype,
    ) -> Sequence[Member]:
        """Load networks of a trained bundle.

        Args:
            bundle: A trained bundle; nothing in its folder may be changed.
            files: The weights to use, some of ``bundle.members``; at least one.
            device: Where to compute.
            precision: Of the arithmetic: ``torch.float32``, ``bfloat16`` or ``float16``.

        Returns:
            One member per file, in the order of the files.

        Raises:
            CheckpointError: If weights are absent, damaged, or of another network.
            MissingExtraError: If a package that the backend needs is not installed.
            MedsegError: If it cannot compute on this device, in this precision, or this network.
        """
