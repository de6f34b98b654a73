"""Where a stack of frames lies in the patient.

Positions decide, never instance numbers or file names. A stack whose every corner is not within
``TOLERANCE_MM`` of where its own header puts it is refused.

Source of the equations: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame, Frames, Vector
from medseg.volume import Affine

TOLERANCE_MM = 0.05
"""How far a slice's corners may lie from their place on the volume's grid."""
SAME_POSITION_MM = 0.01
"""Slices nearer to each other than this share one position."""

_TOLERANCE_OF_GAP = 0.1
_GAP_TOLERANCE = 0.1
_HOLE = 1.5
_DIRECTION_TOLERANCE = 1e-2
_VISIBLE_TILT_DEGREES = 0.05
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class UnevenSpacingError(GeometryError):
    """The slices lie in a straight line, but at distances that vary."""


Groups = list[list[Frame]]
Warnings = tuple[str, ...]


def group_by_position(frames: Frames) -> Groups:
    """Group parallel frames by position, ordered along their normal."""
    distances = measure_distances(frames)
    order = np.argsort(distances, kind="stable")
    first = order[0]
    group = [frames[first]]
    groups = [group]
    for previous, current in pairwise(order):
        gap = distances[current] - distances[previous]
        if gap > SAME_POSITION_MM:
            group = []
            groups.append(group)
        group.append(frames[current])
    return groups


def compute_affine(frames: Frames) -> tuple[Affine, Warnings]:
    """Return voxel → RAS mm for frames in order, one per position, and warnings.

    A tilted gantry's shear stays in the affine.

    Raises:
        UnevenSpacingError: If their distances vary.
        GeometryError: If slices are missing or not parallel.
    """
    count = len(frames)
    numbers = np.arange(count, dtype=np.float64)
    step, warnings = _compute_step(frames, numbers)
    affine = fit_affine(frames, numbers, step)
    _require_even(frames, affine, numbers)
    return affine, warnings


def compute_uneven_affine(frames: Frames) -> tuple[Affine, Vector]:
    """Return the affine of unevenly spaced frames, in order, one per position.

    Returns:
        ``(i, j, t)`` → RAS mm, and each frame's ``t``: its distance in mm along the normal from
        the first. A tilted gantry's shear is in the affine.

    Raises:
        GeometryError: If the frames are not parallel or not in a straight line.
    """
    positions = get_positions(frames)
    from_origin = measure_distances(frames)
    distances = from_origin - from_origin[0]
    step = fit_step(positions, distances)
    affine = fit_affine(frames, distances, step)
    error = _measure_error(frames, affine, distances)
    if error > TOLERANCE_MM:
        raise _make_irregular_error(error)
    return affine, distances


def fit_step(positions: Vector, numbers: Vector) -> Vector:
    """Return the vector from one slice to the next, by least squares over all positions.

    Args:
        positions: Of each frame, LPS mm, shape ``(frames, 3)``.
        numbers: Of the slice each frame is, shape ``(frames,)``; not all the same.
    """
    # The slope of a line fitted to (number, position): covariance over variance.
    centred = numbers - numbers.mean()
    covariance = centred @ positions
    variance = centred @ centred
    step: Vector = covariance / variance
    return step


def fit_affine(frames: Frames, numbers: Vector, step: Vector) -> Affine:
    """Return voxel → RAS mm, shifted so that it fits the positions of all frames best.

    Args:
        frames: Parallel frames of one size.
        numbers: The ``k`` of each frame, shape ``(frames,)``.
        step: From one slice to the next, LPS mm.
    """
    first = frames[0]
    # Where each frame puts the first voxel of slice 0.
    offsets = np.outer(numbers, step)
    positions = get_positions(frames)
    origins = positions - offsets
    origin = origins.mean(axis=0)
    # DICOM PS3.3 equation C.7.6.2.1-1, with the step between slices as its third column.
    columns = [first.column_step, first.row_step, step, origin]
    lps = np.eye(4)
    lps[:3] = np.transpose(columns)
    affine: Affine = _LPS_TO_RAS @ lps
    return affine


def are_parallel(
    first: Frame,
    second: Frame,
    direction_tolerance: float = _DIRECTION_TOLERANCE,
) -> bool:
    """Tell whether two frames have the same size, pixel spacing and orientation.

    Args:
        first: A frame.
        second: Another one.
        direction_tolerance: How far unit vectors may differ in a coordinate.
    """
    if first.rows != second.rows:
        return False
    if first.columns != second.columns:
        return False
    if not np.allclose(first.spacing, second.spacing, rtol=1e-3):
        return False
    differences = np.abs(first.orientation - second.orientation)
    largest = differences.max()
    return bool(largest < direction_tolerance)


def has_distinct_positions(frames: Frames) -> bool:
    """Tell whether no two parallel frames share a position."""
    if len(frames) < 2:
        return True
    distances = measure_distances(frames)
    distances.sort()
    gaps = np.diff(distances)
    smallest = gaps.min()
    return bool(smallest > SAME_POSITION_MM)


def get_positions(frames: Frames) -> Vector:
    """Return the frames' positions, LPS mm, shape ``(frames, 3)``."""
    positions = [frame.position for frame in frames]
    return np.array(positions)


