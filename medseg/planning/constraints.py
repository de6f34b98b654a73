"""What a person wishes of a plan, and the sentences it gives back."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medseg.errors import MedsegError

Notes = dict[str, str]
"""JSON path of a field → why it has its value."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a plan has to fit.

    Attributes:
        dims: 2 or 3; ``None`` lets the data decide.
        on_gpu: Whether a GPU will train.
        memory_gb: Memory for one training step.
        budget_minutes: Time for a whole training, or ``None``.
        voxels_per_second: How fast this machine trains the smallest network, where measured.
        balanced: Whether small labels shall weigh more in the loss.
    """

    dims: int | None
    on_gpu: bool
    memory_gb: float
    budget_minutes: float | None = None
    voxels_per_second: float | None = None
    balanced: bool = False


def parse_minutes(text: str) -> float:
    """Return the minutes that ``20m``, ``1.5h`` or ``90s`` are.

    Raises:
        MedsegError: If it is no time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text.lower())
    units = {"s": 1 / 60, "m": 1.0, "": 1.0, "h": 60.0, "d": 1440.0}
    value = float(found[1]) * units[found[2]] if found else 0.0
    if not units["s"] <= value < 1e6:
        raise MedsegError(f"'{text}' is no time budget; write 20m, 2h or 90s")
    return value
