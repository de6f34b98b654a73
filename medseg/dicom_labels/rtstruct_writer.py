"""Label maps → DICOM RT Structure Sets (RTSTRUCT), written with pydicom.

Every polygon lies in the plane of the slice it was drawn on, by that slice's own position and
directions, so pixels may be oblong and series oblique or tilted. Holes are joined to their outline
by a keyhole: there is nothing to subtract.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from scipy.ndimage import find_objects

from medseg._support.files import atomic_file
from medseg.dicom_labels.codes import get_property_type, is_lesion
from medseg.dicom_labels.contours import Points, trace_outlines
from medseg.dicom_labels.derived_uids import derive_uid, hash_object
from medseg.dicom_labels.references import (
    DicomSource,
    SourceSlice,
    add_patient_and_times,
    fit_text,
    make_instance_reference,
    make_label_text,
    prepare_labels,
    read_source,
)
from medseg.dicom_labels.seg_writer import SERIES_NUMBER
from medseg.io.dicom.frames import Frame
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

Labels = npt.NDArray[Any]
Box = tuple[slice, slice, slice]

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management: retired, and yet what this reference must name (PS3.3 C.8.8.5)."""
_LABEL_LENGTH = 16


def write_rtstruct(
    path: Path,
    labels: Labels,
    like: Volume,
    label_set: LabelSet,
    *,
    version: str,
    algorithm: str = "medseg",
    series_description: str = "Contours",
    created: datetime | None = None,
) -> None:
    """Write a label map as an RTSTRUCT on the slices of its scan, whole or not at all.

    Whoever fills the contours by asking which pixel centres lie inside gets the label map back,
    voxel for voxel. The same labels of the same scan give the same UIDs; with the same
    ``created`` also the same bytes. The file names the patient. Labels that are absent from the
    scan are listed without contours.

    Args:
        path: The file to write.
        labels: Integers, 0 is background, shape ``(i, j, k)``.
        like: The DICOM scan; its files are read again.
        label_set: What the indices mean; the ROI numbers are the indices.
        version: Version of the algorithm.
        algorithm: Name of the algorithm.
        series_description: What viewers list the series as.
        created: When the result was made; now unless given.

    Raises:
        OutputError: If the scan is no DICOM scan or lacks a UID, its files have changed, the
            labels do not fit it, or the file cannot be written.
    """
    labels = prepare_labels(labels, like, label_set)
    source = read_source(like)
    facts = (tuple(label_set), algorithm, version, series_description)
    identity = hash_object(source, labels, "RTSTRUCT", *facts)
    instance_uid = derive_uid(identity, "instance")
    series_uid = derive_uid(identity, "series")
    ds = _make_structure_set(instance_uid, series_uid)
    ds.SeriesDescription = fit_text(series_description)
    ds.ManufacturerModelName = fit_text(algorithm)
    ds.SoftwareVersions = fit_text(version)
    ds.StructureSetLabel = fit_text(algorithm)[:_LABEL_LENGTH]
    created = created or datetime.now()  # noqa: DTZ005 (DICOM's times are local)
    add_patient_and_times(ds, source, created, ("StructureSet",))
    ds.FrameOfReferenceUID = source.frame_of_reference
    ds.PositionReferenceIndicator = ""
    references = _make_references(source)
    rois = [_make_roi(label, source, algorithm) for label in label_set]
    observations = [_make_observation(label) for label in label_set]
    ds.ReferencedFrameOfReferenceSequence = [references]
    ds.StructureSetROISequence = rois
    ds.ROIContourSequence = _make_roi_contours(labels, label_set, source)
    ds.RTROIObservationsSequence = observations
    with atomic_file(path) as temporary:
        ds.save_as(temporary, enforce_file_format=True)


def _make_structure_set(instance: str, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uids.RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = instance
    # Contours of more than 64 KiB have no room for their length in the explicit syntaxes.
    meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = uids.RTStructureSetStorage
    ds.SOPInstanceUID = instance
    ds.SeriesInstanceUID = series
    ds.SeriesNumber = SERIES_NUMBER + 1
    ds.InstanceNumber = 1
    ds.Modality = "RTSTRUCT"
    ds.Manufacturer = "medseg"
    ds.OperatorsName = ""
    ds.ApprovalStatus = "UNAPPROVED"
    return ds


def _make_references(source: DicomSource) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.series
    series.ContourImageSequence = source.make_references()
    study = make_instance_reference(_STUDY_CLASS, source.study)
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = source.frame_of_reference
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _make_roi(label: Label, source: DicomSource, algorithm: str) -> Dataset:
    item = Dataset()
    item.ROINumber = label.index
    item.ReferencedFrameOfReferenceUID = source.frame_of_reference
    item.ROIName = make_label_text(label)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = fit_text(algorithm)
    return item


def _make_observation(label: Label) -> Dataset:
    item = Dataset()
    item.ObservationNumber = label.index
    item.ReferencedROINumber = label.index
    item.RTROIInterpretedType = _get_interpreted_type(label)
    item.ROIInterpreter = ""
    if label.code is not None:
        property_type = get_property_type(label)
        item.RTROIIdentificationCodeSequence = [_encode(property_type)]
    return item


def _get_interpreted_type(label: Label) -> str:
    # Whether a lesion is a target (GTV, CTV) is for a physician to say.
    if is_lesion(label):
        return ""
    return "ORGAN"


def _encode(code: Code) -> Dataset:
    from highdicom.sr import CodedConcept

    concept = CodedConcept.from_code(code)
    return Dataset(concept)


def _make_roi_contours(
    labels: Labels, label_set: LabelSet, source: DicomSource
) -> list[Dataset]:
    """Return the contours of every label, those that are absent from the scan without any."""
    labels = np.asfortranarray(labels)  # slices are gone through one by one
    boxes = find_objects(labels, len(label_set))
    items = []
    for label, box in zip(label_set, boxes, strict=True):
        index = label.index
        item = Dataset()
        item.ROIDisplayColor = list(label.colour)
        item.ReferencedROINumber = index
        if box is not None:
            item.ContourSequence = _make_contours(index, labels, box, source)
        items.append(item)
    return items


def _make_contours(
    index: int, labels: Labels, box: Box, source: DicomSource
) -> list[Dataset]:
    """Return the contours of one label, all of whose voxels lie in a box."""
    i_range, j_range, k_range = box
    corner = (i_range.start, j_range.start)
    contours: list[Dataset] = []
    for k in range(k_range.start, k_range.stop):
        source_slice = source.slices[k]
        mask = labels[i_range, j_range, k] == index
        for outline in trace_outlines(mask):
            number = len(contours) + 1
            contour = _make_contour(outline + corner, source_slice, number)
            contours.append(contour)
    return contours


def _make_contour(
    outline: Points, source_slice: SourceSlice, number: int
) -> Dataset:
    points = _locate_in_patient(outline, source_slice.frame)
    coordinates = points.ravel()
    item = Dataset()
    item.ContourImageSequence = [source_slice.make_reference()]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(outline)
    item.ContourData = [f"{coordinate:.5f}" for coordinate in coordinates]
    item.ContourNumber = number
    return item


def _locate_in_patient(outline: Points, frame: Frame) -> Points:
    """Return points of a slice's pixels, LPS mm (DICOM PS3.3 C.7.6.2.1.1)."""
    between_rows, between_columns = frame.spacing
    in_mm = outline * (between_columns, between_rows)
    offsets = in_mm @ frame.orientation
    points: Points = frame.position + offsets
    return points
