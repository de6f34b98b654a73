"""What a DICOM object made from a scan repeats of it: patient, study, and its slices' names.

Segmentations and structure sets say who the patient is by design: an archive files them under
the patient and study of the scan, or not at all. Patient and study are taken over as they are
stored, even where they break DICOM's rules for lengths: a corrected patient number would be
another patient's.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset

from medseg.errors import OutputError, ScanError
from medseg.io.dicom.files import PYDICOM_ERRORS, read_elements
from medseg.io.dicom.frames import Frame, parse_uid
from medseg.io.dicom.headers import read_header
from medseg.io.dicom.volume import Slices
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

TEXT_LENGTH = 64
"""Most characters of a name in DICOM (value representation LO)."""
UTF_8 = "ISO_IR 192"

_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Elements that must be there, if only empty (DICOM's type 2)."""
_OPTIONAL = (
    *("IssuerOfPatientID", "OtherPatientIDs", "PatientBirthTime", "EthnicGroup"),
    *("PatientComments", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "PatientSpeciesDescription", "PatientBreedDescription"),
    *("IssuerOfAccessionNumberSequence", "StudyDescription", "PatientAge", "PatientSize"),
    *("PatientWeight", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID"),
    *("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    *("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID"),
    *("ClinicalTrialTimePointDescription", "TimezoneOffsetFromUTC"),
)
_COMPRESSION = (
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_IMAGE = ("SOPClassUID", "StudyInstanceUID", "SpecificCharacterSet", *_COMPRESSION)


@dataclass(frozen=True, slots=True, eq=False)
class SourceSlice:
    """One slice of the scan.

    Attributes:
        sop_class: SOP Class UID of its file.
        frame: Its place, size and name.
        is_multiframe: Whether its file has several frames, so that references need a number.
    """

    sop_class: str
    frame: Frame
    is_multiframe: bool

    def reference(self) -> Dataset:
        """Return an item that refers to this slice: its instance and, if needed, its frame."""
        item = make_instance_reference(self.sop_class, self.frame.sop_uid)
        if self.is_multiframe:
            item.ReferencedFrameNumber = self.frame.number + 1
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

    def instances(self) -> list[Dataset]:
        """Return a reference to each file of the scan, once."""
        unique = {one.frame.sop_uid: one.sop_class for one in self.slices}
        return [make_instance_reference(sop_class, uid) for uid, sop_class in unique.items()]


def read_source(like: Volume) -> DicomSource:
    """Read again, from a DICOM scan's files, what objects derived from it repeat.

    Raises:
        OutputError: If the scan is not DICOM, lacks a UID that such objects must refer to, or
            its files are gone or were changed since it was read.
    """
    if not isinstance(like.header, Slices):
        raise OutputError(
            f"{like.source}: is not a DICOM scan, and DICOM results refer to one; write NIfTI, "
            "or segment the DICOM series"
        )
    slices = like.header
    first = _header(slices.files[0], like.source)
    _refuse_unnamed(
        like.source,
        {
            "Study Instance UID": parse_uid(first.get("StudyInstanceUID")),
            "Series Instance UID": slices.series,
            "SOP Instance UID": all(slices.sop_uids),
            "Frame of Reference UID": slices.frame_of_reference,
        },
    )
    return DicomSource(
        _patient_study(first),
        _taken(first, _COMPRESSION),
        parse_uid(first.StudyInstanceUID),
        slices.series,
        slices.frame_of_reference,
        _source_slices(slices, like.source),
    )


def prepare_labels(
    labels: npt.NDArray[Any], like: Volume, label_set: LabelSet
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return labels as the smallest unsigned integers that hold every index of the label set.

    Where the scan's slices were resampled because they lie at uneven distances, each slice gets
    the plane nearest to it; so the result lies on the slices, and ``k`` counts slices again.

    Raises:
        OutputError: If they do not lie on the scan's grid, or hold an index without a label.
    """
    if not len(label_set):
        raise OutputError("there are no labels to write; a label set needs at least one")
    if labels.shape != like.shape:
        raise OutputError(f"labels of shape {labels.shape} do not fit a scan of {like.shape}")
    if labels.dtype.kind not in "bui" or int(labels.min()) < 0:
        raise OutputError(f"label maps hold integers from 0, got {labels.dtype}")
    if int(labels.max()) > len(label_set):
        raise OutputError(
            f"the label map holds the index {int(labels.max())}, but only 1 to {len(label_set)} "
            "have a name"
        )
    labels = labels.astype(np.min_scalar_type(len(label_set)), copy=False)
    planes = like.header.planes if isinstance(like.header, Slices) else ()
    return labels[:, :, list(planes)] if planes else labels


def hash_object(source: DicomSource, labels: npt.NDArray[Any], *facts: object) -> bytes:
    """Return a hash of all that makes a derived object what it is, its time left out."""
    known = hashlib.sha256()
    known.update(repr([(e.tag, e.value) for e in source.patient_study]).encode())
    names = [(one.frame.sop_uid, one.frame.number) for one in source.slices]
    known.update(repr((source.study, source.series, names, labels.shape, facts)).encode())
    known.update(np.ascontiguousarray(labels).tobytes())
    return known.digest()


def derive_uid(object_hash: bytes, role: str) -> str:
    """Return the UID of one role in an object; the same object has the same UIDs each time.

    Written as DICOM PS3.5 B.2 allows: ``2.25.`` and a UUID as one number.
    """
    digest = hashlib.sha256(object_hash + role.encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def make_instance_reference(sop_class: str, sop_uid: str) -> Dataset:
    """Return an item that refers to one instance."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_uid
    return item


def add_patient_and_times(
    ds: Dataset, source: DicomSource, created: datetime, keywords: Sequence[str]
) -> None:
    """Put patient, study and times into an object; ``keywords`` are those of its own times.

    Args:
        ds: Changed in place.
        source: The scan.
        created: Written as date and time of the instance, the series and ``keywords``.
        keywords: Beginnings of element names, such as ``Content`` of ``ContentDate``.
    """
    ds.SpecificCharacterSet = UTF_8
    ds.StudyInstanceUID = source.study
    for element in source.patient_study:
        ds[element.tag] = element
    for keyword in ("InstanceCreation", "Series", *keywords):
        setattr(ds, f"{keyword}Date", created.strftime("%Y%m%d"))
        setattr(ds, f"{keyword}Time", created.strftime("%H%M%S.%f"))


def fit_text(text: str) -> str:
    """Return text as DICOM names can hold it: printable, no backslash, not too long."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    return printable.replace("\\", "/")[:TEXT_LENGTH].strip()


def make_label_text(label: Label) -> str:
    """Return a label's name as DICOM can hold it, its index if nothing of it is left."""
    return fit_text(label.name) or f"label {label.index}"


def _header(file: Path, name: str) -> FileDataset:
    try:
        return read_elements(file, [*_IMAGE, *_REQUIRED, *_OPTIONAL])
    except (*PYDICOM_ERRORS, ScanError) as error:
        _refuse_changed(file, name, error)


def _refuse_changed(file: Path, name: str, error: Exception | None = None) -> NoReturn:
    raise OutputError(
        f"{name}: {file.name} is gone or was changed since it was read, and DICOM results repeat "
        "parts of its header; segment the series again"
    ) from error


def _refuse_unnamed(name: str, uids: dict[str, Any]) -> None:
    missing = [keyword for keyword, value in uids.items() if not value]
    if missing:
        raise OutputError(
            f"{name}: has no valid {', '.join(missing)}, which DICOM results must refer to; write "
            "NIfTI, or send the series again from its archive"
        )


def _patient_study(ds: FileDataset) -> Dataset:
    taken = _taken(ds, (*_REQUIRED, *_OPTIONAL))
    for keyword in _REQUIRED:
        if keyword not in taken:
            setattr(taken, keyword, "")
    return taken


def _taken(ds: FileDataset, keywords: Sequence[str]) -> Dataset:
    taken = Dataset()
    for keyword in keywords:
        try:
            if keyword in ds:
                taken[keyword] = ds[keyword]
                str(taken[keyword])  # parses sequences to their last item
        except PYDICOM_ERRORS:
            taken.pop(keyword, None)  # what cannot even be read is as good as absent
    return taken


def _source_slices(slices: Slices, name: str) -> tuple[SourceSlice, ...]:
    frames: dict[Path, tuple[Frame, ...]] = {}
    classes: dict[Path, str] = {}
    for file in dict.fromkeys(slices.files):
        header = read_header(file)
        frames[file] = header.frames if header else ()
        classes[file] = str(_header(file, name).get("SOPClassUID") or "")
    found = []
    for file, number, uid in zip(slices.files, slices.frames, slices.sop_uids, strict=True):
        own = frames[file]
        if number >= len(own) or own[number].sop_uid != uid or not classes[file]:
            _refuse_changed(file, name)
        found.append(SourceSlice(classes[file], own[number], len(own) > 1))
    return tuple(found)