def measure_distances(frames: Frames) -> Vector:
    """Return each frame's distance from the origin along the normal of the first, in mm."""
    normal = frames[0].normal
    distances: Vector = get_positions(frames) @ normal
    return distances


def _compute_step(frames: Frames, numbers: Vector) -> tuple[Vector, Warnings]:
    """Return the vector from one slice to the next, LPS mm, and warnings."""
    first = frames[0]
    if len(frames) == 1:
        return _guess_step(first)
    positions = get_positions(frames)
    step = fit_step(positions, numbers)
    tilt = _measure_tilt(step, first.normal)
    if tilt <= _VISIBLE_TILT_DEGREES:
        return step, ()
    warning = f"the slices are sheared by {tilt:.1f}° (gantry tilt); the affine keeps it"
    return step, (warning,)


def _measure_tilt(step: Vector, normal: Vector) -> float:
    """Return the angle between two vectors, the second of length 1, in degrees."""
    length = np.linalg.norm(step)
    cosine = step @ normal / length
    cosine = np.clip(cosine, -1, 1)
    angle = np.arccos(cosine)
    return float(np.degrees(angle))


def _guess_step(frame: Frame) -> tuple[Vector, Warnings]:
    thickness = frame.thickness
    if thickness is None or not np.isfinite(thickness) or thickness <= 0:
        warning = "only one slice, without a thickness; 1 mm is assumed"
        return frame.normal, (warning,)
    warning = "only one slice; its thickness is used as the spacing"
    step = frame.normal * thickness
    return step, (warning,)


def _require_even(frames: Frames, affine: Affine, numbers: Vector) -> None:
    """Refuse frames that do not lie on the grid of an affine, saying what is wrong with them."""
    if len(frames) == 1:
        return
    error = _measure_error(frames, affine, numbers)
    slice_step = affine[:3, 2]
    gap = float(np.linalg.norm(slice_step))
    tolerance = min(TOLERANCE_MM, _TOLERANCE_OF_GAP * gap)
    if error <= tolerance:
        return
    distances = measure_distances(frames)
    _refuse_missing_slices(distances)
    gaps = np.diff(distances)
    smallest = gaps.min()
    largest = gaps.max()
    if largest - smallest > TOLERANCE_MM:
        raise UnevenSpacingError(
            f"the slice spacing varies from {smallest:.2f} to {largest:.2f} mm; resample the "
            "series to one spacing first, or pass --resample-uneven"
        )
    raise _make_irregular_error(error)


def _refuse_missing_slices(distances: Vector) -> None:
    """Refuse a stack whose gaps are all usual but for some that are a whole number of them."""
    gaps = np.diff(distances)
    usual = float(np.median(gaps))
    is_hole = gaps > _HOLE * usual
    holes = np.flatnonzero(is_hole)
    if not holes.size:
        return
    ratios = gaps / usual
    multiples = np.maximum(np.rint(ratios), 1)
    errors = np.abs(ratios - multiples)
    if errors.max() >= _GAP_TOLERANCE:
        return
    gaps_in_holes = int(multiples[holes].sum())
    missing = gaps_in_holes - len(holes)
    first_holes = distances[holes[:5]]
    before_holes = ", ".join(f"{distance:.2f}" for distance in first_holes)
    raise GeometryError(
        f"{missing} slice(s) missing, after the slice at {before_holes} mm along the "
        "normal; send the complete series"
    )


def _make_irregular_error(error: float) -> GeometryError:
    return GeometryError(
        f"the slices are up to {error:.2f} mm off a regular stack: they are not parallel or not "
        "in a straight line"
    )


def _measure_error(frames: Frames, affine: Affine, numbers: Vector) -> float:
    """Return the largest distance in mm of a corner pixel from its place on the grid.

    Args:
        frames: The frames.
        affine: The grid, voxel → RAS mm.
        numbers: The ``k`` of each frame.
    """
    to_lps = _LPS_TO_RAS @ affine
    to_lps = to_lps[:3]
    worst = 0.0
    for frame, k in zip(frames, numbers.tolist(), strict=True):
        for i, j in frame.corners:
            voxel = (i, j, k, 1)
            fitted = to_lps @ voxel
            stated = frame.locate(i, j)
            differences = np.abs(fitted - stated)
            error = float(differences.max())
            worst = max(worst, error)
    return worst
