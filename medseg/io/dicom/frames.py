"""The frames of one DICOM file: each slice's place, size and scaling, as its header states them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RE_VALID_UID, UID

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.fast_header import Elements
from medseg.io.voxels import LARGEST_MM

Vector = npt.NDArray[np.float64]
Storage = Literal["plain", "deflated", "encoded"]

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
"""Elements that tell the volumes of one series apart, the most meaningful first."""
_UNIT_LENGTH = 1e-3
_MOST_DIMENSIONS = 8
_LONGEST_UID = 64


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One slice's place, size and scaling, as its header states them.

    Attributes:
        file: The file it lies in.
        number: Which frame of the file, from 0.
        sop_uid: SOP Instance UID of the file.
        position: Centre of its first pixel, LPS mm.
        orientation: Unit vectors along its rows and its columns, shape ``(2, 3)``, LPS.
        spacing: mm between rows, mm between columns (DICOM's order).
        rows: Pixels along a column.
        columns: Pixels along a row.
        thickness: Slice thickness in mm, or ``None``.
        slope: Stored value → intensity, with ``intercept``.
        intercept: Intensity of stored 0.
        telling: What may tell it from a frame of another volume at the same place.
        frame_of_reference: Frame of Reference UID, or empty.
        storage: How its pixels lie in the file.
        file_bytes: What all pixels of the file take, uncompressed.
    """

    file: Path
    number: int
    sop_uid: str
    position: Vector
    orientation: Vector
    spacing: tuple[float, float]
    rows: int
    columns: int
    thickness: float | None
    slope: float
    intercept: float
    telling: Mapping[str, str] = field(repr=False)
    frame_of_reference: str
    storage: Storage
    file_bytes: int

    @property
    def normal(self) -> Vector:
        """Unit vector across the slice, LPS."""
        return np.cross(self.orientation[0], self.orientation[1])


def read_frames(path: Path, ds: Elements | FileDataset) -> Iterator[Frame]:
    """Give the frames of a file, in the order in which it stores them.

    Raises:
        GeometryError: If a frame has no certain place in the patient.
        ScanError: If its values are broken.
    """
    count = int(ds.get("NumberOfFrames") or 1)
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if count > 1:
            raise GeometryError(f"{count} frames without a place in the patient each")
        yield _frame(path, 0, 1, ds, [ds], _classic_telling(ds))
        return
    if len(groups) != count:
        raise GeometryError(f"{count} frames, but places for {len(groups)}")
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for number, own in enumerate(groups):
        parts = [*_members(own), *_members(shared)]
        yield _frame(path, number, count, ds, parts, _enhanced_telling(parts))


def parse_uid(value: Any) -> str:
    """Return a UID that is safe to put in a path, or nothing."""
    text = str(value or "")
    # Not UID(text).is_valid, which checks twice; a folder has thousands.
    return text if len(text) <= _LONGEST_UID and re.match(RE_VALID_UID, text) else ""


def get_image_type(ds: Elements | Dataset) -> list[str]:
    """Return the values of Image Type, none if it is absent."""
    kind = ds.get("ImageType") or []
    return [kind] if isinstance(kind, str) else [str(part) for part in kind]


def _members(group: Dataset) -> Iterator[Dataset]:
    """Give the single item of each functional group."""
    for element in group:
        if element.VR == "SQ" and element.value:
            yield element.value[0]


def _first(parts: Sequence[Elements | Dataset], keyword: str) -> Any:
    found = (part.get(keyword) for part in parts)
    return next((value for value in found if value is not None and value != ""), None)


def _frame(
    path: Path,
    number: int,
    count: int,
    ds: Elements | FileDataset,
    parts: Sequence[Elements | Dataset],
    telling: dict[str, str],
) -> Frame:
    position = _numbers(_first(parts, "ImagePositionPatient"), 3, "ImagePositionPatient")
    orientation = _numbers(_first(parts, "ImageOrientationPatient"), 6, "ImageOrientationPatient")
    spacing = _numbers(_first(parts, "PixelSpacing"), 2, "PixelSpacing")
    if min(spacing) <= 0:
        raise GeometryError(f"a pixel spacing of {list(spacing)} mm")
    thickness = _first(parts, "SliceThickness")
    rows, columns = int(ds.get("Rows")), int(ds.get("Columns"))
    return Frame(
        file=path,
        number=number,
        sop_uid=parse_uid(ds.get("SOPInstanceUID")),
        position=np.array(position),
        orientation=_orthonormal(orientation),
        spacing=(spacing[0], spacing[1]),
        rows=rows,
        columns=columns,
        thickness=None if thickness is None else float(thickness),
        slope=_number(_first(parts, "RescaleSlope"), 1.0, "RescaleSlope"),
        intercept=_number(_first(parts, "RescaleIntercept"), 0.0, "RescaleIntercept"),
        telling=telling,
        frame_of_reference=parse_uid(ds.get("FrameOfReferenceUID")),
        storage=_storage(ds),
        file_bytes=rows * columns * int(ds.get("BitsAllocated")) // 8 * count,
    )


def _storage(ds: Elements | FileDataset) -> Storage:
    return _storage_of(str(ds.file_meta.get("TransferSyntaxUID") or uids.ImplicitVRLittleEndian))


@lru_cache(maxsize=64)
def _storage_of(name: str) -> Storage:
    syntax = UID(name)
    if not syntax.is_transfer_syntax:
        raise ScanError("an unknown transfer syntax")
    if syntax == uids.DeflatedExplicitVRLittleEndian:
        return "deflated"
    return "encoded" if syntax.is_compressed else "plain"


def _numbers(value: Any, count: int, keyword: str) -> tuple[float, ...]:
    if value is None:
        raise GeometryError(f"no {keyword}, so its place in the patient is not known")
    numbers = tuple(float(part) for part in value)
    if len(numbers) != count or not all(abs(number) <= LARGEST_MM for number in numbers):
        raise GeometryError(f"{keyword} is not {count} plausible numbers")
    return numbers


def _number(value: Any, default: float, keyword: str) -> float:
    number = default if value is None else float(value)
    if not math.isfinite(number) or (keyword == "RescaleSlope" and number == 0):
        raise ScanError(f"a {keyword} of {number}")
    return number


@lru_cache(maxsize=256)
def _orthonormal(numbers: tuple[float, ...]) -> Vector:
    orientation = np.array(numbers).reshape(2, 3)
    products = orientation @ orientation.T
    if np.abs(products - np.eye(2)).max() > _UNIT_LENGTH:
        raise GeometryError("ImageOrientationPatient is not two unit vectors at a right angle")
    orientation.setflags(write=False)  # frames share it
    return orientation


def _classic_telling(ds: Elements | Dataset) -> dict[str, str]:
    found = {keyword: _text(ds.get(keyword)) for keyword in SPLIT_KEYWORDS}
    return found | {"ImageType": "\\".join(get_image_type(ds)[2:])}


def _enhanced_telling(parts: list[Dataset]) -> dict[str, str]:
    keywords = ("EffectiveEchoTime", "TemporalPositionIndex", "DiffusionBValue")
    others = ("DiffusionDirectionality", "FrameType", "FrameAcquisitionNumber")
    trigger = "NominalCardiacTriggerDelayTime"
    found = {keyword: _text(_first(parts, keyword)) for keyword in (*keywords, *others, trigger)}
    indices = _first(parts, "DimensionIndexValues")
    values = [] if indices is None else np.atleast_1d(np.asarray(indices)).tolist()
    return found | {
        f"dimension {number}": str(v) for number, v in enumerate(values[:_MOST_DIMENSIONS], 1)
    }


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:64]
