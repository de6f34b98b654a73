"""Series of a DICOMweb server as cases; corrected labels go there, and come from there, as SEG."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from medseg._support.files import PART
from medseg._support.platform.files import rename
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.errors import DatasetError
from medseg.label_server.cases import make_nifti_copy
from medseg.label_server.dicomweb_connection import DicomWebConnection
from medseg.label_server.state import StateFolder, is_plain_name
from medseg.volume import Array, Volume

KEPT_SECONDS = 5.0
"""How long the list of series is kept: viewers ask for it several times a second."""

SEGMENTATION = "Segmentation"
"""What viewers list a corrected label's series as."""

_NO_IMAGES = frozenset(
    {"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC"}
)
_SHOWN = ("Modality", "StudyDate", "StudyTime", "PatientID", "StudyInstanceUID")


@dataclass(frozen=True, slots=True)
class Correction:
    """A segmentation on the server that a person made or corrected.

    Attributes:
        case: The series it belongs to.
        uid: Its SOP instance UID.
        study: Its study's UID.
        series: Its own series' UID.
        created: Date and time of its content, as DICOM writes them.
    """

    case: str
    uid: str
    study: str
    series: str
    created: str


@dataclass(frozen=True, slots=True)
class StoredSegmentation:
    """A DICOM SEG in the DICOMweb server.

    Attributes:
        uid: Its SOP instance UID.
        series: Its series' UID.
    """

    uid: str
    series: str


