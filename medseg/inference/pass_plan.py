"""What is decided about a pass over a scan before it begins, and what it has made at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from medseg.inference.confidence import ConfidenceSums
from medseg.inference.windows import Windows
from medseg.preprocessing.grid import NetworkGrid
from medseg.volume import Array, Volume

HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a scan's image and the sums of its scores lie."""

    image: torch.device
    sums: torch.device

    @property
    def uses_gpu(self) -> bool:
        """Whether anything lies outside the host's memory."""
        return self != HOST_ONLY


HOST_ONLY = Storage(image=HOST, sums=HOST)


@dataclass(slots=True)
class Stopwatch:
    """Adds the time since the last lap to a stage.

    Attributes:
        seconds: Stage → time. On a GPU, work counts where it is waited for.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Let the time since the last lap count for nothing."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True, slots=True, eq=False)
class PassPlan:
    """What is decided about a pass before it takes memory.

    Attributes:
        volume: The scan, with the bundle's channels.
        grid: The grid on which the network sees it.
        windows: Where the windows lie on that grid.
        storage: Where image and sums lie.
        temperatures: What logits are divided by where confidence is judged; the bundle's first.
        labels: The label map to fill, ``(i, j, k)`` on the scan's grid.
        stopwatch: Runs from the moment the plan was made.
        given: Label indices ``(i, j, k)`` on the scan's grid that are to be judged, too.
        warnings: What has to be done differently from what was planned first.
        probabilities: The probabilities to fill, ``(classes, i, j, k)``, if they are wanted.
        image: What the network sees, if it was made before; it is not changed.
    """

    volume: Volume
    grid: NetworkGrid
    windows: Windows
    storage: Storage
    temperatures: Sequence[float]
    labels: Array
    stopwatch: Stopwatch
    given: Array | None = None
    warnings: tuple[str, ...] = ()
    probabilities: Array | None = None
    image: torch.Tensor | None = None

    def on_host(self, warning: str) -> PassPlan:
        """Return the same plan with everything in the host's memory."""
        warnings = (*self.warnings, warning)
        return replace(self, storage=HOST_ONLY, warnings=warnings, image=None)


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """What a pass made.

    Attributes:
        labels: Label indices on the scan's grid, ``(i, j, k)``.
        grid: The grid on which the network saw the scan.
        confidence: What the network's probabilities add up to.
        temperatures: What logits were divided by in ``confidence``.
        seconds: Stage → time.
        warnings: What had to be done differently from what was planned.
        given: What the probabilities add up to for the labels that were given, if some were.
        probabilities: Those of every class, ``(classes, i, j, k)``, if they were wanted.
        on_grid: Label indices on the network's grid, where components are looked for on it.
    """

    labels: Array
    grid: NetworkGrid
    confidence: ConfidenceSums
    temperatures: Sequence[float]
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    given: ConfidenceSums | None = None
    probabilities: Array | None = None
    on_grid: Array | None = None


def choose_storage(
    device: torch.device, free: int, image: int, sums: int
) -> Storage:
    """Return what fits a device's memory: all, only the sums, only the image, or nothing.

    Args:
        device: The device.
        free: Bytes that may be taken there.
        image: Bytes of the image.
        sums: Bytes of the sums.
    """
    # The sums come first: every window's scores are added to them.
    sums_on = device if sums <= free else HOST
    if sums_on == device:
        free -= sums
    image_on = device if image <= free else HOST
    return Storage(image_on, sums_on)
