"""What a plan has to fit, and the reasons that it gives for its choices."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medseg.errors import MedsegError

Notes = dict[str, str]
"""JSON path of a field of the bundle → why it has its value."""

RESIDUAL = "resenc"
NETWORKS = ("auto", RESIDUAL)
"""What ``--network`` takes."""

_MINUTES = {"s": 1 / 60, "m": 1.0, "": 1.0, "h": 60.0, "d": 1440.0}
_MAX_MINUTES = 1e6


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a plan has to fit.

    Attributes:
        dims: 2 or 3; ``None`` lets the data decide.
        on_gpu: Whether the training run will have a GPU.
        memory_gb: Memory for one training step, in GB (1e9 bytes).
        budget_minutes: Time for a whole training run, or ``None``.
        voxels_per_second: How fast this machine trains the smallest network, where measured.
        balanced: Whether small labels shall weigh more in the loss.
        network: ``auto``, or ``resenc`` for nnU-Net's residual encoder.
    """

    dims: int | None
    on_gpu: bool
    memory_gb: float
    budget_minutes: float | None = None
    voxels_per_second: float | None = None
    balanced: bool = False
    network: str = "auto"

    @property
    def is_residual(self) -> bool:
        """Whether nnU-Net's residual encoder was asked for."""
        return self.network == RESIDUAL


def parse_minutes(text: str) -> float:
    """Return a time budget such as ``20m``, ``1.5h``, ``90s`` or ``2d`` in minutes.

    Raises:
        MedsegError: If it is not a time, or is shorter than a second.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text.lower())
    minutes = 0.0
    if match:
        number, unit = match.groups()
        minutes = float(number) * _MINUTES[unit]
    if not _MINUTES["s"] <= minutes < _MAX_MINUTES:
        raise MedsegError(
            f"'{text}' is not a valid time budget; write 20m, 2h or 90s"
        )
    return minutes
