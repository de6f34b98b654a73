"""Label maps → DICOM Segmentation objects (SEG), written with highdicom.

Every frame refers to the slice it was drawn on and lies exactly there, so a tilted or oblique
series needs no resampling. Segment numbers are label indices: all labels are described, those
that are absent from a scan have no frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from medseg._support.files import atomic_file
from medseg.dicom_labels.codes import get_property_category, get_property_type
from medseg.dicom_labels.derived_uids import derive_uid, hash_object
from medseg.dicom_labels.references import (
    UTF_8,
    DicomSource,
    add_patient_and_times,
    check_source,
    fit_text,
    make_label_text,
    prepare_labels,
    read_source,
)
from medseg.errors import OutputError
from medseg.io.dicom.files import attach_source, quote_error
from medseg.io.dicom.volume import Slices
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

Labels = npt.NDArray[Any]
Kind = Literal["binary", "labelmap"]

SERIES_NUMBER = 901
"""Behind the scanner's own series in a viewer's list."""

_PLACEHOLDER_ROOT = "2.25."
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_EMPTY_KEYWORDS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_FEWEST_PIXELS = 8
"""highdicom packs smaller frames wrongly: each into a byte of its own."""


def check_seg_source(like: Volume) -> None:
    """Make sure that a DICOM SEG can be made of a scan, before it is.

    Raises:
        OutputError: If the scan is no DICOM scan, lacks a UID, or has too small slices.
    """
    check_source(like)
    rows, columns, _ = like.shape
    pixels = rows * columns
    if pixels < _FEWEST_PIXELS:
        raise OutputError(
            f"slices of {pixels} pixels are too small for a DICOM SEG, which needs at least "
            f"{_FEWEST_PIXELS}; write NIfTI"
        )


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
    origin: str = "",
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
        origin: Where the algorithm comes from, if another software trained it.
        created: When the result was made; now unless given.

    Raises:
        OutputError: If the scan is no DICOM scan or lacks a UID, its files have changed, the
            labels do not fit it, or the file cannot be written.
    """
    labels = prepare_labels(labels, like, label_set)
    check_seg_source(like)
    source = read_source(like)
    facts: list[object] = [
        kind,
        tuple(label_set),
        algorithm,
        version,
        series_description,
    ]
    if corrected:
        facts.append("corrected")
    if origin:
        facts.append(origin)
    identity = hash_object(source, labels, "SEG", *facts)
    transposed = labels.transpose(2, 1, 0)
    planes = np.ascontiguousarray(transposed)
    placeholders = _make_placeholders(source, like)
    segments = [
        _describe_segment(label, algorithm, version, origin, corrected)
        for label in label_set
    ]
    identifiers = _make_identifiers(
        identity, algorithm, version, series_description
    )
    if not planes.any():
        # One empty frame for each segment says that nothing was found.
        planes = planes[:1]
        placeholders = placeholders[:1]
    with attach_source(Path(like.source)):
        seg = _make_segmentation(
            planes, placeholders, segments, kind, identifiers
        )
    if kind == "labelmap":
        _compress(seg)
    _refer_to_source(seg, source)
    dimensions_uid = derive_uid(identity, "dimensions")
    _set_dimension_uid(seg, dimensions_uid)
    created = created or datetime.now()  # noqa: DTZ005 (DICOM's times are local)
    add_patient_and_times(seg, source, created, ("Content",))
    for equipment in seg.ContributingEquipmentSequence:
        equipment.ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f")
    with atomic_file(path) as temporary:
        seg.save_as(temporary, enforce_file_format=True)


