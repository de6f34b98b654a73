"""Series of a DICOMweb server as cases; corrected labels go there, and come from there, as SEG."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.dataset import Dataset

from medseg._support.files import PART, write_atomically
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.io.dicom.seg_writer import write_dicom_seg
from medseg.label_server.cases import viewable
from medseg.label_server.state import State, is_plain
from medseg.volume import Array, Volume

USER, PASSWORD = "MEDSEG_DICOMWEB_USER", "MEDSEG_DICOMWEB_PASSWORD"
"""Environment variables with the login of the DICOMweb server, if it asks for one."""

KEPT_SECONDS = 5.0
"""How long the list of series is kept: viewers ask for it several times a second."""

_NO_IMAGES = frozenset({"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC"})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Correction:
    """A segmentation on the server that a person made or corrected.

    Attributes:
        case: The series it belongs to.
        uid: Its SOP instance UID.
        study: Its study's UID.
        series: Its own series' UID.
        made: Date and time of its content, as DICOM writes them.
    """

    case: str
    uid: str
    study: str
    series: str
    made: str


class DicomWebCases:
    """The image series of a DICOMweb server; a case is called by its series' UID.

    Args:
        url: The server's DICOMweb root.
        state: The state folder; fetched series are kept there.
        spec: The bundle's spec.
        modalities: Which are listed; all that hold images unless given.
    """

    def __init__(
        self, url: str, state: State, spec: BundleSpec, modalities: Sequence[str] = ()
    ) -> None:
        session = None
        if os.environ.get(USER):
            session = create_session_from_user_pass(os.environ[USER], os.environ.get(PASSWORD, ""))
        self._client = DICOMwebClient(url.rstrip("/"), session=session)
        self._url, self._state, self._spec = url, state, spec
        self._modalities = frozenset(modalities)
        self._listed: tuple[float, dict[str, Dataset]] = (-KEPT_SECONDS, {})
        self._looking, self._fetching = threading.Lock(), threading.Lock()

    def names(self) -> Sequence[str]:
        """Name every series that holds images, by UID, sorted."""
        return sorted(self._series())

    def scan(self, name: str) -> Scan:
        """Return a series' files, fetched if they are not here yet."""
        facts = self._facts(name)
        folder = self._state.series / name
        with self._fetching:
            if not folder.is_dir():
                self._fetch(str(facts.StudyInstanceUID), name, folder)
        return Scan(name, (tuple(sorted(folder.iterdir())),))

    def image(self, name: str) -> Path:
        """Return a NIfTI copy of a series."""
        return viewable(self._state, self.scan(name))

    def facts(self, name: str) -> Mapping[str, Any]:
        """Say what viewers show of a series."""
        found = self._facts(name)
        shown = ("Modality", "StudyDate", "StudyTime", "PatientID", "StudyInstanceUID")
        told = {field: str(found.get(field, "")) for field in shown}
        return {"name": f"{name}.nii.gz", "SeriesInstanceUID": name, **told}

    def publish(self, name: str, labels: Array, like: Volume) -> str:
        """Store a corrected label map as a DICOM SEG in its study.

        Returns:
            Its SOP instance UID; the same labels have the same.

        Raises:
            OutputError: If the server does not take it.
        """
        from pydicom import dcmread

        with tempfile.TemporaryDirectory(dir=self._state.root, prefix=PART) as folder:
            file = Path(folder) / "label.dcm"
            self.write_seg(file, labels, like, corrected=True)
            ds = dcmread(file)
        self._ask("store a segmentation", lambda: self._client.store_instances([ds]))
        return str(ds.SOPInstanceUID)

    def write_seg(self, file: Path, labels: Array, like: Volume, *, corrected: bool) -> None:
        """Write a label map as a DICOM SEG file.

        Args:
            file: The file to write.
            labels: Label indices ``(i, j, k)``.
            like: The series.
            corrected: Whether a person corrected it; a model alone made it if not.
        """
        write_dicom_seg(
            file,
            labels,
            like,
            self._spec.label_set,
            algorithm=self._spec.name,
            version=self._spec.version,
            corrected=corrected,
        )

    def corrections(self, seen: frozenset[str]) -> Iterator[Correction]:
        """Yield the newest corrected segmentation of each case that was not seen before.

        Args:
            seen: SOP instance UIDs.
        """
        series = self._ask(
            "list its segmentations",
            lambda: self._client.search_for_series(search_filters={"Modality": "SEG"}),
        )
        newest: dict[str, Correction] = {}
        for one in (Dataset.from_json(entry) for entry in series):
            for found in self._read_correction(one):
                former = newest.get(found.case)
                if found.uid not in seen and (former is None or former.made < found.made):
                    newest[found.case] = found
        yield from newest.values()

    def fetch_correction(self, found: Correction, file: Path) -> None:
        """Download a segmentation."""
        ds = self._ask(
            "send a segmentation",
            lambda: self._client.retrieve_instance(found.study, found.series, found.uid),
        )
        ds.save_as(file, enforce_file_format=True)

    def _read_correction(self, series: Dataset) -> Iterator[Correction]:
        study, uid = str(series.StudyInstanceUID), str(series.SeriesInstanceUID)
        metadata = self._ask(
            "describe a segmentation", lambda: self._client.retrieve_series_metadata(study, uid)
        )
        listed = self._series()
        for ds in (Dataset.from_json(entry) for entry in metadata):
            about = [str(one.SeriesInstanceUID) for one in ds.get("ReferencedSeriesSequence", [])]
            by = {str(one.get("SegmentAlgorithmType")) for one in ds.get("SegmentSequence", [])}
            if len(about) == 1 and about[0] in listed and by and "AUTOMATIC" not in by:
                made = f"{ds.get('ContentDate', '')}{ds.get('ContentTime', '')}"
                yield Correction(about[0], str(ds.SOPInstanceUID), study, uid, made)

    def _facts(self, name: str) -> Dataset:
        found = self._series().get(name) if is_plain(name) else None
        if found is None:
            raise DatasetError(f"the DICOM server has no image series '{name[:100]}'")
        return found

    def _series(self) -> dict[str, Dataset]:
        with self._looking:
            when, known = self._listed
            if time.monotonic() - when > KEPT_SECONDS:
                known = self._look()
                self._listed = time.monotonic(), known
            return known

    def _look(self) -> dict[str, Dataset]:
        found = self._ask(
            "list its series", lambda: self._client.search_for_series(get_remaining=True)
        )
        series = [Dataset.from_json(entry) for entry in found]
        return {
            str(one.SeriesInstanceUID): one
            for one in series
            if self._is_listed(str(one.get("Modality", "")))
        }

    def _is_listed(self, modality: str) -> bool:
        if self._modalities:
            return modality in self._modalities
        return modality not in _NO_IMAGES

    def _fetch(self, study: str, series: str, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PART))
        try:
            instances = self._ask(
                "send a series", lambda: list(self._client.iter_series(study, series))
            )
            for number, ds in enumerate(instances):
                ds.save_as(part / f"{number:05d}.dcm", enforce_file_format=True)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _ask(self, what: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else "an error"
            raise OutputError(f"{self._url} did not {what}: it answered {code}") from error
        except requests.RequestException as error:
            raise OutputError(
                f"{self._url} did not {what}: {type(error).__name__}; is it running, and is this "
                f"its DICOMweb address? If it asks for a login, set {USER} and {PASSWORD}"
            ) from error


class SeenSegmentations:
    """Which segmentations of the server are known already: ours, and those read back.

    Args:
        state: The state folder.
    """

    def __init__(self, state: State) -> None:
        self._file = state.root / "segmentations.json"

    def read(self) -> frozenset[str]:
        """Return their SOP instance UIDs."""
        try:
            return frozenset(json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError) as error:
            raise MedsegError(f"{self._file} is damaged ({error}); restore or remove it") from error

    def add(self, uid: str) -> None:
        """Note one more."""
        write_atomically(self._file, json.dumps(sorted({*self.read(), uid}), indent=1) + "\n")
