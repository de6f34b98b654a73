"""DICOM RT Structure Sets (RTSTRUCT) → label maps on the grid of their scan.

A voxel belongs to a structure if its centre lies inside the structure's contours on its slice.
Contours inside each other are holes (the even-odd rule), as most planning systems mean them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.dicom_labels.contours import Points, fill_polygons
from medseg.dicom_labels.rois import Contour, Roi, read_rois
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.files import attach_source
from medseg.io.dicom.grid_match import require_same_frame_of_reference
from medseg.volume import Volume

Labels = npt.NDArray[Any]

MAX_DISTANCE = 0.25
"""How far from a slice a contour may lie and still be one of it, in slices."""

_MOST_NAMES_LISTED = 20
_FEWEST_SLICES = 3
"""Fewer say nothing of how far apart contours were drawn."""
_LPS_TO_RAS = (-1.0, -1.0, 1.0)

_Rois = dict[int, Roi]
"""Structures by the voxel value they get."""

_Polygons = dict[int, list[Contour]]
"""Polygons, in voxels, by the slice they lie on."""


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
        ScanError: If the file is damaged or no structure set, a name is absent or there twice or
            drawn as points and open lines alone, or structures overlap: a label map holds one
            label per voxel.
        GeometryError: If contours were drawn in another frame of reference, lie between or
            across the slices of ``like``, or all outside it.
    """
    all_rois = read_rois(path)
    with attach_source(path):
        rois = _select(all_rois, roi)
        if roi is not None:
            _refuse_lines(rois.values())
        labels, warnings = _draw_rois(rois, like)
    names = {}
    is_chosen = roi is not None
    for value, each in rois.items():
        names[value] = each.name
        if is_chosen and not each.contours:
            warnings.append(f"ROI {each.number} has no contours, so no voxels")
    array = labels[None]
    return Volume(array, like.affine, path.name, tuple(warnings), names)


def _select(rois: Sequence[Roi], names: str | Sequence[str] | None) -> _Rois:
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


def _find_roi(rois: Sequence[Roi], name: str) -> Roi:
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


def _refuse_lines(rois: Iterable[Roi]) -> None:
    for roi in rois:
        if roi.has_only_lines:
            raise ScanError(
                f"ROI {roi.number} is drawn as points and open lines alone, and a label map needs "
                "closed contours; close them in the planning system, or leave the label out",
                detail=f"its name: '{roi.name}'",
            )


def _draw_rois(rois: _Rois, like: Volume) -> tuple[Labels, list[str]]:
    """Return the label map, and warnings; results hold them, so they bear numbers only."""
    largest = max(rois)
    dtype = np.min_scalar_type(largest)
    labels = np.zeros(like.shape, dtype, order="F")
    warnings = []
    for value, roi in rois.items():
        require_same_frame_of_reference(roi.frame_of_reference, like)
        slices, outside = _group_by_slice(roi, like)
        if outside and not slices:
            raise GeometryError(
                f"all contours of ROI {roi.number} lie outside the scan; give the scan they were "
                "drawn on",
                detail=f"its name: '{roi.name}'",
            )
        if outside:
            warnings.append(
                f"{outside} contours of ROI {roi.number} lie beyond the scan and were left out"
            )
        warnings += _describe_oddities(roi, slices)
        drawn = _draw_slices(labels, value, slices, rois)
        if slices and not drawn:
            warnings.append(
                f"the contours of ROI {roi.number} enclose no centre of a voxel, so it has none"
            )
    return labels, warnings


def _describe_oddities(roi: Roi, slices: _Polygons) -> Iterator[str]:
    """Say what is unusual in a structure's contours."""
    number = roi.number
    if roi.untyped:
        yield (
            f"{roi.untyped} contours of ROI {number} have no type that DICOM defines and were read "
            "as closed"
        )
    if roi.miscounted:
        yield (
            f"{roi.miscounted} contours of ROI {number} have another number of points than they "
            "state; parts of them may be lost"
        )
    if roi.others:
        yield f"{roi.others} points or open lines of ROI {number} were left out"
    gap = _find_gap(slices)
    if gap > 1:
        yield (
            f"the contours of ROI {number} lie at least {gap} slices apart; the slices between "
            "them are background"
        )


def _find_gap(slices: _Polygons) -> int:
    """Return how many slices drawn ones are apart at least; 1 where few are drawn."""
    if len(slices) < _FEWEST_SLICES:
        return 1
    gaps = np.diff(sorted(slices))
    return int(gaps.min())


def _draw_slices(
    labels: Labels, value: int, slices: _Polygons, rois: _Rois
) -> int:
    """Fill one structure in; return how many voxels it has."""
    drawn = 0
    for k, contours in slices.items():
        plane = labels[:, :, k]
        polygons = _drop_repeats(contours)
        mask = fill_polygons(polygons, plane.shape)
        existing = plane[mask]
        _refuse_overlap(existing, rois[value], rois)
        plane[mask] = value
        drawn += existing.size
    return drawn


def _refuse_overlap(values: Labels, roi: Roi, rois: _Rois) -> None:
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


def _group_by_slice(roi: Roi, like: Volume) -> tuple[_Polygons, int]:
    """Return slice number → polygons in voxels, and how many contours lie beyond the scan."""
    slices: _Polygons = defaultdict(list)
    outside = 0
    slice_count = like.shape[2]
    to_voxels = np.linalg.inv(like.affine)
    rotation = to_voxels[:3, :3]
    translation = to_voxels[:3, 3]
    for contour in roi.contours:
        ras = contour.points * _LPS_TO_RAS
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
        if not _meets_plane(polygon, like):
            outside += 1
            continue
        slices[k].append(Contour(polygon, contour.is_xor))
    return slices, outside


def _meets_plane(polygon: Points, like: Volume) -> bool:
    """Tell whether a polygon in voxels reaches any centre of a slice's voxels."""
    last_voxel = np.subtract(like.shape, 1)
    last_pixel = last_voxel[:2]
    lowest = polygon.min(axis=0)
    highest = polygon.max(axis=0)
    is_behind_first = highest >= 0
    is_before_last = lowest <= last_pixel
    meets = is_behind_first & is_before_last
    return bool(meets.all())


def _find_slice(points: Points) -> tuple[int, float]:
    """Return the slice nearest to points in voxels, and how far off one of them lies."""
    heights = points[:, 2]
    mean_height = float(heights.mean())
    k = round(mean_height)
    distances = np.abs(heights - k)
    farthest = float(distances.max())
    return k, farthest


def _drop_repeats(contours: list[Contour]) -> Iterator[Points]:
    """Leave out exact repeats, which would undo each other, unless their type means just that."""
    seen = set()
    for contour in contours:
        key = contour.points.tobytes()
        if contour.is_xor or key not in seen:
            seen.add(key)
            yield contour.points
