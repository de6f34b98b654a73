"""A scan of a batch on its way: read, and then segmented."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from medseg.datasets.cases import Scan
from medseg.inference.ledger_entry import Entry
from medseg.inference.segmentation import Segmentation
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class OpenScan:
    """A scan that was read.

    Attributes:
        scan: Where it came from.
        content: Hash of its files.
        key: Of the result it will have.
        volume: Its voxels; ``None`` if they are not needed.
        missing: Formats that it cannot have, and why.
        kept: The entry of its earlier result, if that is still what it would be.
        kept_labels: The label indices of that result, if its picture must be drawn.
    """

    scan: Scan
    content: str
    key: str
    volume: Volume | None
    missing: Mapping[str, str] = field(default_factory=dict)
    kept: Entry | None = None
    kept_labels: Array | None = None


@dataclass(frozen=True, slots=True)
class SegmentedScan:
    """A scan that was read and, unless its earlier result is kept, segmented.

    Attributes:
        opened: The scan.
        finish: Makes the segmentation of what the network answered. Whoever writes calls it, so
            that meanwhile the network sees the next scan.
        device: What people call the device that computed it.
    """

    opened: OpenScan
    finish: Callable[[], Segmentation] | None = None
    device: str = ""
