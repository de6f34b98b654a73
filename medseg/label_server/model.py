"""The served version's Segmenter, exchanged as soon as another version is served."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.label_server.clicks import ClickHistory, ClickRequest
from medseg.label_server.versions import Version, Versions
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class ServedSegmentation:
    """What the served version made of a volume.

    Attributes:
        version: The version that segmented it.
        segmentation: The result.
    """

    version: Version
    segmentation: Segmentation


class ServedModel:
    """Segments with whatever version is served now; may be used by several threads.

    Args:
        versions: The versions.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        speed: ``exact``, ``balanced`` or ``fast``; as each version says unless given.
    """

    def __init__(
        self, versions: Versions, device: str, speed: str = ""
    ) -> None:
        self._versions = versions
        self._device = device
        self._speed = speed or None
        self._loaded: tuple[Version, Segmenter] | None = None
        # One segmentation at a time has the device's memory.
        self._lock = threading.Lock()

    def segment(self, volume: Volume) -> ServedSegmentation:
        """Segment a volume.

        Raises:
            ScanError: If the volume is not what the bundle segments.
        """
        with self._lock:
            version, segmenter = self._load()
            segmentation = segmenter.segment(volume)
        return ServedSegmentation(version, segmentation)

    def begin_clicks(self, volume: Volume) -> ClickHistory:
        """Segment a volume and prepare it for clicks.

        Raises:
            ScanError: If the volume is not what the bundle segments.
        """
        with self._lock:
            _, segmenter = self._load()
            automatic = segmenter.segment(volume).labels
            return ClickHistory(segmenter.begin_correction(volume), automatic)

    def follow(self, history: ClickHistory, request: ClickRequest) -> Array:
        """Return the label map that follows the clicks of a request.

        Raises:
            ScanError: If a click lies where the network does not look.
        """
        with self._lock:
            return history.follow(request)

    def _load(self) -> tuple[Version, Segmenter]:
        served = self._versions.find_served()
        if self._loaded is not None:
            version, _ = self._loaded
            if version.number == served.number:
                return self._loaded
        bundle = served.load_bundle()
        segmenter = Segmenter(bundle, self._device, speed=self._speed)
        self._loaded = served, segmenter
        return self._loaded