def _make_segmentation(
    planes: Labels,
    placeholders: list[Dataset],
    segments: list[Any],
    kind: Kind,
    identifiers: dict[str, Any],
) -> Any:
    """Return highdicom's object.

    Args:
        planes: The label map, shape ``(slices, rows, columns)``.
        placeholders: A header per slice.
        segments: The description of each label.
        kind: As for ``write_dicom_seg``.
        identifiers: As ``_make_identifiers`` returns them.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues

    try:
        return Segmentation(
            source_images=placeholders,
            pixel_array=planes,
            segmentation_type=SegmentationTypeValues(kind.upper()),
            segment_descriptions=segments,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            content_label="SEGMENTATION",
            omit_empty_frames=bool(planes.any()),
            specific_character_set=UTF_8,
            **identifiers,
        )
    except (ValueError, OverflowError) as error:
        raise OutputError(
            "highdicom cannot make a DICOM SEG on this scan; write NIfTI",
            detail=quote_error(error),
        ) from error


def _compress(seg: Any) -> None:
    # Not left to highdicom, which may choose GDCM: its encoder aborts the process on frames of
    # odd sizes.
    seg.compress(
        RLELossless, encoding_plugin="pydicom", generate_instance_uid=False
    )


def _make_identifiers(
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


def _describe_segment(
    label: Label, algorithm: str, version: str, origin: str, corrected: bool
) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm_type = SegmentAlgorithmTypeValues.AUTOMATIC
    if corrected:
        algorithm_type = SegmentAlgorithmTypeValues.SEMIAUTOMATIC
    identification = AlgorithmIdentificationSequence(
        name=fit_text(algorithm),
        family=codes.cid7162.ArtificialIntelligence,
        version=fit_text(version),
        source=fit_text(origin) or None,
        parameters={"origin": origin} if origin else None,
    )
    return SegmentDescription(
        segment_number=label.index,
        segment_label=make_label_text(label),
        segmented_property_category=get_property_category(label),
        segmented_property_type=get_property_type(label),
        algorithm_type=algorithm_type,
        algorithm_identification=identification,
        display_color=CIELabColor.from_rgb(*label.colour),
    )


def _make_placeholders(source: DicomSource, like: Volume) -> list[Dataset]:
    """Return a plain single-frame header per slice, named by its ``k``.

    highdicom copies geometry from such headers; real ones lack elements it needs, differ in
    digits it compares, or spread a series over several multi-frame files.
    """
    common = _make_common_header(source, like)
    placeholders = []
    for k, source_slice in enumerate(source.slices, start=1):
        position = source_slice.frame.position
        ds = Dataset()
        ds.update(common)
        ds.SOPInstanceUID = f"{_PLACEHOLDER_ROOT}{k}"
        ds.ImagePositionPatient = _format_numbers(position)
        placeholders.append(ds)
    return placeholders


def _make_common_header(source: DicomSource, like: Volume) -> Dataset:
    """Return what the headers of all slices say."""
    first = source.slices[0].frame
    slice_step = _RAS_TO_LPS @ like.affine[:, 2]
    # Along the normal, so that a tilted gantry's shear does not count.
    distance = slice_step[:3] @ first.normal
    gap = abs(float(distance))
    orientation = first.orientation.ravel()
    thickness = first.thickness or gap
    ds = Dataset()
    ds.update(source.compression)
    ds.SOPClassUID = CTImageStorage
    ds.StudyInstanceUID = source.study
    ds.SeriesInstanceUID = source.series
    ds.FrameOfReferenceUID = source.frame_of_reference
    ds.Rows = first.rows
    ds.Columns = first.columns
    ds.ImageOrientationPatient = _format_numbers(orientation)
    ds.PixelSpacing = _format_numbers(first.spacing)
    ds.SliceThickness = _format_number(thickness)
    is_uneven = isinstance(like.header, Slices) and like.header.planes
    if not is_uneven:
        ds.SpacingBetweenSlices = _format_number(gap)
    for keyword in _EMPTY_KEYWORDS:
        setattr(ds, keyword, "")
    return ds


def _format_numbers(numbers: Iterable[float]) -> list[str]:
    return [_format_number(number) for number in numbers]


def _format_number(number: float) -> str:
    """Write a number in the 16 characters DICOM has for it."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(number)))


def _refer_to_source(seg: Dataset, source: DicomSource) -> None:
    """Let every reference to a placeholder refer to the slice it stands for."""
    seg.SourceImageSequence = source.make_references()
    series = Dataset()
    series.SeriesInstanceUID = source.series
    series.ReferencedInstanceSequence = source.make_references()
    seg.ReferencedSeriesSequence = [series]
    # Segments of one slice share one item, which must be changed once.
    items: dict[int, Dataset] = {}
    for group in seg.PerFrameFunctionalGroupsSequence:
        derivation = group.DerivationImageSequence[0]
        for item in derivation.SourceImageSequence:
            items[id(item)] = item
    for item in items.values():
        placeholder_uid = item.ReferencedSOPInstanceUID
        number = int(placeholder_uid.removeprefix(_PLACEHOLDER_ROOT))
        source_slice = source.slices[number - 1]
        reference = source_slice.make_reference()
        item.update(reference)


def _set_dimension_uid(seg: Dataset, uid: str) -> None:
    organizations = seg.DimensionOrganizationSequence
    indices = seg.DimensionIndexSequence
    for item in (*organizations, *indices):
        item.DimensionOrganizationUID = uid
