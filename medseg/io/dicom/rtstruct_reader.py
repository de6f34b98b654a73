"""DICOM RT Structure Sets (RTSTRUCT) → label maps on the grid of their scan.

A voxel belongs to a structure if its centre lies inside the structure's contours on its slice.
Contours inside each other are holes (the even-odd rule), as most planning systems mean them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileDataset

from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.contours import Points, fill_polygons
from medseg.io.dicom.files import PYDICOM_ERRORS, read_elements
from medseg.io.dicom.grid_match import require_same_frame_of_reference
from medseg.io.voxels import LARGEST_MM
from medseg.volume import Volume

Labels = npt.NDArray[Any]

OFF_SLICE = 0.25
"""How far from a slice a contour may lie and still be one of it, in slices."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_MOST_NAMED = 20
_LAST = "RTROIObservationsSequence"
_TAGS = ("SOPClassUID", "StructureSetROISequence", "ROIContourSequence", _LAST)


@dataclass(frozen=True, slots=True, eq=False)
class _Roi:
    """One structure: its name, its frame of reference, and its closed contours in LPS mm."""

    number: int
    name: str
    reference: str
    contours: list[Points] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_rtstruct(path: Path, like: Volume, roi: str | Sequence[str] | None = None) -> Volume:
    """Read structures as a label map on the grid of the scan they were drawn on.

    Args:
        path: The file.
        like: The scan.
        roi: Name of the structure to read, or several; they become 1, 2, … in the order given.
            Without it all are read, and voxel values are ROI numbers.

    Returns:
        The smallest unsigned integers that hold the values, shape ``(1, i, j, k)``. The header is
        a dictionary, value → ROI name.

    Raises:
        ScanError: If the file is damaged or no structure set, a name is absent or there twice,
            or structures overlap: a label map holds one label per voxel.
        GeometryError: If contours were drawn in another frame of reference, lie between or
            across the slices of ``like``, or all outside it.
    """
    wanted = _wanted(_rois(path), roi, path.name)
    labels = np.zeros(like.shape, np.min_scalar_type(max(wanted)), order="F")
    warnings: list[str] = []
    for value, one in wanted.items():
        require_same_frame_of_reference(one.reference, like, path.name)
        outside = _paint(labels, value, one, wanted, like, path.name)
        warnings += _doubts(one, outside)
        if roi is not None and not one.contours:
            warnings.append(f"'{one.name}' has no closed contours, so no voxels")
    names = {value: one.name for value, one in wanted.items()}
    return Volume(labels[None], like.affine, path.name, tuple(warnings), names)


def read_roi_names(path: Path) -> list[str]:
    """Return the names of the structures that are areas: drawn closed, or not drawn at all.

    Raises:
        ScanError: If the file is damaged or no structure set.
    """
    return [roi.name for roi in _rois(path) if roi.contours or not roi.others]


def _rois(path: Path) -> list[_Roi]:
    try:
        ds = read_elements(path, _TAGS)
        if str(ds.get("SOPClassUID") or "") != uids.RTStructureSetStorage:
            raise ScanError(f"{path.name}: is no DICOM RT Structure Set (RTSTRUCT)")
        if _LAST not in ds:
            # It must be there and stands behind the contours; pydicom passes over a cut end.
            raise ScanError(f"{path.name}: truncated; its ROI observations are missing")
        found = _parsed(ds)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            f"{path.name}: a damaged structure set, or no DICOM ({type(error).__name__})"
        ) from error
    if not found:
        raise ScanError(f"{path.name}: names no structures (ROIs)")
    return found


