"""What a DICOM object made from a scan repeats of it: patient, study, and its slices' names.

Segmentations and structure sets say who the patient is by design: an archive files them under
the patient and study of the scan, or not at all. Patient and study are taken over as they are
stored where DICOM allows that, and else brought to its form (``value_rules``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset

from medseg.dicom_labels.value_rules import fit_characters, fit_element
from medseg.errors import OutputError, ScanError
from medseg.io.dicom.files import PYDICOM_ERRORS, quote_error, read_elements
from medseg.io.dicom.frames import Frame, get_uid
from medseg.io.dicom.headers import read_header
from medseg.io.dicom.in_memory import files_at_hand
from medseg.io.dicom.volume import Slices
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

Labels = npt.NDArray[Any]

TEXT_LENGTH = 64
"""Most characters of a name in DICOM (value representation LO)."""
UTF_8 = "ISO_IR 192"

_REQUIRED_KEYWORDS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Elements that must be there, if only empty (DICOM's type 2)."""
_OPTIONAL_KEYWORDS = (
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "TimezoneOffsetFromUTC",
)
_COMPRESSION_KEYWORDS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_KEYWORDS = (
    "SOPClassUID",
    "StudyInstanceUID",
    "SpecificCharacterSet",
    *_COMPRESSION_KEYWORDS,
    *_REQUIRED_KEYWORDS,
    *_OPTIONAL_KEYWORDS,
)


@dataclass(frozen=True, slots=True, eq=False)
class SourceSlice:
    """One slice of the scan.

    Attributes:
        sop_class: SOP Class UID of its file.
        frame: Its position, size and SOP Instance UID.
        is_multiframe: Whether its file has several frames, so that references need a number.
    """

    sop_class: str
    frame: Frame
    is_multiframe: bool

    def make_reference(self) -> Dataset:
        """Return an item that refers to this slice: its instance and, if needed, its frame."""
        item = make_instance_reference(self.sop_class, self.frame.sop_uid)
        if self.is_multiframe:
            item.ReferencedFrameNumber = self.frame.index + 1
        return item


@dataclass(frozen=True, slots=True, eq=False)
class DicomSource:
    """What a derived object repeats of the scan.

    Attributes:
        patient_study: Patient and study elements; all that must be there are, if only empty.
        compression: Whether and how the scan was compressed with loss, which results repeat.
        study: Study Instance UID.
        series: Series Instance UID.
        frame_of_reference: Frame of Reference UID.
        slices: In order of ``k``.
    """

    patient_study: Dataset
    compression: Dataset
    study: str
    series: str
    frame_of_reference: str
    slices: tuple[SourceSlice, ...]

    def make_references(self) -> list[Dataset]:
        """Return a reference to each file of the scan, once."""
        sop_classes = {}
        for source_slice in self.slices:
            sop_uid = source_slice.frame.sop_uid
            sop_classes[sop_uid] = source_slice.sop_class
        references = []
        for sop_uid, sop_class in sop_classes.items():
            reference = make_instance_reference(sop_class, sop_uid)
            references.append(reference)
        return references


def check_source(like: Volume) -> None:
    """Make sure that DICOM objects can be derived from a scan, before they are made.

    Raises:
        OutputError: As ``read_source`` does, which reads all files of the scan again.
    """
    with _source_files(like) as slices:
        _identify(slices, like.source)


def read_source(like: Volume) -> DicomSource:
    """Read again, from a DICOM scan's files, what objects derived from it repeat.

    Raises:
        OutputError: If the scan is not DICOM, lacks a UID that such objects must refer to, or
            its files are gone or were changed since it was read.
    """
    with _source_files(like) as slices:
        first = _identify(slices, like.source)
        return DicomSource(
            patient_study=_copy_patient_study(first),
            compression=_copy_elements(first, _COMPRESSION_KEYWORDS),
            study=get_uid(first, "StudyInstanceUID"),
            series=slices.series,
            frame_of_reference=slices.frame_of_reference,
            slices=_read_source_slices(slices),
        )


@contextlib.contextmanager
def _source_files(like: Volume) -> Iterator[Slices]:
    """Give a DICOM scan's slices, with files that can be read."""
    slices = like.header
    if not isinstance(slices, Slices):
        raise OutputError(
            "the scan is not DICOM, and DICOM results must refer to a DICOM scan; write NIfTI, or "
            "segment the DICOM series",
            source=like.source,
        )
    with files_at_hand(slices) as readable:
        yield readable


def _identify(slices: Slices, source: str) -> FileDataset:
    """Return a scan's first header, once all UIDs are certain to be there."""
    first = _read_header(slices.files[0])
    uids = {
        "Study Instance UID": get_uid(first, "StudyInstanceUID"),
        "Series Instance UID": slices.series,
        "SOP Instance UID": all(slices.sop_uids),
        "Frame of Reference UID": slices.frame_of_reference,
    }
    missing = [name for name, uid in uids.items() if not uid]
    if missing:
        missing_names = ", ".join(missing)
        raise OutputError(
            f"the scan has no valid {missing_names}, which DICOM results must refer to; "
            "write NIfTI, or send the series again from its archive",
            source=source,
        )
    return first


