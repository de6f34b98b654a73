"""``Proposals``: what a model alone made of cases, shown where people look for it.

Each becomes the case's picture in the work list. Where whoever runs the server has asked for it, it
is also stored in the DICOMweb server, once, as an AUTOMATIC segmentation in the case's study: there
OHIF has brushes for it.
"""

from __future__ import annotations

import threading

from medseg.bundle.spec import BundleSpec
from medseg.label_server.audit import AuditLog
from medseg.label_server.case_pictures import CasePictures
from medseg.label_server.cases import Cases
from medseg.label_server.dicomweb import DicomWebCases, StoredSegmentation
from medseg.label_server.labels import FINAL, Labels
from medseg.label_server.model import ServedSegmentation
from medseg.label_server.quality_text import describe_proposal
from medseg.label_server.scores import summarise_quality
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.names import normalize_name
from medseg.volume import Volume


class Proposals:
    """The proposals for the cases of a server.

    Args:
        state: The state folder.
        cases: Where the cases are.
        spec: The bundle's spec.
        stored: Whether proposals are stored in the DICOMweb server.
    """

    def __init__(
        self,
        state: StateFolder,
        cases: Cases,
        spec: BundleSpec,
        *,
        stored: bool = False,
    ) -> None:
        self._store = Store(state)
        self._cases = cases
        self._spec = spec
        self._are_stored = stored
        self._labels = Labels(state)
        self._pictures = CasePictures(state, spec.label_set)
        self._audit = AuditLog(state.audit_log)
        self._storing = threading.Lock()

    def show(
        self, case: str, proposal: ServedSegmentation, volume: Volume
    ) -> None:
        """Show what a version made of a case.

        Args:
            case: The case; one with a correction keeps the picture of that.
            proposal: What was made of it.
            volume: The scan.

        Raises:
            OutputError: If the DICOMweb server does not take it.
        """
        labels = proposal.segmentation.labels
        if self._labels.find(case, FINAL) is None:
            self._pictures.draw(case, volume, labels)
        cases, version = self._cases, proposal.version.name
        if not self._are_stored or not isinstance(cases, DicomWebCases):
            return
        with self._storing:
            if self.find(case, version) is not None:
                return
            quality = summarise_quality(proposal.segmentation)
            description = describe_proposal(self._spec.name, version, quality)
            stored = cases.store_proposal(labels, volume, description)
            self._add(case, version, stored)
        self._audit.write(
            "proposal stored", case=case, version=version, uid=stored.uid
        )

    def find(self, case: str, version: str) -> StoredSegmentation | None:
        """Return a version's proposal in the DICOMweb server; ``None`` if none was stored."""
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT uid, series FROM proposals WHERE case_name = ? AND version = ?",
                (normalize_name(case), version),
            ).fetchone()
        return None if row is None else StoredSegmentation(*row)

    def list_series(self) -> frozenset[str]:
        """Return the UIDs of the series that hold proposals."""
        with self._store.read() as connection:
            rows = connection.execute("SELECT series FROM proposals")
            return frozenset(series for (series,) in rows)

    def _add(
        self, case: str, version: str, segmentation: StoredSegmentation
    ) -> None:
        row = (
            normalize_name(case),
            version,
            segmentation.uid,
            segmentation.series,
        )
        with self._store.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)", row
            )
