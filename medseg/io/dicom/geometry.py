"""Frames → the volumes they make up, and where each lies in the patient.

Positions decide, never instance numbers or file names. A stack whose every corner is not within
``TOLERANCE_MM`` of where its own header puts it is refused.

Source of the equations: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

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
_MAX_ORIENTATIONS = 50
_FEWEST_SLICES = 4
_LONGEST_VALUE = 24
_MAX_SPLIT_KEYWORDS = 3
_CLOCK_TIMES = ("AcquisitionTime",)


class UnevenSpacingError(GeometryError):
    """The slices lie in a straight line, but at distances that vary."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames of one volume.

    Attributes:
        frames: The frames; several may still share a position.
        volume_name: What tells this volume from the others of its series; empty if it is the
            only one. Holds values of headers.
    """

    frames: tuple[Frame, ...]
    volume_name: str = ""


_Groups = list[list[Frame]]
_Keywords = tuple[str, ...]
_Values = tuple[str, ...]
Warnings = tuple[str, ...]


def split_stacks(frames: Frames) -> tuple[list[Stack], list[str]]:
    """Split a series into volumes: by orientation and size, then by ``Frame.split_values``.

    Returns:
        The volumes, and a warning if a few slices were left out: localizers, odd sizes.

    Raises:
        GeometryError: If nearly every slice has its own orientation.
    """
    groups = _group_parallel(frames)
    kept = _drop_small_groups(groups)
    kept_count = 0
    for group in kept:
        kept_count += len(group)
    left_out = len(frames) - kept_count
    warnings = []
    if left_out:
        warnings.append(
            f"{left_out} slice(s) of another orientation or size left out"
        )
    if len(kept) == 1:
        only_group = kept[0]
        return _split_by_keywords(only_group), warnings
    stacks = []
    for number, group in enumerate(kept, start=1):
        for stack in _split_by_keywords(group):
            name = f"orientation or size {number} {stack.volume_name}"
            renamed = Stack(stack.frames, name.strip())
            stacks.append(renamed)
    return stacks, warnings


def group_by_position(frames: Frames) -> _Groups:
    """Group parallel frames by position, ordered along their normal."""
    distances = _measure_distances(frames)
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
    from_origin = _measure_distances(frames)
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


def _drop_small_groups(groups: _Groups) -> _Groups:
    """Leave out groups of parallel slices that are stray slices rather than volumes."""
    largest = max(len(group) for group in groups)
    fewest = max(_FEWEST_SLICES, largest / 2)
    fewest = min(fewest, largest)
    return [group for group in groups if len(group) >= fewest]


def _group_parallel(frames: Frames) -> _Groups:
    groups: _Groups = []
    # Most slices say the same to the last digit; only others have to be compared.
    known: dict[object, list[Frame]] = {}
    for frame in frames:
        orientation = frame.orientation.tobytes()
        key = (frame.rows, frame.columns, frame.spacing, orientation)
        group = known.get(key)
        if group is None:
            group = _find_parallel(groups, frame)
        if group is None:
            _require_few_groups(groups, frame)
            group = []
            groups.append(group)
        group.append(frame)
        known[key] = group
    return groups


def _require_few_groups(groups: _Groups, frame: Frame) -> None:
    """Refuse a frame that needs a group of its own, where there are many already."""
    count = len(groups)
    if count == _MAX_ORIENTATIONS:
        raise GeometryError(
            f"the series has more than {count} orientations or sizes of slices, so they are not "
            "one volume",
            source=frame.file,
        )


def _find_parallel(groups: _Groups, frame: Frame) -> list[Frame] | None:
    for group in groups:
        if are_parallel(group[0], frame):
            return group
    return None


def _split_by_keywords(frames: list[Frame]) -> list[Stack]:
    """Split frames that share positions by the fewest elements that make volumes of them."""
    unsplit = Stack(tuple(frames))
    if _has_distinct_positions(frames):
        return [unsplit]
    for keywords in _iterate_keywords(frames):
        volumes = defaultdict(list)
        for frame in frames:
            values = _get_split_values(frame, keywords)
            volumes[values].append(frame)
        groups = list(volumes.values())
        if _are_volumes(groups):
            return _name_stacks(keywords, volumes)
    return [unsplit]


def _get_split_values(frame: Frame, keywords: _Keywords) -> _Values:
    values = [frame.split_values.get(keyword, "") for keyword in keywords]
    return tuple(values)


def _iterate_keywords(frames: list[Frame]) -> Iterator[_Keywords]:
    """Give the keywords to split by: each whose value varies, then two at once, then three."""
    first = frames[0]
    varying = []
    for keyword in first.split_values:
        values = {frame.split_values.get(keyword, "") for frame in frames}
        if len(values) > 1:
            varying.append(keyword)
    for count in range(1, _MAX_SPLIT_KEYWORDS + 1):
        yield from combinations(varying, count)


def _has_distinct_positions(frames: Frames) -> bool:
    if len(frames) < 2:
        return True
    distances = _measure_distances(frames)
    distances.sort()
    gaps = np.diff(distances)
    smallest = gaps.min()
    return bool(smallest > SAME_POSITION_MM)


def _are_volumes(volumes: _Groups) -> bool:
    """Tell whether each is a stack, one frame per position, and all are at the same positions."""
    if len(volumes) < 2:
        return False
    first = volumes[0]
    if len(first) == 1:
        return False
    if any(len(volume) != len(first) for volume in volumes):
        return False
    for volume in volumes:
        if not _has_distinct_positions(volume):
            return False
    normal = first[0].normal
    all_distances = []
    for volume in volumes:
        distances = get_positions(volume) @ normal
        distances.sort()
        all_distances.append(distances)
    expected = all_distances[0]
    errors = np.abs(np.array(all_distances) - expected)
    largest = errors.max()
    return bool(largest <= TOLERANCE_MM)


def _name_stacks(
    keywords: _Keywords, volumes: dict[_Values, list[Frame]]
) -> list[Stack]:
    stacks = []
    in_order = sorted(volumes, key=_make_sort_key)
    for rank, values in enumerate(in_order, start=1):
        descriptions = []
        for keyword, value in zip(keywords, values, strict=True):
            description = _describe_value(keyword, value, rank)
            descriptions.append(description)
        name = ", ".join(descriptions)
        frames = tuple(volumes[values])
        stacks.append(Stack(frames, name))
    return stacks


def _describe_value(keyword: str, value: str, rank: int) -> str:
    # A time of day would help to find out who was scanned; its rank does not.
    if keyword in _CLOCK_TIMES or len(value) > _LONGEST_VALUE:
        return f"{keyword} #{rank}"
    return f"{keyword} {value}"


def _make_sort_key(values: _Values) -> tuple[tuple[float, str], ...]:
    """Return a key that orders numbers by size, and other text behind them."""
    keys = [(_to_number(value), value) for value in values]
    return tuple(keys)


def _to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def get_positions(frames: Frames) -> Vector:
    """Return the frames' positions, LPS mm, shape ``(frames, 3)``."""
    positions = [frame.position for frame in frames]
    return np.array(positions)


def _measure_distances(frames: Frames) -> Vector:
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
    distances = _measure_distances(frames)
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
