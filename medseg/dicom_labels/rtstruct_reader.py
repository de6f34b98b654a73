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

from medseg.dicom_labels.contours import Points, fill_polygons
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    attach_source,
    quote_error,
    read_elements,
)
from medseg.io.dicom.frames import get_text
from medseg.io.dicom.grid_match import require_same_frame_of_reference
from medseg.io.voxels import LARGEST_MM
from medseg.volume import Volume

Labels = npt.NDArray[Any]

MAX_DISTANCE = 0.25
"""How far from a slice a contour may lie and still be one of it, in slices."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_MOST_NAMES_LISTED = 20
_LAST_KEYWORD = "RTROIObservationsSequence"
_KEYWORDS = (
    "SOPClassUID",
    "StructureSetROISequence",
    "ROIContourSequence",
    _LAST_KEYWORD,
)
_LPS_TO_RAS = (-1.0, -1.0, 1.0)


@dataclass(slots=True, eq=False)
class _Roi:
    """One structure.

    Attributes:
        number: ROI Number.
        name: ROI Name.
        frame_of_reference: Frame of Reference UID, or empty.
        contours: The closed ones: points in LPS mm, each of shape ``(points, 3)``.
        others: How many points and open lines it has.
    """

    number: int
    name: str
    frame_of_reference: str
    contours: list[Points] = field(default_factory=list, repr=False)
    others: int = 0


_Rois = dict[int, _Roi]
"""Structures by the voxel value they get."""

_Polygons = dict[int, list[Points]]
"""Polygons by the slice they lie on."""


def read_rtstruct(
    path: Path, like: Volume, roi: str | Sequence[str] | None = None
) -> Volume:
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
    with attach_source(path):
        all_rois = _read_rois(path)
        rois = _select(all_rois, roi)
        labels, warnings = _draw_rois(rois, like)
    names = {}
    is_chosen = roi is not None
    for value, each in rois.items():
        names[value] = each.name
        if is_chosen and not each.contours:
            warnings.append(
                f"ROI {each.number} has no closed contours, so no voxels"
            )
    array = labels[None]
    return Volume(array, like.affine, path.name, tuple(warnings), names)


def read_roi_names(path: Path) -> list[str]:
    """Return the names of the structures that are areas: drawn closed, or not drawn at all.

    Raises:
        ScanError: If the file is damaged or no structure set.
    """
    with attach_source(path):
        rois = _read_rois(path)
    names = []
    for roi in rois:
        has_only_others = roi.others > 0 and not roi.contours
        if not has_only_others:
            names.append(roi.name)
    return names


def _read_rois(path: Path) -> list[_Roi]:
    try:
        ds = read_elements(path, _KEYWORDS)
        sop_class = get_text(ds, "SOPClassUID")
        if sop_class != uids.RTStructureSetStorage:
            raise ScanError(
                "the file is not a DICOM RT Structure Set (RTSTRUCT)"
            )
        if _LAST_KEYWORD not in ds:
            # It must be there and stands behind the contours; pydicom passes over a cut end.
            raise ScanError(
                f"the structure set is truncated; its {_LAST_KEYWORD} is missing"
            )
        rois = _parse_rois(ds)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the structure set is damaged, or is not DICOM",
            detail=quote_error(error),
        ) from error
    if not rois:
        raise ScanError("the structure set contains no structures (ROIs)")
    return rois


def _parse_rois(ds: FileDataset) -> list[_Roi]:
    rois = {}
    structures = ds.get("StructureSetROISequence") or ()
    for item in structures:
        roi = _parse_roi(item)
        rois[roi.number] = roi
    contours = ds.get("ROIContourSequence") or ()
    for item in contours:
        number = int(item.ReferencedROINumber)
        _add_contours(rois[number], item)
    return list(rois.values())


def _parse_roi(item: Dataset) -> _Roi:
    number = int(item.ROINumber)
    name = get_text(item, "ROIName") or f"ROI {number}"
    frame_of_reference = get_text(item, "ReferencedFrameOfReferenceUID")
    return _Roi(number, name.strip(), frame_of_reference)


def _add_contours(roi: _Roi, item: Dataset) -> None:
    contours = item.get("ContourSequence") or ()
    for contour in contours:
        kind = contour.get("ContourGeometricType")
        points = _parse_points(contour)
        if kind in _CLOSED and len(points) > 2:
            roi.contours.append(points)
        else:
            roi.others += 1


def _parse_points(contour: Dataset) -> Points:
    coordinates = contour.get("ContourData") or []
    points = np.array(coordinates, np.float64)
    points = points.reshape(-1, 3)
    is_plausible = np.abs(points) <= LARGEST_MM
    if not is_plausible.all():
        raise ValueError("contour points are not plausible numbers")
    return points


def _select(rois: Sequence[_Roi], names: str | Sequence[str] | None) -> _Rois:
    """Return the structures of some names, or all, by the voxel value they get."""
    if isinstance(names, str):
        names = [names]
    if names is not None:
        chosen = [_find_roi(rois, name) for name in names]
        return dict(enumerate(chosen, start=1))
    by_number = {roi.number: roi for roi in rois}
    lowest = min(by_number)
    # 0 is background, and label maps hold nothing below it.
    if lowest < 1:
        return dict(enumerate(rois, start=1))
    return by_number


def _find_roi(rois: Sequence[_Roi], name: str) -> _Roi:
    wanted = name.strip()
    matches = [roi for roi in rois if roi.name == wanted]
    if len(matches) == 1:
        return matches[0]
    names = [roi.name for roi in rois[:_MOST_NAMES_LISTED]]
    if len(rois) > _MOST_NAMES_LISTED:
        names.append("…")
    existing = ", ".join(names)
    raise ScanError(
        f"the structure set has {len(matches)} structures of the requested name; exactly one is "
        "needed",
        detail=f"asked for '{name}'; it has {existing}",
    )


def _draw_rois(rois: _Rois, like: Volume) -> tuple[Labels, list[str]]:
    """Return the label map, and warnings; results hold them, so they bear numbers only."""
    largest = max(rois)
    dtype = np.min_scalar_type(largest)
    labels = np.zeros(like.shape, dtype, order="F")
    warnings = []
    for value, roi in rois.items():
        require_same_frame_of_reference(roi.frame_of_reference, like)
        outside = _draw_roi(labels, value, rois, like)
        if outside:
            warnings.append(
                f"{outside} contours of ROI {roi.number} lie beyond the scan and were left out"
            )
        if roi.others:
            warnings.append(
                f"{roi.others} points or open lines of ROI {roi.number} were left out"
            )
    return labels, warnings


def _draw_roi(labels: Labels, value: int, rois: _Rois, like: Volume) -> int:
    """Fill one structure in; return how many of its contours lie beyond the scan's slices."""
    roi = rois[value]
    slices, outside = _group_by_slice(roi, like)
    if outside and not slices:
        raise GeometryError(
            f"all contours of ROI {roi.number} lie outside the scan; give the scan they were "
            "drawn on",
            detail=f"its name: '{roi.name}'",
        )
    for k, polygons in slices.items():
        plane = labels[:, :, k]
        distinct = _drop_repeats(polygons)
        mask = fill_polygons(distinct, plane.shape)
        existing = plane[mask]
        _refuse_overlap(existing, roi, rois)
        plane[mask] = value
    return outside


