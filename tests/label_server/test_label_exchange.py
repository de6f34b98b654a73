"""Labels go to a DICOMweb server, and corrections come back, as far as no PACS is needed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import made_spec
from support.orthancs import phantom_series, write_series

from medseg.datasets.cases import Scan
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.errors import OutputError
from medseg.io import read_image, read_labels
from medseg.label_server.case_pictures import CasePictures
from medseg.label_server.dicomweb import Correction, DicomWebCases
from medseg.label_server.known_segmentations import KnownSegmentations
from medseg.label_server.label_exchange import LabelExchange
from medseg.label_server.labels import FINAL, SOP_INSTANCE_UID, Labels
from medseg.label_server.state import StateFolder
from medseg.volume import Array, Volume

SPEC = made_spec()
CASE = "1.2"


class Archive(DicomWebCases):
    """A DICOMweb server with one series, which keeps what is stored in it."""

    def __init__(self, state: StateFolder, folder: Path) -> None:
        super().__init__("http://127.0.0.1:9/dicom-web", state, SPEC)
        self.folder = folder
        self.descriptions: list[str] = []
        self.corrections: dict[str, Path] = {}
        self.is_away = False

    def get_scan(self, name: str) -> Scan:
        return Scan(name, (tuple(sorted(self.folder.iterdir())),))

    def store_label(
        self, labels: Array, like: Volume, description: str = ""
    ) -> str:
        if self.is_away:
            raise OutputError("the DICOMweb server is away")
        self.descriptions.append(description)
        return f"9.{len(set(self.descriptions))}.{int(labels.max())}"

    def find_corrections(
        self, known: frozenset[str], proposals: frozenset[str] = frozenset()
    ) -> list[Correction]:
        return [
            Correction(CASE, uid, "5", "6", "")
            for uid in self.corrections
            if uid not in known
        ]

    def fetch_correction(self, correction: Correction, file: Path) -> None:
        shutil.copyfile(self.corrections[correction.uid], file)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    folder = write_series(tmp_path / "ct", phantom_series(0)[0])
    state = StateFolder(tmp_path / "state")
    state.root.mkdir()
    return Archive(state, folder)


def exchange_of(archive: Archive) -> tuple[LabelExchange, Labels]:
    state = archive._state
    labels = Labels(state)
    pictures = CasePictures(state, SPEC.label_set)
    return LabelExchange(state, archive, SPEC, labels, pictures), labels


def save(labels: Labels, scan: Volume, value: int, **info: Any) -> None:
    array = np.full(scan.shape, value, np.uint8)
    labels.save(CASE, FINAL, array, scan, info)


def info_of(labels: Labels) -> Mapping[str, Any]:
    label = labels.find(CASE, FINAL)
    assert label is not None
    return label.info


def test_a_restored_label_is_stored_anew_and_never_keeps_the_former_uid(
    archive: Archive,
) -> None:
    exchange, labels = exchange_of(archive)
    scan = read_image(archive.folder)
    save(labels, scan, 1, **{SOP_INSTANCE_UID: "7.7"})  # as OHIF stored it
    save(labels, scan, 2)
    exchange.publish_if_missing(CASE)
    assert info_of(labels)[SOP_INSTANCE_UID] == "9.1.2"
    *_, first = labels.history.list_records(CASE)
    labels.restore(CASE, first.number)
    archive.is_away = True
    with pytest.raises(OutputError):
        exchange.publish_if_missing(CASE)
    # What could not be stored is no other object's, and is stored later.
    assert SOP_INSTANCE_UID not in info_of(labels)
    archive.is_away = False
    exchange.publish_if_missing(CASE)
    assert info_of(labels)[SOP_INSTANCE_UID] == "9.2.1"
    plain, restored = archive.descriptions
    assert plain == "Segmentation"
    assert restored.startswith("Segmentation, restored 20")
    exchange.publish_if_missing(CASE)
    assert len(archive.descriptions) == 2


@pytest.mark.parametrize(
    ("storer", "author"), [("anna", "anna"), ("", "DICOM SEG")]
)
def test_a_correction_is_by_whoever_stored_it_through_this_server(
    archive: Archive, tmp_path: Path, storer: str, author: str
) -> None:
    exchange, labels = exchange_of(archive)
    scan = read_image(archive.folder)
    file, painted = tmp_path / "seg.dcm", phantom_series(0)[1]
    write_dicom_seg(
        file, painted, scan, SPEC.label_set, version="1", corrected=True
    )
    archive.corrections["3.3"] = file
    if storer:
        KnownSegmentations(archive._state).note_author(["3.3"], storer)
    exchange.take_over(frozenset())
    exchange.take_over(frozenset())
    (record,) = labels.history.list_records(CASE)
    assert np.array_equal(read_labels(record.file).array[0], painted)
    assert record.author == author
    assert record.info[SOP_INSTANCE_UID] == "3.3"
    assert record.info["source"] == "DICOM SEG"
