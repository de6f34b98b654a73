"""``LabelExchange``: submitted labels go to the DICOMweb server, corrections come back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg._support.files import PART
from medseg.bundle.spec import BundleSpec
from medseg.datasets.integrity import read_scan
from medseg.errors import ScanError
from medseg.io import read_labels
from medseg.label_server.audit import AuditLog
from medseg.label_server.case_pictures import CasePictures
from medseg.label_server.cases import Cases
from medseg.label_server.dicomweb import (
    SEGMENTATION,
    Correction,
    DicomWebCases,
)
from medseg.label_server.known_segmentations import KnownSegmentations
from medseg.label_server.label_upload import read_label_upload
from medseg.label_server.labels import FINAL, SOP_INSTANCE_UID, Labels
from medseg.label_server.state import StateFolder
from medseg.volume import Array, Volume

FROM_DICOM = "DICOM SEG"
"""Where a label comes from that somebody stored in the DICOMweb server; and its author, where this
server was not asked to store it and so does not know who did."""
SOURCE = "source"
"""Where a label's info says so."""


class LabelExchange:
    """Submitted labels, here and in the DICOMweb server; does nothing where cases are files.

    Args:
        state: The state folder.
        cases: Where the cases are.
        spec: The bundle's spec.
        labels: The labels that are saved here.
        pictures: Drawn of what comes back.
    """

    def __init__(
        self,
        state: StateFolder,
        cases: Cases,
        spec: BundleSpec,
        labels: Labels,
        pictures: CasePictures,
    ) -> None:
        self._state = state
        self._cases = cases
        self._spec = spec
        self._labels = labels
        self._pictures = pictures
        self._audit = AuditLog(state.audit_log)
        self._segmentations = KnownSegmentations(state)

    def publish(self, case: str, labels: Array, volume: Volume) -> None:
        """Store a case's submitted label, which is saved here already.

        Args:
            case: The case.
            labels: Label indices ``(i, j, k)``.
            volume: The series.

        Raises:
            OutputError: If the server does not take it.
        """
        if not isinstance(self._cases, DicomWebCases):
            return
        saved = self._labels.find(case, FINAL)
        info = {} if saved is None else saved.info
        description = _describe_label(info)
        uid = self._cases.store_label(labels, volume, description)
        self._segmentations.add(uid)
        self._labels.update_info(case, FINAL, {SOP_INSTANCE_UID: uid})

    def publish_if_missing(self, case: str) -> None:
        """Store a case's submitted label, if that failed when it was saved."""
        label = self._labels.find(case, FINAL)
        if label is None or SOP_INSTANCE_UID in label.info:
            return
        labels = read_labels(label.file).array[0]
        self.publish(case, labels, self._read(case))

    def take_over(self, proposals: frozenset[str]) -> None:
        """Save corrections that somebody stored in the DICOMweb server as submitted labels.

        Args:
            proposals: UIDs of series that hold none.

        Raises:
            OutputError: If the server does not answer.
        """
        if not isinstance(self._cases, DicomWebCases):
            return
        known = self._segmentations.read()
        for correction in self._cases.find_corrections(known, proposals):
            self._take_over(self._cases, correction)

    def _take_over(self, cases: DicomWebCases, correction: Correction) -> None:
        """Save a correction, if it can be read."""
        case = correction.case
        volume = self._read(case)
        with tempfile.TemporaryDirectory(
            dir=self._state.root, prefix=PART
        ) as folder:
            file = Path(folder) / "correction.dcm"
            cases.fetch_correction(correction, file)
            try:
                label = read_label_upload(file, volume, self._spec.label_set)
            except ScanError as error:
                self._audit.write(
                    "segmentation left out",
                    case=case,
                    uid=correction.uid,
                    why=error.message,
                )
            else:
                # Not by whoever has just asked for the next case.
                author = self._segmentations.find_author(correction.uid)
                author = author or FROM_DICOM
                info: dict[str, Any] = {
                    SOP_INSTANCE_UID: correction.uid,
                    SOURCE: FROM_DICOM,
                    "client_id": author,
                }
                if label.warnings:
                    info["warnings"] = list(label.warnings)
                indices = label.indices
                self._labels.save(case, FINAL, indices, volume, info, author)
                self._pictures.draw(case, volume, indices)
        self._segmentations.add(correction.uid)

    def _read(self, case: str) -> Volume:
        scan = self._cases.get_scan(case)
        return read_scan(scan, self._spec.channels)


def _describe_label(info: Mapping[str, Any]) -> str:
    """Return what viewers list a label as.

    A restored label is stored once more, under a UID of its own that follows from this: else the
    newest in the server would be the one that it was restored in place of.
    """
    if "restored" not in info:
        return SEGMENTATION
    moment = datetime.fromtimestamp(info["ts"])  # noqa: DTZ006 (DICOM's times are local)
    return f"{SEGMENTATION}, restored {moment:%Y-%m-%d %H:%M:%S}"