def prepare_labels(
    labels: Labels, like: Volume, label_set: LabelSet
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return labels as the smallest unsigned integers that hold every index of the label set.

    Where the scan's slices were resampled because they lie at uneven distances, each slice gets
    the plane nearest to it; so the result lies on the slices, and ``k`` counts slices again.

    Args:
        labels: Integers from 0, shape ``(i, j, k)``.
        like: The scan.
        label_set: What the indices mean.

    Raises:
        OutputError: If they do not lie on the scan's grid, or hold an index without a label.
    """
    count = len(label_set)
    if not count:
        raise OutputError(
            "there are no labels to write; a label set needs at least one"
        )
    if labels.shape != like.shape:
        raise OutputError(
            f"labels of shape {labels.shape} do not fit a scan of shape {like.shape}"
        )
    if labels.dtype.kind not in "bui":
        raise OutputError(f"label maps hold integers, got {labels.dtype}")
    lowest = int(labels.min())
    highest = int(labels.max())
    if lowest < 0:
        raise OutputError(
            f"label maps hold integers from 0, the lowest is {lowest}"
        )
    if highest > count:
        raise OutputError(
            f"the label map contains the index {highest}, but only 1 to {count} have a name"
        )
    dtype = np.min_scalar_type(count)
    labels = labels.astype(dtype, copy=False)
    if isinstance(like.header, Slices) and like.header.planes:
        planes = list(like.header.planes)
        return labels[:, :, planes]
    return labels


def make_instance_reference(sop_class: str, sop_uid: str) -> Dataset:
    """Return an item that refers to one instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_uid
    return item


def add_patient_and_times(
    ds: Dataset, source: DicomSource, created: datetime, prefixes: Sequence[str]
) -> None:
    """Put patient, study and times into an object.

    Args:
        ds: Changed in place.
        source: The scan.
        created: Written as date and time of the instance, the series and ``prefixes``.
        prefixes: Beginnings of keywords, such as ``Content`` of ``ContentDate``.
    """
    ds.SpecificCharacterSet = UTF_8
    ds.StudyInstanceUID = source.study
    for element in source.patient_study:
        ds[element.tag] = element
    date = created.strftime("%Y%m%d")
    time = created.strftime("%H%M%S.%f")
    for prefix in ("InstanceCreation", "Series", *prefixes):
        setattr(ds, f"{prefix}Date", date)
        setattr(ds, f"{prefix}Time", time)


def fit_text(text: str) -> str:
    """Return text as DICOM names can hold it: printable, no backslash, not too long."""
    return fit_characters(text, TEXT_LENGTH).strip()


def make_label_text(label: Label) -> str:
    """Return a label's name as DICOM can hold it, its index if nothing of it is left."""
    name = fit_text(label.name)
    return name or f"label {label.index}"


def _read_header(file: Path) -> FileDataset:
    try:
        return read_elements(file, _KEYWORDS)
    except ScanError as error:
        raise _make_changed_error(file, error.message) from error
    except PYDICOM_ERRORS as error:
        raise _make_changed_error(file, quote_error(error)) from error


def _make_changed_error(file: Path, detail: str | None = None) -> OutputError:
    return OutputError(
        "the file is gone or was changed since it was read, and DICOM results repeat parts of its "
        "header; segment the series again",
        source=file,
        detail=detail,
    )


def _copy_patient_study(ds: FileDataset) -> Dataset:
    keywords = (*_REQUIRED_KEYWORDS, *_OPTIONAL_KEYWORDS)
    copied = _copy_elements(ds, keywords)
    for keyword in _REQUIRED_KEYWORDS:
        if keyword not in copied:
            setattr(copied, keyword, "")
    return copied


def _copy_elements(ds: FileDataset, keywords: Sequence[str]) -> Dataset:
    copied = Dataset()
    for keyword in keywords:
        try:
            if keyword in ds:
                element = ds[keyword]
                str(element)  # parses sequences to their last item
                fitted = fit_element(element)
                if fitted is not None:
                    copied[keyword] = fitted
        except PYDICOM_ERRORS:
            # What cannot even be read is as good as absent.
            copied.pop(keyword, None)
    return copied


def _read_source_slices(slices: Slices) -> tuple[SourceSlice, ...]:
    available = {}
    for file in dict.fromkeys(slices.files):
        available[file] = _read_file_slices(file)
    source_slices = []
    for file, index, sop_uid in zip(
        slices.files, slices.frames, slices.sop_uids, strict=True
    ):
        file_slices = available[file]
        if index >= len(file_slices):
            raise _make_changed_error(file)
        source_slice = file_slices[index]
        if source_slice.frame.sop_uid != sop_uid:
            raise _make_changed_error(file)
        source_slices.append(source_slice)
    return tuple(source_slices)


def _read_file_slices(file: Path) -> list[SourceSlice]:
    ds = _read_header(file)
    header = read_header(file)
    sop_class = get_uid(ds, "SOPClassUID")
    if header is None or not sop_class:
        raise _make_changed_error(file)
    frames = header.frames
    is_multiframe = len(frames) > 1
    return [SourceSlice(sop_class, frame, is_multiframe) for frame in frames]
