"""The header of a DICOM Segmentation object (SEG): its segments, and where its frames lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset

from medseg.errors import ScanError
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    quote_error,
    read_elements,
)
from medseg.io.dicom.frames import Frame, get_first_item, get_text, read_frames

LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage, newer than pydicom's list of names."""

_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
_BITS_PER_PIXEL = (1, 8, 16)
_BACKGROUND_CODE = ("125040", "DCM")
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "PixelPaddingValue",
    "ImageType",
    "SegmentationType",
    "MaximumFractionalValue",
    "SegmentSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True, slots=True, eq=False)
class SegHeader:
    """A SEG's header.

    Attributes:
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        frames: Position and size of each frame.
        numbers: Segment number of each frame; 0 for all in a label map.
        names: Segment number → label, background left out.
        background: Pixel values of a label map that are no segment.
        threshold: Lowest pixel value of a fractional segmentation that counts as inside.
        gap: Distance between slices in mm as the header says, or ``None``.
    """

    kind: str
    frames: tuple[Frame, ...]
    numbers: tuple[int, ...]
    names: Mapping[int, str]
    background: frozenset[int]
    threshold: float
    gap: float | None


def read_seg_header(path: Path) -> SegHeader:
    """Read the header of a SEG.

    Raises:
        ScanError: If it is damaged, or no segmentation that can be read.
        GeometryError: If the place of a frame is not certain.
    """
    try:
        ds = read_elements(path, _KEYWORDS)
        _require_segmentation(ds)
        frames = tuple(read_frames(path, ds))
        return _parse_header(ds, frames)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the segmentation is damaged, or is not DICOM",
            detail=quote_error(error),
        ) from error


def _require_segmentation(ds: FileDataset) -> None:
    sop_class = get_text(ds, "SOPClassUID")
    if sop_class not in (uids.SegmentationStorage, LABEL_MAP_CLASS):
        raise ScanError("the file is not a DICOM Segmentation (SEG) of voxels")
    kind = ds.get("SegmentationType")
    if kind not in _TYPES:
        supported = ", ".join(_TYPES)
        stated = str(kind)
        raise ScanError(
            f"segmentations of this type are not supported; {supported} are",
            detail=f"SegmentationType: {stated[:16]}",
        )
    if not ds.get("SegmentSequence"):
        raise ScanError("the segmentation describes no segments")
    bits = ds.get("BitsAllocated")
    samples = ds.get("SamplesPerPixel")
    if bits not in _BITS_PER_PIXEL or samples != 1:
        raise ScanError(
            "segmentations have 1 sample of 1, 8 or 16 bits per pixel",
            detail=f"SamplesPerPixel: {samples}, BitsAllocated: {bits}",
        )


def _parse_header(ds: FileDataset, frames: tuple[Frame, ...]) -> SegHeader:
    segments = {}
    for item in ds.SegmentSequence:
        number = int(item.SegmentNumber)
        segments[number] = item
    background = _find_background(ds, segments)
    names = {}
    for number, item in segments.items():
        is_segment = number > 0 and number not in background
        if is_segment:
            names[number] = (
                get_text(item, "SegmentLabel") or f"segment {number}"
            )
    kind = str(ds.SegmentationType)
    if kind == "LABELMAP":
        numbers = (0,) * len(frames)
    else:
        numbers = _parse_segment_numbers(ds, segments)
    highest_fraction = float(ds.get("MaximumFractionalValue") or 255)
    return SegHeader(
        kind=kind,
        frames=frames,
        numbers=numbers,
        names=names,
        background=background,
        threshold=highest_fraction / 2,
        gap=_parse_gap(ds),
    )


def _find_background(
    ds: FileDataset, segments: Mapping[int, Dataset]
) -> frozenset[int]:
    """Return the pixel values that are background: 0, padding, and segments described so."""
    values = {0}
    for number, item in segments.items():
        concept = get_first_item(item, "SegmentedPropertyTypeCodeSequence")
        value = concept.get("CodeValue")
        scheme = concept.get("CodingSchemeDesignator")
        if (value, scheme) == _BACKGROUND_CODE:
            values.add(number)
    padding = ds.get("PixelPaddingValue")
    if padding is not None:
        padding = int(padding)
        if padding not in segments:
            values.add(padding)
    return frozenset(values)


def _parse_segment_numbers(
    ds: FileDataset, segments: Mapping[int, Dataset]
) -> tuple[int, ...]:
    """Return the segment number of each frame."""
    shared = get_first_item(ds, "SharedFunctionalGroupsSequence")
    numbers = []
    for group in ds.PerFrameFunctionalGroupsSequence:
        items = group.get("SegmentIdentificationSequence")
        items = items or shared.SegmentIdentificationSequence
        identification = items[0]
        number = int(identification.ReferencedSegmentNumber)
        numbers.append(number)
    unknown = set(numbers) - set(segments)
    if unknown:
        raise ScanError(
            f"there are frames of segment {min(unknown)}, which SegmentSequence does not describe"
        )
    return tuple(numbers)


def _parse_gap(ds: FileDataset) -> float | None:
    shared = get_first_item(ds, "SharedFunctionalGroupsSequence")
    measures = get_first_item(shared, "PixelMeasuresSequence")
    gap = measures.get("SpacingBetweenSlices")
    if gap is None:
        return None
    return float(gap)