def _parsed(ds: FileDataset) -> list[_Roi]:
    rois = {}
    for item in ds.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        name = str(item.get("ROIName") or f"ROI {number}").strip()
        rois[number] = _Roi(number, name, str(item.get("ReferencedFrameOfReferenceUID") or ""))
    for item in ds.get("ROIContourSequence") or ():
        roi = rois[int(item.ReferencedROINumber)]
        for contour in item.get("ContourSequence") or ():
            kind = str(contour.get("ContourGeometricType") or "")
            points = _points(contour)
            if kind in _CLOSED and len(points) > 2:
                roi.contours.append(points)
            else:
                roi.others.append(kind)
    return list(rois.values())


def _points(contour: Dataset) -> Points:
    points = np.array(contour.get("ContourData") or [], np.float64).reshape(-1, 3)
    if not (np.abs(points) <= LARGEST_MM).all():
        raise ValueError("contour points are no plausible numbers")
    return points


def _wanted(rois: list[_Roi], asked: str | Sequence[str] | None, name: str) -> dict[int, _Roi]:
    """Return value → structure."""
    if asked is None:
        if any(roi.number < 1 for roi in rois):
            return dict(enumerate(rois, start=1))
        return {roi.number: roi for roi in rois}
    chosen = {}
    for value, wish in enumerate([asked] if isinstance(asked, str) else asked, start=1):
        matches = [roi for roi in rois if roi.name == wish.strip()]
        if len(matches) != 1:
            there = ", ".join(roi.name for roi in rois[:_MOST_NAMED])
            raise ScanError(
                f"{name}: has {len(matches)} structures called '{wish}', one is needed; it has: "
                f"{there}{', …' * (len(rois) > _MOST_NAMED)}"
            )
        chosen[value] = matches[0]
    return chosen


def _paint(
    labels: Labels, value: int, roi: _Roi, all_rois: dict[int, _Roi], like: Volume, name: str
) -> int:
    """Fill one structure in; return how many of its contours lie beyond the scan's slices."""
    slices, outside = _by_slice(roi, like, name)
    if outside and not slices:
        raise GeometryError(
            f"{name}: all contours of '{roi.name}' lie outside the scan; give the scan they were "
            "drawn on"
        )
    for k, polygons in slices.items():
        plane = labels[:, :, k]
        inside = np.nonzero(fill_polygons(_distinct(polygons), like.shape[:2]))
        taken = plane[inside][plane[inside] > 0]
        if taken.size:
            other = all_rois[int(taken[0])].name
            raise ScanError(
                f"{name}: '{roi.name}' and '{other}' overlap in {taken.size} voxels "
                "of one slice, and a label map holds one label per voxel; name the structures to "
                "read"
            )
        plane[inside] = value
    return outside


def _by_slice(roi: _Roi, like: Volume, name: str) -> tuple[dict[int, list[Points]], int]:
    """Return slice number → polygons in voxels, and how many contours lie beyond all slices."""
    slices: dict[int, list[Points]] = defaultdict(list)
    outside = 0
    to_voxels = np.linalg.inv(like.affine)
    for contour in roi.contours:
        ras = contour * (-1.0, -1.0, 1.0)
        places = ras @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        k = round(float(places[:, 2].mean()))
        away = float(np.abs(places[:, 2] - k).max())
        if not 0 <= k < like.shape[2]:
            outside += 1
        elif away > OFF_SLICE:
            raise GeometryError(
                f"{name}: a contour of '{roi.name}' lies up to {away:.2g} slices off the nearest "
                "slice; give the scan it was drawn on"
            )
        else:
            slices[k].append(places[:, :2])
    return slices, outside


def _distinct(polygons: list[Points]) -> Iterator[Points]:
    """Leave out exact repeats, which would undo each other."""
    seen = set()
    for polygon in polygons:
        key = polygon.tobytes()
        if key not in seen:
            seen.add(key)
            yield polygon


def _doubts(roi: _Roi, outside: int) -> Iterator[str]:
    if outside:
        yield f"{outside} contours of '{roi.name}' lie beyond the scan's slices and were left out"
    if roi.others:
        yield f"{len(roi.others)} points or open lines of '{roi.name}' were left out"
