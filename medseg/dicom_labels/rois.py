"""The structures (ROIs) of an RT Structure Set, as it lists them: names, numbers and contours.

A polygon counts as closed whatever its writer calls it, unless that says that it is a point or an
open line: real files hold types of other editions and makers, lower case, or no type at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset

from medseg.dicom_labels.contours import Points
from medseg.errors import ScanError
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    attach_source,
    quote_error,
    read_elements,
)
from medseg.io.dicom.frames import get_text
from medseg.io.voxels import LARGEST_MM

FEWEST_POINTS = 3
"""Of a polygon that encloses anything."""

_CLOSED = "CLOSEDPLANAR"
_XOR = "CLOSEDPLANARXOR"
_LINES = ("POINT", "OPENPLANAR", "OPENNONPLANAR")
_NO_LETTERS = re.compile("[^A-Z]")
_MOST_UNEVEN_MM = 0.1
"""How far points may lie off their common plane: files store them with few digits."""

_LAST_KEYWORD = "RTROIObservationsSequence"
_KEYWORDS = (
    "SOPClassUID",
    "StructureSetROISequence",
    "ROIContourSequence",
    _LAST_KEYWORD,
)


class Contour(NamedTuple):
    """One closed polygon.

    Attributes:
        points: In LPS mm, shape ``(points, 3)``.
        is_xor: Whether it turns over what the others of its plane enclose, even a repeat of it
            (DICOM's CLOSEDPLANAR_XOR).
    """

    points: Points
    is_xor: bool


@dataclass(slots=True, eq=False)
class Roi:
    """One structure.

    Attributes:
        number: ROI Number.
        name: ROI Name.
        frame_of_reference: Frame of Reference UID, or empty.
        contours: The closed ones.
        others: How many points, open lines and polygons without an area it has.
        untyped: How many contours are closed though no type of the standard says so.
        miscounted: How many contours have another number of points than they state.
    """

    number: int
    name: str
    frame_of_reference: str
    contours: list[Contour] = field(default_factory=list, repr=False)
    others: int = 0
    untyped: int = 0
    miscounted: int = 0

    @property
    def has_only_lines(self) -> bool:
        """Whether it is drawn, and nothing of it encloses anything."""
        return self.others > 0 and not self.contours


def read_rois(path: Path) -> list[Roi]:
    """Read all structures.

    Raises:
        ScanError: If the file is damaged or no structure set.
    """
    with attach_source(path):
        try:
            return _read(path)
        except PYDICOM_ERRORS as error:
            raise ScanError(
                "the structure set is damaged, or is not DICOM",
                detail=quote_error(error),
            ) from error


def _read(path: Path) -> list[Roi]:
    ds = read_elements(path, _KEYWORDS)
    sop_class = get_text(ds, "SOPClassUID")
    if sop_class != uids.RTStructureSetStorage:
        raise ScanError("the file is not a DICOM RT Structure Set (RTSTRUCT)")
    if _LAST_KEYWORD not in ds:
        # It must be there and stands behind the contours; pydicom passes over a cut end.
        raise ScanError(
            f"the structure set is truncated; its {_LAST_KEYWORD} is missing"
        )
    rois = _parse_rois(ds)
    if not rois:
        raise ScanError("the structure set contains no structures (ROIs)")
    return rois


def _parse_rois(ds: FileDataset) -> list[Roi]:
    rois: dict[int, Roi] = {}
    structures = ds.get("StructureSetROISequence") or ()
    for item in structures:
        roi = _parse_roi(item)
        if roi.number in rois:
            raise ScanError(
                f"two structures have the ROI Number {roi.number}, so whose contours they are is "
                "unknown; write the structure set again with a number for each"
            )
        rois[roi.number] = roi
    contours = ds.get("ROIContourSequence") or ()
    for item in contours:
        number = int(item.ReferencedROINumber)
        _add_contours(rois[number], item)
    return list(rois.values())


def _parse_roi(item: Dataset) -> Roi:
    number = int(item.ROINumber)
    name = get_text(item, "ROIName") or f"ROI {number}"
    frame_of_reference = get_text(item, "ReferencedFrameOfReferenceUID")
    return Roi(number, name.strip(), frame_of_reference)


def _add_contours(roi: Roi, item: Dataset) -> None:
    contours = item.get("ContourSequence") or ()
    for contour in contours:
        points = _parse_points(contour)
        stated = contour.get("NumberOfContourPoints") or 0
        # Whoever states no number, which must be there, leaves nothing to compare.
        if stated and int(stated) != len(points):
            roi.miscounted += 1
        if stated or len(points):
            _add_contour(roi, _parse_type(contour), points)


def _add_contour(roi: Roi, kind: str, points: Points) -> None:
    if kind in _LINES or len(points) < FEWEST_POINTS:
        roi.others += 1
        return
    if kind not in (_CLOSED, _XOR):
        if not _are_planar(points):
            roi.others += 1
            return
        roi.untyped += 1
    roi.contours.append(Contour(points, kind == _XOR))


def _parse_type(contour: Dataset) -> str:
    """Return the Contour Geometric Type in capitals, without what writers put between words."""
    kind = get_text(contour, "ContourGeometricType")
    return _NO_LETTERS.sub("", kind.upper())


def _parse_points(contour: Dataset) -> Points:
    coordinates = contour.get("ContourData") or []
    points = np.array(coordinates, np.float64)
    points = points.reshape(-1, 3)
    is_plausible = np.abs(points) <= LARGEST_MM
    if not is_plausible.all():
        raise ValueError("contour points are not plausible numbers")
    return points


def _are_planar(points: Points) -> bool:
    """Tell whether points lie in one plane."""
    centred = points - points.mean(axis=0)
    # The eigenvector of the smallest eigenvalue is the normal of the plane that fits best.
    _, directions = np.linalg.eigh(centred.T @ centred)
    heights = centred @ directions[:, 0]
    return float(np.abs(heights).max()) <= _MOST_UNEVEN_MM
