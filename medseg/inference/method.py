"""What results are made with, as the ledger says it of each scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from medseg._support.provenance import get_device_name
from medseg.bundle.hashes import hash_bundle
from medseg.bundle.spec import BundleSpec
from medseg.inference.ledger_entry import Entry, State
from medseg.inference.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Method:
    """What the results of a batch are made with.

    Attributes:
        spec: What the bundle says.
        bundle_hash: From ``hash_bundle``.
        choices: What was asked for and can change a label map, as ``Segmenter`` has it.
        device: What people call the kind of device that computes.
        arithmetic: The backend, and its precision.
    """

    spec: BundleSpec
    bundle_hash: str
    choices: Mapping[str, str]
    device: str
    arithmetic: str

    @classmethod
    def of(cls, segmenter: Segmenter) -> Method:
        """Describe what a segmenter makes results with.

        Raises:
            CheckpointError: If the bundle's weights cannot be read.
        """
        return cls(
            spec=segmenter.spec,
            bundle_hash=hash_bundle(segmenter.bundle),
            choices=dict(segmenter.choices),
            device=get_device_name(segmenter.device),
            arithmetic=segmenter.arithmetic,
        )

    def make_entry(self, scan: str, state: State, **facts: Any) -> Entry:
        """Make the ledger's entry of a scan, as of now.

        Args:
            scan: Its name in results.
            state: What became of it.
            **facts: Further fields of the entry.
        """
        return Entry(
            scan=scan,
            state=state,
            bundle=f"{self.spec.name} {self.spec.version}",
            origin=self.spec.origin or "",
            bundle_hash=self.bundle_hash,
            medseg=version("medseg"),
            device=self.device,
            arithmetic=self.arithmetic,
            finished=tell_time(),
            **facts,
        )


def tell_time() -> str:
    """Return when it is, as ledgers say it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
