"""Label maps → DICOM Segmentation objects (SEG), written with highdicom.

Every frame refers to the slice it was drawn on and lies exactly there, so a tilted or oblique
series needs no resampling. Segment numbers are label indices: all labels are described, those
that are absent from a scan have no frames.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from medseg._support.files import atomic_file
from medseg.errors import OutputError
from medseg.io.dicom.codes import get_property_category, get_property_type
from medseg.io.dicom.references import (
    UTF_8,
    DicomSource,
    add_patient_and_times,
    derive_uid,
    fit_text,
    hash_object,
    make_label_text,
    prepare_labels,
    read_source,
)
from medseg.io.dicom.volume import Slices
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

Labels = npt.NDArray[Any]
Kind = Literal["binary", "labelmap"]

SERIES_NUMBER = 901
"""Behind the scanner's own series in a viewer's list."""

_STAND_IN = "2.25."
_FEWEST_PIXELS = 8
"""highdicom packs smaller frames wrongly: each into a byte of its own."""


def write_dicom_seg(
    path: Path,
    labels: Labels,
    like: Volume,
    label_set: LabelSet,
    *,
    version: str,
    kind: Kind = "binary",
    algorithm: str = "medseg",
    corrected: bool = False,
    series_description: str = "Segmentation",
    created: datetime | None = None,
) -> None:
    """Write a label map as a DICOM SEG on the slices of its scan, whole or not at all.

    The same labels of the same scan give the same UIDs, so that an archive knows an object it
    already has; with the same ``created`` also the same bytes. The file names the patient.
    A label map without any label gets one empty frame per segment, on the first slice: a scan
    in which nothing was found is a result too.

    Args:
        path: The file to write.
        labels: Integers, 0 is background, shape ``(i, j, k)``.
        like: The DICOM scan; its files are read again.
        label_set: What the indices mean.
        version: Version of the algorithm.
        kind: ``binary``, one frame per label and slice, which every viewer reads; or
            ``labelmap``, one RLE-compressed frame per slice, far smaller with many labels.
        algorithm: Name of the algorithm.
        corrected: Whether a person has corrected what the algorithm proposed.
        series_description: What viewers list the series as.
        created: When the result was made; now unless given.

    Raises:
        OutputError: If the scan is no DICOM scan or lacks a UID, its files have changed, the
            labels do not fit it, or the file cannot be written.
    """
    labels = prepare_labels(labels, like, label_set)
    source = read_source(like)
    by_hand = ("corrected",) * corrected
    facts = (kind, tuple(label_set), algorithm, version, series_description, *by_hand)
    identity = hash_object(source, labels, "SEG", *facts)
    planes = np.ascontiguousarray(labels.transpose(2, 1, 0))
    used = source.slices if planes.any() else source.slices[:1]
    seg = _segmentation(
        planes[: len(used)],
        _stand_ins(source, like)[: len(used)],
        [_segment(label, algorithm, version, corrected) for label in label_set],
        kind,
        _names(identity, algorithm, version, series_description),
        like.source,
    )
    if kind == "labelmap":
        _compress(seg)
    _refer(seg, source)
    _name_dimensions(seg, derive_uid(identity, "dimensions"))
    created = created or datetime.now()  # noqa: DTZ005 (DICOM's times are local)
    add_patient_and_times(seg, source, created, ("Content",))
    for equipment in seg.ContributingEquipmentSequence:
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f")
    with atomic_file(path) as temporary:
        seg.save_as(temporary, enforce_file_format=True)


def _segmentation(
    planes: Labels,
    stand_ins: list[Dataset],
    segments: list[Any],
    kind: Kind,
    names: dict[str, Any],
    scan: str,
) -> Any:
    from highdicom.seg import Segmentation, SegmentationTypeValues

    if planes[0].size < _FEWEST_PIXELS:
        raise OutputError(
            f"{scan}: slices of {planes[0].size} pixels are too small for a DICOM SEG"
        )
    try:
        return Segmentation(
            source_images=stand_ins,
            pixel_array=planes,
            segmentation_type=SegmentationTypeValues(kind.upper()),
            segment_descriptions=segments,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            content_label="SEGMENTATION",
            omit_empty_frames=bool(planes.any()),
            specific_character_set=UTF_8,
            **names,
        )
    except (ValueError, OverflowError) as error:
        raise OutputError(
            f"{scan}: highdicom cannot make a DICOM SEG on this scan ({type(error).__name__}); "
            "write NIfTI"
        ) from error


def _compress(seg: Any) -> None:
    # Not left to highdicom, which may choose GDCM: its encoder aborts the process on frames of
    # odd sizes.
    seg.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def _names(
    identity: bytes, algorithm: str, version: str, series_description: str
) -> dict[str, Any]:
    return {
        "series_instance_uid": derive_uid(identity, "series"),
        "series_number": SERIES_NUMBER,
        "sop_instance_uid": derive_uid(identity, "instance"),
        "instance_number": 1,
        "manufacturer": "medseg",
        "manufacturer_model_name": fit_text(algorithm),
        "software_versions": fit_text(version),
        "device_serial_number": "0",
        "series_description": fit_text(series_description),
    }


def _segment(label: Label, algorithm: str, version: str, corrected: bool) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    kinds = SegmentAlgorithmTypeValues
    return SegmentDescription(
        segment_number=label.index,
        segment_label=make_label_text(label),
        segmented_property_category=get_property_category(label),
        segmented_property_type=get_property_type(label),
        algorithm_type=kinds.SEMIAUTOMATIC if corrected else kinds.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=fit_text(algorithm),
            family=codes.cid7162.ArtificialIntelligence,
            version=fit_text(version),
        ),
        display_color=CIELabColor.from_rgb(*label.colour),
    )


def _stand_ins(source: DicomSource, like: Volume) -> list[Dataset]:
    """Return a plain single-frame header per slice, named by its ``k``.

    highdicom copies geometry from such headers; real ones lack elements it needs, differ in
    digits it compares, or spread a series over several multi-frame files.
    """
    first = source.slices[0].frame
    step = np.diag([-1.0, -1.0, 1.0]) @ like.affine[:3, 2]
    gap = abs(float(step @ first.normal))
    is_uneven = isinstance(like.header, Slices) and bool(like.header.planes)
    orientation = [_digits(x) for x in first.orientation.ravel()]
    made = []
    for k, one in enumerate(source.slices, start=1):
        ds = Dataset()
        ds.update(source.compression)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{_STAND_IN}{k}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = source.study, source.series
        ds.FrameOfReferenceUID = source.frame_of_reference
        ds.Rows, ds.Columns = first.rows, first.columns
        ds.ImagePositionPatient = [_digits(x) for x in one.frame.position]
        ds.ImageOrientationPatient = orientation
        ds.PixelSpacing = [_digits(x) for x in first.spacing]
        ds.SliceThickness = _digits(first.thickness or gap)
        if not is_uneven:
            ds.SpacingBetweenSlices = _digits(gap)
        ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
        ds.AccessionNumber = ds.StudyID = ds.StudyDate = ds.StudyTime = ""
        made.append(ds)
    return made


def _digits(number: float) -> str:
    """Write a number in the 16 characters DICOM has for it."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(number)))


def _refer(seg: Dataset, source: DicomSource) -> None:
    """Let every reference to a stand-in be one to the slice it stands for."""
    seg.SourceImageSequence = source.instances()
    series = Dataset()
    series.SeriesInstanceUID = source.series
    series.ReferencedInstanceSequence = source.instances()
    seg.ReferencedSeriesSequence = [series]
    # Segments of one slice share one item.
    items = {
        id(item): item
        for group in seg.PerFrameFunctionalGroupsSequence
        for item in group.DerivationImageSequence[0].SourceImageSequence
    }
    for item in items.values():
        k = int(item.ReferencedSOPInstanceUID.removeprefix(_STAND_IN)) - 1
        item.update(source.slices[k].reference())


def _name_dimensions(seg: Dataset, uid: str) -> None:
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
