"""DICOM objects that hold labels (SEG and RTSTRUCT): what they were drawn on, what they call it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset

from medseg.errors import ScanError
from medseg.io.dicom.files import PYDICOM_ERRORS, read_elements
from medseg.io.dicom.frames import parse_uid
from medseg.io.dicom.rtstruct_reader import read_roi_names, read_rtstruct
from medseg.io.dicom.seg_reader import LABEL_MAP_CLASS, read_dicom_seg, read_segment_names
from medseg.volume import Volume

_SEGMENTATIONS = (uids.SegmentationStorage, LABEL_MAP_CLASS)
_REFERENCES = (
    *("SOPClassUID", "FrameOfReferenceUID"),
    *("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"),
)
# Long, and needed only where an object names no series.
_FURTHER = (
    *("SourceImageSequence", "PerFrameFunctionalGroupsSequence"),
    *("StructureSetROISequence", "ROIContourSequence"),
)


@dataclass(frozen=True, slots=True)
class LabelObject:
    """One file of labels.

    Attributes:
        file: The file.
        names: Of its segments, or of its structures that are areas.
        series: Series Instance UIDs that it refers to.
        instances: SOP Instance UIDs that it refers to.
        frames_of_reference: Frame of Reference UIDs that it was drawn in.
    """

    file: Path
    names: tuple[str, ...]
    series: frozenset[str]
    instances: frozenset[str]
    frames_of_reference: frozenset[str]


def read_label_object(path: Path) -> LabelObject | None:
    """Read what a SEG or RTSTRUCT refers to and what it holds; its pixels are left alone.

    Returns:
        ``None`` for any other DICOM file.

    Raises:
        ScanError: If it is one and damaged.
    """
    try:
        ds: Dataset = read_elements(path, _REFERENCES)
        sop_class = str(ds.get("SOPClassUID") or "")
        if sop_class not in (*_SEGMENTATIONS, uids.RTStructureSetStorage):
            return None
        series = _mentioned(ds, "SeriesInstanceUID")
        if not series:
            ds = read_elements(path, (*_REFERENCES, *_FURTHER))
        instances = _mentioned(ds, "ReferencedSOPInstanceUID")
        references = _mentioned(ds, "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
    except PYDICOM_ERRORS as error:
        raise ScanError(f"{path.name}: damaged DICOM ({type(error).__name__})") from error
    is_seg = sop_class in _SEGMENTATIONS
    names = read_segment_names(path).values() if is_seg else read_roi_names(path)
    return LabelObject(path, tuple(dict.fromkeys(names)), series, instances, references)


def read_structures(path: Path, like: Volume, names: Sequence[str]) -> Volume:
    """Read some structures of a SEG or RTSTRUCT as a label map on the grid of their scan.

    Args:
        path: The file.
        like: The scan it was drawn on.
        names: Of the structures to read; they become 1, 2, … in this order. Others are left
            out, whatever they overlap.

    Returns:
        Unsigned integers, shape ``(1, i, j, k)``.

    Raises:
        ScanError: If the file is damaged, or the structures overlap.
        GeometryError: If it does not lie on the scan.
    """
    if str(read_elements(path, ("SOPClassUID",)).get("SOPClassUID")) not in _SEGMENTATIONS:
        return read_rtstruct(path, like, names)
    found = read_dicom_seg(path, like, names)
    place = {name: value for value, name in enumerate(names, start=1)}
    numbered: dict[int, str] = found.header
    table = np.zeros(max(numbered, default=0) + 1, np.min_scalar_type(len(names)))
    for number, name in numbered.items():
        table[number] = place[name]
    return found.with_array(table[found.array])


def hash_patient(path: Path) -> str:
    """Return what is the same for all files of one patient and says nothing of who it is.

    Returns:
        A hash of the Patient ID and its issuer, of the study where there is none, or nothing.
    """
    try:
        ds = read_elements(path, ("PatientID", "IssuerOfPatientID", "StudyInstanceUID"))
        patient = str(ds.get("PatientID") or "").strip()
        told = f"{ds.get('IssuerOfPatientID') or ''}\n{patient}" if patient else ""
        told = told or parse_uid(ds.get("StudyInstanceUID"))
    except (*PYDICOM_ERRORS, ScanError):
        return ""  # reading the series says what is wrong with it
    return f"patient-{hashlib.sha256(told.encode()).hexdigest()[:12]}" if told else ""


def _mentioned(ds: Dataset, *keywords: str) -> frozenset[str]:
    """Return the valid UIDs under some keywords, at any depth."""
    found = (parse_uid(one.value) for one in ds.iterall() if one.keyword in keywords)
    return frozenset(uid for uid in found if uid)