class DicomWebCases:
    """The image series of a DICOMweb server; a case is called by its series' UID.

    Args:
        url: The server's DICOMweb root.
        state: The state folder; fetched series are kept there.
        spec: The bundle's spec.
        modalities: Which are listed; all that hold images unless given.
    """

    def __init__(
        self,
        url: str,
        state: StateFolder,
        spec: BundleSpec,
        modalities: Sequence[str] = (),
    ) -> None:
        connection = DicomWebConnection(url)
        self._client = connection.client
        self._request = connection.request
        self._state = state
        self._spec = spec
        self._modalities = frozenset(modalities)
        self._series: dict[str, Dataset] = {}
        self._listed_at = -KEPT_SECONDS
        self._listing = threading.Lock()
        self._fetching = threading.Lock()

    def list_names(self) -> Sequence[str]:
        """Return the UID of every series that holds images, sorted."""
        return sorted(self._list_series())

    def get_scan(self, name: str) -> Scan:
        """Return a series' files, fetched if they are not here yet."""
        series = self._get_series(name)
        study = str(series.StudyInstanceUID)
        folder = self._state.series / name
        with self._fetching:
            if not folder.is_dir():
                self._fetch(study, name, folder)
        files = sorted(folder.iterdir())
        return Scan(name, (tuple(files),))

    def get_image_file(self, name: str) -> Path:
        """Return a NIfTI copy of a series."""
        return make_nifti_copy(self._state, self.get_scan(name))

    def get_info(self, name: str) -> Mapping[str, Any]:
        """Return what viewers show of a series."""
        series = self._get_series(name)
        info = {keyword: str(series.get(keyword, "")) for keyword in _SHOWN}
        return {"name": f"{name}.nii.gz", "SeriesInstanceUID": name, **info}

    def store_label(
        self, labels: Array, like: Volume, description: str = SEGMENTATION
    ) -> str:
        """Store a corrected label map as a DICOM SEG in its study.

        Args:
            labels: Label indices ``(i, j, k)``.
            like: The series.
            description: What viewers list it as.

        Returns:
            Its SOP instance UID; the same labels of the same description have the same.

        Raises:
            OutputError: If the server does not take it.
        """
        return self._store(labels, like, description, corrected=True).uid

    def store_proposal(
        self, labels: Array, like: Volume, description: str
    ) -> StoredSegmentation:
        """Store what a model alone made of a series as a DICOM SEG in its study.

        Args:
            labels: Label indices ``(i, j, k)``.
            like: The series.
            description: What viewers list it as.

        Raises:
            OutputError: If the server does not take it.
        """
        return self._store(labels, like, description, corrected=False)

    def _store(
        self, labels: Array, like: Volume, description: str, *, corrected: bool
    ) -> StoredSegmentation:
        """Store a DICOM SEG, unless the server has it already."""
        with tempfile.TemporaryDirectory(
            dir=self._state.root, prefix=PART
        ) as folder:
            file = Path(folder) / "label.dcm"
            self.write_seg(
                file, labels, like, corrected=corrected, description=description
            )
            seg = pydicom.dcmread(file)
        uid = str(seg.SOPInstanceUID)
        client = self._client
        stored = self._request(
            "look for a segmentation",
            lambda: client.search_for_instances(
                search_filters={"SOPInstanceUID": uid}
            ),
        )
        if not stored:
            self._request(
                "store a segmentation", lambda: client.store_instances([seg])
            )
        return StoredSegmentation(uid, str(seg.SeriesInstanceUID))

    def write_seg(
        self,
        file: Path,
        labels: Array,
        like: Volume,
        *,
        corrected: bool,
        description: str = SEGMENTATION,
    ) -> None:
        """Write a label map as a DICOM SEG file.

        Args:
            file: The file to write.
            labels: Label indices ``(i, j, k)``.
            like: The series.
            corrected: Whether a person corrected it; a model alone made it if not.
            description: What viewers list its series as.
        """
        write_dicom_seg(
            file,
            labels,
            like,
            self._spec.label_set,
            algorithm=self._spec.name,
            version=self._spec.version,
            corrected=corrected,
            series_description=description,
            origin=self._spec.origin or "",
        )

    def find_corrections(
        self, known: frozenset[str], proposals: frozenset[str] = frozenset()
    ) -> list[Correction]:
        """Return the newest corrected segmentation of each case, unless it is known.

        Args:
            known: SOP instance UIDs.
            proposals: UIDs of series that hold no correction, and so are not asked for.
        """
        listed = self._request(
            "list its segmentations",
            lambda: self._client.search_for_series(
                search_filters={"Modality": "SEG"}, get_remaining=True
            ),
        )
        corrections: list[Correction] = []
        for entry in listed:
            series = Dataset.from_json(entry)
            if str(series.SeriesInstanceUID) not in proposals:
                corrections.extend(self._read_corrections(series))
        return choose_newest(corrections, known)

    def fetch_correction(self, correction: Correction, file: Path) -> None:
        """Download a segmentation."""
        seg = self._request(
            "send a segmentation",
            lambda: self._client.retrieve_instance(
                correction.study, correction.series, correction.uid
            ),
        )
        seg.save_as(file, enforce_file_format=True)

    def _read_corrections(self, series: Dataset) -> list[Correction]:
        study = str(series.StudyInstanceUID)
        uid = str(series.SeriesInstanceUID)
        metadata = self._request(
            "describe a segmentation",
            lambda: self._client.retrieve_series_metadata(study, uid),
        )
        cases = self._list_series()
        corrections = []
        for entry in metadata:
            correction = read_correction(
                Dataset.from_json(entry), cases, study, uid
            )
            if correction is not None:
                corrections.append(correction)
        return corrections

    def _get_series(self, name: str) -> Dataset:
        listed = self._list_series()
        if name not in listed:
            raise DatasetError(
                "the DICOM server has no such image series", detail=name[:100]
            )
        return listed[name]

    def _list_series(self) -> dict[str, Dataset]:
        with self._listing:
            if time.monotonic() - self._listed_at > KEPT_SECONDS:
                self._series = self._search_series()
                self._listed_at = time.monotonic()
            return self._series

    def _search_series(self) -> dict[str, Dataset]:
        entries = self._request(
            "list its series",
            lambda: self._client.search_for_series(get_remaining=True),
        )
        listed = {}
        for entry in entries:
            series = Dataset.from_json(entry)
            modality = str(series.get("Modality", ""))
            uid = str(series.SeriesInstanceUID)
            if is_plain_name(uid) and is_listed(modality, self._modalities):
                listed[uid] = series
        return listed

    def _fetch(self, study: str, series: str, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PART))
        try:
            instances = self._request(
                "send a series",
                lambda: list(self._client.iter_series(study, series)),
            )
            for number, instance in enumerate(instances):
                instance.save_as(
                    part / f"{number:05d}.dcm", enforce_file_format=True
                )
            rename(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def is_listed(modality: str, modalities: frozenset[str]) -> bool:
    """Tell whether series of a modality are cases.

    Args:
        modality: As the series' header says.
        modalities: Those that were asked for; all that hold images if empty.
    """
    if modalities:
        return modality in modalities
    return modality not in _NO_IMAGES


def read_correction(
    seg: Dataset, cases: Iterable[str], study: str, series: str
) -> Correction | None:
    """Return a segmentation as a correction, or ``None`` if it is no one's or a model's alone.

    Args:
        seg: The header of a DICOM SEG.
        cases: UIDs of the image series that are listed.
        study: UID of the segmentation's study.
        series: UID of the segmentation's own series.
    """
    references = seg.get("ReferencedSeriesSequence", [])
    if len(references) != 1:
        return None
    case = str(references[0].SeriesInstanceUID)
    if case not in cases or not _is_made_by_a_person(seg):
        return None
    uid = str(seg.SOPInstanceUID)
    date = seg.get("ContentDate", "")
    time_of_day = seg.get("ContentTime", "")
    return Correction(case, uid, study, series, f"{date}{time_of_day}")


def _is_made_by_a_person(seg: Dataset) -> bool:
    segments = seg.get("SegmentSequence", [])
    algorithms = {
        str(segment.get("SegmentAlgorithmType")) for segment in segments
    }
    return bool(algorithms) and "AUTOMATIC" not in algorithms


def choose_newest(
    corrections: Iterable[Correction], known: frozenset[str]
) -> list[Correction]:
    """Return the newest correction of each case among those that are not known.

    Args:
        corrections: Of any cases, in any order.
        known: SOP instance UIDs.
    """
    newest: dict[str, Correction] = {}
    unknown = [
        correction for correction in corrections if correction.uid not in known
    ]
    for correction in unknown:
        case = correction.case
        former = newest.get(case)
        if former is None or former.created < correction.created:
            newest[case] = correction
    return list(newest.values())
