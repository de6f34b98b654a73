"""The devices that share a batch: a segmenter for each, and how far ahead of them to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from medseg._support.platform.processes import measure_memory
from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_bundle
from medseg.inference.segmenter import Segmenter
from medseg.networks.devices import choose_devices

_kept: ContextVar[dict[tuple[str, str, str], list[Segmenter]] | None]
_kept = ContextVar("kept segmenters", default=None)

_MOST_AHEAD = 8
_BYTES_PER_SCAN = 1 << 30
"""What a large scan takes of the host's memory while it waits."""


def load_segmenters(
    bundle: Bundle, devices: str, **choices: Any
) -> list[Segmenter]:
    """Load a bundle on every device that a person asked for.

    Within ``keep_segmenters`` it is loaded once, and given again to who asks for the same.

    Args:
        bundle: A trained bundle.
        devices: What ``Segmenter`` takes for one; ``cuda:0,1`` for several GPUs, or ``all``.
        **choices: What else ``Segmenter`` takes.

    Raises:
        MedsegError: As ``choose_devices`` and ``Segmenter``.
    """
    kept = _kept.get()
    if kept is None:
        return _load(bundle, devices, choices)
    key = (hash_bundle(bundle), devices, repr(choices))
    if key not in kept:
        kept[key] = _load(bundle, devices, choices)
    return kept[key]


def _load(
    bundle: Bundle, devices: str, choices: Mapping[str, Any]
) -> list[Segmenter]:
    names = [devices]
    if devices == "all" or "," in devices:
        names = [str(device) for device in choose_devices(devices)]
    return [Segmenter(bundle, name, **choices) for name in names]


@contextmanager
def keep_segmenters() -> Iterator[None]:
    """Keep what is loaded: for who segments scans by rounds."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


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