def _refuse_overlap(values: Labels, roi: _Roi, rois: _Rois) -> None:
    is_taken = values > 0
    taken = values[is_taken]
    if not taken.size:
        return
    other_value = int(taken[0])
    other = rois[other_value]
    raise ScanError(
        f"ROIs {other.number} and {roi.number} overlap in {taken.size} voxels of one slice, and a "
        "label map holds one label per voxel; name the structures to read",
        detail=f"their names: '{other.name}' and '{roi.name}'",
    )


def _group_by_slice(roi: _Roi, like: Volume) -> tuple[_Polygons, int]:
    """Return slice number → polygons in voxels, and how many contours lie beyond all slices."""
    slices: _Polygons = defaultdict(list)
    outside = 0
    slice_count = like.shape[2]
    to_voxels = np.linalg.inv(like.affine)
    rotation = to_voxels[:3, :3]
    translation = to_voxels[:3, 3]
    for contour in roi.contours:
        ras = contour * _LPS_TO_RAS
        rotated = ras @ rotation.T
        voxels = rotated + translation
        k, distance = _find_slice(voxels)
        if not 0 <= k < slice_count:
            outside += 1
            continue
        if distance > MAX_DISTANCE:
            raise GeometryError(
                f"a contour of ROI {roi.number} lies up to {distance:.2g} slices off the nearest "
                "slice; give the scan it was drawn on",
                detail=f"its name: '{roi.name}'",
            )
        polygon = voxels[:, :2]
        slices[k].append(polygon)
    return slices, outside


def _find_slice(points: Points) -> tuple[int, float]:
    """Return the slice nearest to points in voxels, and how far off one of them lies."""
    heights = points[:, 2]
    mean_height = float(heights.mean())
    k = round(mean_height)
    distances = np.abs(heights - k)
    farthest = float(distances.max())
    return k, farthest


def _drop_repeats(polygons: list[Points]) -> Iterator[Points]:
    """Leave out exact repeats, which would undo each other."""
    seen = set()
    for polygon in polygons:
        key = polygon.tobytes()
        if key not in seen:
            seen.add(key)
            yield polygon
