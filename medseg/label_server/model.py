"""The served version's Segmenter, exchanged as soon as another version is served."""

from __future__ import annotations

import threading

from medseg.datasets.input_checks import check_volume
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.label_server.versions import Version, Versions
from medseg.volume import Volume


class Served:
    """Segments with whatever version is served now.

    Args:
        versions: The versions.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    def __init__(self, versions: Versions, device: str) -> None:
        self._versions, self._device = versions, device
        self._loaded: tuple[Version, Segmenter] | None = None
        self._one_at_a_time = threading.Lock()

    def segment(self, volume: Volume) -> tuple[Version, Segmentation, tuple[str, ...]]:
        """Segment a volume.

        Returns:
            The version that did it, what was found, and what a person should know.

        Raises:
            ScanError: If the volume is not what the bundle segments.
        """
        with self._one_at_a_time:
            version, segmenter = self._current()
            warnings = check_volume(volume, segmenter.spec)
            found = segmenter.segment(volume)
        return version, found, (*volume.warnings, *warnings, *found.warnings)

    def _current(self) -> tuple[Version, Segmenter]:
        wanted = self._versions.served
        if self._loaded is None or self._loaded[0].number != wanted.number:
            self._loaded = wanted, Segmenter(wanted.bundle(), self._device)
        return self._loaded
