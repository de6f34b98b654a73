"""The frames of one DICOM file: each slice's position, size and scaling, as its header states.

Source of the equations: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import RE_VALID_UID

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.fast_header import Elements
from medseg.io.dicom.files import PYDICOM_ERRORS
from medseg.io.dicom.pixel_format import PixelFormat, parse_pixel_format
from medseg.io.dicom.storage import DicomHeader, Storage, get_storage
from medseg.io.voxels import LARGEST_MM

Vector = npt.NDArray[np.float64]
AnyDataset: TypeAlias = Elements | Dataset

SPLIT_KEYWORDS = (
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "AcquisitionNumber",
    "TriggerTime",
    "FrameReferenceTime",
    "AcquisitionTime",
)
"""Elements whose values split a series into volumes, the most meaningful first."""

_ENHANCED_SPLIT_KEYWORDS = (
    "EffectiveEchoTime",
    "TemporalPositionIndex",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "FrameType",
    "FrameAcquisitionNumber",
    "NominalCardiacTriggerDelayTime",
)
_UNIT_LENGTH_TOLERANCE = 1e-3
_MAX_DIMENSIONS = 8
_LONGEST_UID = 64
_LONGEST_VALUE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One slice's position, size and scaling, as its header states them.

    Attributes:
        file: The file it lies in.
        index: Which frame of the file, from 0.
        sop_uid: SOP Instance UID of the file.
        position: Centre of its first pixel, LPS mm.
        orientation: Unit vectors along its rows and its columns, shape ``(2, 3)``, LPS.
        spacing: mm between rows, mm between columns (DICOM's order).
        rows: Pixels along a column.
        columns: Pixels along a row.
        thickness: Slice thickness in mm, or ``None``.
        slope: Stored value → intensity, with ``intercept``.
        intercept: Intensity of stored 0.
        pixel_format: Where the stored value lies in a pixel's bits, and which is padding.
        instance_number: Of its file, or ``None``; frames of one file have none of their own.
        split_values: What may tell it from a frame of another volume at the same position, by
            keyword.
        frame_of_reference: Frame of Reference UID, or empty.
        storage: How its pixels lie in the file.
        file_bytes: What all pixels of the file take, uncompressed.
    """

    file: Path
    index: int
    sop_uid: str
    position: Vector
    orientation: Vector
    spacing: tuple[float, float]
    rows: int
    columns: int
    thickness: float | None
    slope: float
    intercept: float
    pixel_format: PixelFormat
    instance_number: int | None
    split_values: Mapping[str, str] = field(repr=False)
    frame_of_reference: str
    storage: Storage
    file_bytes: int

    @property
    def normal(self) -> Vector:
        """Unit vector across the slice, LPS."""
        along_row, along_column = self.orientation
        return np.cross(along_row, along_column)

    @property
    def column_step(self) -> Vector:
        """From a pixel to the next one in its row (along ``i``), LPS mm."""
        _, between_columns = self.spacing
        along_row = self.orientation[0]
        step: Vector = along_row * between_columns
        return step

    @property
    def row_step(self) -> Vector:
        """From a pixel to the next one in its column (along ``j``), LPS mm."""
        between_rows, _ = self.spacing
        along_column = self.orientation[1]
        step: Vector = along_column * between_rows
        return step

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.rows * self.columns

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """The ``(i, j)`` of its corner pixels."""
        last_i = self.columns - 1
        last_j = self.rows - 1
        return (0, 0), (0, last_j), (last_i, 0), (last_i, last_j)

    def locate(self, i: float, j: float) -> Vector:
        """Return where a pixel's centre lies, LPS mm."""
        along_row = self.column_step * i
        along_column = self.row_step * j
        return self.position + along_row + along_column


Frames = Sequence[Frame]
Items: TypeAlias = Sequence[AnyDataset]
"""The functional groups that a frame's values stand in; a classic file's whole header."""


def read_frames(path: Path, ds: DicomHeader) -> Iterator[Frame]:
    """Give the frames of a file, in the order in which it stores them.

    Raises:
        GeometryError: If a frame has no certain position in the patient.
        ScanError: If its values are broken.
    """
    count = get_integer(ds, "NumberOfFrames", 1)
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if count > 1:
            raise GeometryError(
                f"the file has {count} frames, but no PerFrameFunctionalGroupsSequence that says "
                "where they lie"
            )
        split_values = _get_split_values(ds)
        yield _build_frame(path, 0, 1, ds, [ds], split_values)
        return
    if len(groups) != count:
        raise GeometryError(
            f"the file has {count} frames, but positions for {len(groups)}"
        )
    shared = get_first_item(ds, "SharedFunctionalGroupsSequence")
    shared_items = list(_iterate_items(shared))
    for index, group in enumerate(groups):
        own_items = _iterate_items(group)
        items = [*own_items, *shared_items]
        split_values = _get_enhanced_split_values(items)
        yield _build_frame(path, index, count, ds, items, split_values)


def parse_uid(value: Any) -> str:
    """Return a UID that is safe to put in a path, or nothing."""
    text = str(value or "")
    # Not UID(text).is_valid, which checks twice; a folder has thousands.
    if len(text) > _LONGEST_UID or not re.match(RE_VALID_UID, text):
        return ""
    return text


def get_uid(ds: AnyDataset, keyword: str) -> str:
    """Return a UID that is safe to put in a path, empty if it is absent or not valid."""
    value = ds.get(keyword)
    return parse_uid(value)


def get_text(ds: AnyDataset, keyword: str) -> str:
    """Return a value as text, empty if it is absent."""
    value = ds.get(keyword)
    return str(value or "")


def get_integer(ds: AnyDataset, keyword: str, default: int) -> int:
    """Return a whole number, ``default`` if it is absent, empty or 0."""
    value = ds.get(keyword)
    return int(value or default)


