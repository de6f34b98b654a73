"""The devices that share a batch: a segmenter for each, and how far ahead of them to read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from medseg._support.platform.processes import measure_memory
from medseg.bundle.bundle import Bundle
from medseg.inference.segmenter import Segmenter
from medseg.networks.devices import choose_devices

_MOST_AHEAD = 8
_BYTES_PER_SCAN = 1 << 30
"""What a large scan takes of the host's memory while it waits."""


def load_segmenters(
    bundle: Bundle, devices: str, **choices: Any
) -> list[Segmenter]:
    """Load a bundle on every device that a person asked for.

    Args:
        bundle: A trained bundle.
        devices: What ``Segmenter`` takes for one; ``cuda:0,1`` for several GPUs, or ``all``.
        **choices: What else ``Segmenter`` takes.

    Raises:
        MedsegError: As ``choose_devices`` and ``Segmenter``.
    """
    names = [devices]
    if devices == "all" or "," in devices:
        names = [str(device) for device in choose_devices(devices)]
    return [Segmenter(bundle, name, **choices) for name in names]


def count_ahead(segmenters: Sequence[Segmenter]) -> int:
    """Return how many scans to read ahead of each device, and to write behind it.

    One beside a CPU, whose cores the network takes. A GPU can be faster than gzip.
    """
    if segmenters[0].device.type == "cpu":
        return 1
    cores = (os.cpu_count() or 1) // (2 * len(segmenters))
    # Each device has one scan itself, and as many coming as going.
    scans = measure_memory().available // (_BYTES_PER_SCAN * len(segmenters))
    most = min(_MOST_AHEAD, cores, scans // 3)
    return max(1, int(most))
