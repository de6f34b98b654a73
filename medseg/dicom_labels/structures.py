"""DICOM objects that hold labels (SEG and RTSTRUCT): what they were drawn on, what they call it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset

from medseg.dicom_labels.rois import read_rois
from medseg.dicom_labels.rtstruct_reader import read_rtstruct
from medseg.dicom_labels.seg_header import LABEL_MAP_CLASS
from medseg.dicom_labels.seg_reader import (
    read_dicom_seg,
    read_segment_names,
)
from medseg.errors import ScanError
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    attach_source,
    quote_error,
    read_elements,
)
from medseg.io.dicom.frames import get_text, get_uid, parse_uid
from medseg.volume import Volume

_SEG_CLASSES = (uids.SegmentationStorage, LABEL_MAP_CLASS)
_LABEL_CLASSES = (*_SEG_CLASSES, uids.RTStructureSetStorage)
_REFERENCE_KEYWORDS = (
    "SOPClassUID",
    "FrameOfReferenceUID",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
)
# Long, and needed only where an object names no series.
_FURTHER_KEYWORDS = (
    "SourceImageSequence",
    "PerFrameFunctionalGroupsSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
)

_Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelObject:
    """One file of labels.

    Attributes:
        file: The file.
        names: Of its segments, or of its structures that are areas.
        lines: Names of its structures that are drawn as points and open lines alone.
        series: Series Instance UIDs that it refers to.
        instances: SOP Instance UIDs that it refers to.
        frames_of_reference: Frame of Reference UIDs that it was drawn in.
    """

    file: Path
    names: tuple[str, ...]
    lines: tuple[str, ...]
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
        with attach_source(path):
            ds: Dataset = read_elements(path, _REFERENCE_KEYWORDS)
            sop_class = get_text(ds, "SOPClassUID")
            if sop_class not in _LABEL_CLASSES:
                return None
            series = _collect_uids(ds, "SeriesInstanceUID")
            if not series:
                keywords = (*_REFERENCE_KEYWORDS, *_FURTHER_KEYWORDS)
                ds = read_elements(path, keywords)
        instances = _collect_uids(ds, "ReferencedSOPInstanceUID")
        frames_of_reference = _collect_uids(
            ds, "FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"
        )
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the DICOM file is damaged", source=path, detail=quote_error(error)
        ) from error
    names, lines = _read_names(path, sop_class)
    return LabelObject(
        path, names, lines, series, instances, frames_of_reference
    )


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
    ds = read_elements(path, ("SOPClassUID",))
    sop_class = get_text(ds, "SOPClassUID")
    if sop_class not in _SEG_CLASSES:
        return read_rtstruct(path, like, names)
    segmentation = read_dicom_seg(path, like, names)
    return _renumber(segmentation, names)


def hash_patient(path: Path) -> str:
    """Return what is the same for all files of one patient and says nothing of who it is.

    Returns:
        A hash of the Patient ID and its issuer, of the study where there is none, or nothing.
    """
    try:
        ds = read_elements(
            path, ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
        )
        patient = get_text(ds, "PatientID").strip()
        issuer = ds.get("IssuerOfPatientID") or ""
        study = get_uid(ds, "StudyInstanceUID")
    except (*PYDICOM_ERRORS, ScanError):
        return ""  # reading the series says what is wrong with it
    identity = study
    if patient:
        identity = f"{issuer}\n{patient}"
    if not identity:
        return ""
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return f"patient-{digest[:12]}"


def _renumber(segmentation: Volume, names: Sequence[str]) -> Volume:
    """Return a segmentation whose voxel values count in ``names``, from 1."""
    values = {name: value for value, name in enumerate(names, start=1)}
    segment_names: dict[int, str] = segmentation.header
    highest = max(segment_names, default=0)
    count = len(names)
    dtype = np.min_scalar_type(count)
    # Segment number → value.
    table = np.zeros(highest + 1, dtype)
    for number, name in segment_names.items():
        table[number] = values[name]
    array = table[segmentation.array]
    return segmentation.with_array(array)


def _read_names(path: Path, sop_class: str) -> tuple[_Names, _Names]:
    """Return the names of areas and of lines, each once, in the file's order."""
    if sop_class in _SEG_CLASSES:
        segment_names = read_segment_names(path)
        names = dict.fromkeys(segment_names.values())
        return tuple(names), ()
    areas: dict[str, None] = {}
    lines: dict[str, None] = {}
    for roi in read_rois(path):
        kind = lines if roi.has_only_lines else areas
        kind[roi.name] = None
    return tuple(areas), tuple(lines)


def _collect_uids(ds: Dataset, *keywords: str) -> frozenset[str]:
    """Return the valid UIDs under some keywords, at any depth."""
    collected = set()
    for element in ds.iterall():
        if element.keyword in keywords:
            uid = parse_uid(element.value)
            collected.add(uid)
    collected.discard("")
    return frozenset(collected)