def get_image_type(ds: AnyDataset) -> list[str]:
    """Return the values of Image Type, none if it is absent."""
    values = ds.get("ImageType") or []
    if isinstance(values, str):
        return [values]
    return [str(value) for value in values]


def get_first_item(ds: AnyDataset, keyword: str) -> Dataset:
    """Return the first item of a sequence; an empty one if there is none."""
    items: Sequence[Dataset] | None = ds.get(keyword)
    if items:
        return items[0]
    return Dataset()


def _iterate_items(group: Dataset) -> Iterator[Dataset]:
    """Give the single item of each functional group."""
    for element in group:
        is_sequence = element.VR == "SQ"
        if is_sequence and element.value:
            yield element.value[0]


def _get_first(items: Items, keyword: str) -> Any:
    """Return the first value that is not empty."""
    for item in items:
        value = item.get(keyword)
        if value is not None and value != "":
            return value
    return None


def _build_frame(
    path: Path,
    index: int,
    count: int,
    ds: DicomHeader,
    items: Items,
    split_values: dict[str, str],
) -> Frame:
    """Return a frame.

    Args:
        path: The file.
        index: Which frame of it.
        count: How many it holds.
        ds: The file's header.
        items: Where the frame's own values may stand, the first that has one counts.
        split_values: As in ``Frame``.
    """
    position = _parse_numbers(items, "ImagePositionPatient", 3)
    orientation = _parse_numbers(items, "ImageOrientationPatient", 6)
    between_rows, between_columns = _parse_numbers(items, "PixelSpacing", 2)
    if min(between_rows, between_columns) <= 0:
        raise GeometryError(
            f"PixelSpacing is {between_rows:g} and {between_columns:g} mm; both must be positive"
        )
    rows = int(ds.get("Rows"))
    columns = int(ds.get("Columns"))
    bits_per_pixel = int(ds.get("BitsAllocated"))
    frame_bytes = rows * columns * bits_per_pixel // 8
    pixel_format = parse_pixel_format(ds, bits_per_pixel)
    slope = _parse_number(items, "RescaleSlope", 1.0)
    intercept = _parse_number(items, "RescaleIntercept", 0.0)
    pixel_format.require_scaling(slope, intercept)
    return Frame(
        file=path,
        index=index,
        sop_uid=get_uid(ds, "SOPInstanceUID"),
        position=np.array(position),
        orientation=_make_orientation(orientation),
        spacing=(between_rows, between_columns),
        rows=rows,
        columns=columns,
        thickness=_parse_thickness(items),
        slope=slope,
        intercept=intercept,
        pixel_format=pixel_format,
        instance_number=_get_instance_number(ds) if count == 1 else None,
        split_values=split_values,
        frame_of_reference=get_uid(ds, "FrameOfReferenceUID"),
        storage=get_storage(ds),
        file_bytes=frame_bytes * count,
    )


def _get_instance_number(ds: DicomHeader) -> int | None:
    # Nothing depends on it unless somebody asks for it, so a broken one is none.
    try:
        return int(ds.get("InstanceNumber"))
    except PYDICOM_ERRORS:
        return None


def _parse_numbers(items: Items, keyword: str, count: int) -> tuple[float, ...]:
    values = _get_first(items, keyword)
    if values is None:
        raise GeometryError(
            f"{keyword} is missing, so the position in the patient is not known"
        )
    numbers = [float(value) for value in values]
    are_plausible = all(abs(number) <= LARGEST_MM for number in numbers)
    if len(numbers) != count or not are_plausible:
        raise GeometryError(f"{keyword} must hold {count} plausible numbers")
    return tuple(numbers)


def _parse_thickness(items: Items) -> float | None:
    thickness = _get_first(items, "SliceThickness")
    if thickness is None:
        return None
    return float(thickness)


def _parse_number(items: Items, keyword: str, default: float) -> float:
    value = _get_first(items, keyword)
    if value is None:
        return default
    number = float(value)
    if not math.isfinite(number):
        raise ScanError(f"{keyword} is {number}; a finite number is needed")
    return number


@lru_cache(maxsize=256)
def _make_orientation(numbers: tuple[float, ...]) -> Vector:
    orientation = np.array(numbers)
    orientation = orientation.reshape(2, 3)
    # Of two unit vectors at a right angle, the products with themselves are 1, with the other 0.
    products = orientation @ orientation.T
    errors = np.abs(products - np.eye(2))
    if errors.max() > _UNIT_LENGTH_TOLERANCE:
        raise GeometryError(
            "ImageOrientationPatient must be two unit vectors at a right angle"
        )
    orientation.setflags(write=False)  # frames share it
    return orientation


def _get_split_values(ds: AnyDataset) -> dict[str, str]:
    values = {}
    for keyword in SPLIT_KEYWORDS:
        value = ds.get(keyword)
        values[keyword] = _to_text(value)
    # The first two values of Image Type say only whether the pixels are original and primary.
    further_types = get_image_type(ds)[2:]
    values["ImageType"] = "\\".join(further_types)
    return values


def _get_enhanced_split_values(items: list[Dataset]) -> dict[str, str]:
    values = {}
    for keyword in _ENHANCED_SPLIT_KEYWORDS:
        value = _get_first(items, keyword)
        values[keyword] = _to_text(value)
    indices = _get_first(items, "DimensionIndexValues")
    if indices is None:
        return values
    # A single index stands there without a list around it.
    numbers = np.atleast_1d(np.asarray(indices))
    first_numbers = numbers[:_MAX_DIMENSIONS].tolist()
    for dimension, number in enumerate(first_numbers, start=1):
        values[f"dimension {dimension}"] = str(number)
    return values


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    return text[:_LONGEST_VALUE]
