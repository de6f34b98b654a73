"""Frames → the volumes they make up, and where each lies in the patient.

Positions decide, never instance numbers or file names. A stack whose every corner is not within
``TOLERANCE_MM`` of where its own header puts it is refused.

Source of the equations: DICOM PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise

import numpy as np

from medseg.errors import GeometryError
from medseg.io.dicom.frames import Frame, Vector
from medseg.volume import Affine

TOLERANCE_MM = 0.05
"""How far a slice's corners may lie from their place on the volume's grid."""
SAME_POSITION_MM = 0.01
"""Slices nearer to each other than this share one place."""

_TOLERANCE_OF_GAP = 0.1
_SAME_DIRECTION = 1e-2
_VISIBLE_TILT_DEGREES = 0.05
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MOST_ORIENTATIONS = 50
_LONGEST_PART = 24
_MOST_TELLING = 3
_CLOCK_TIMES = ("AcquisitionTime",)


class UnevenSpacingError(GeometryError):
    """The slices lie in a straight line, but at distances that vary."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames of one volume.

    Attributes:
        frames: The frames; several may still share a place.
        part: What tells this volume from the others of its series; empty if it is the only one.
    """

    frames: tuple[Frame, ...]
    part: str = ""


def split_stacks(frames: Sequence[Frame]) -> tuple[list[Stack], list[str]]:
    """Split a series into volumes by orientation and size, then by the elements that tell.

    Returns:
        The volumes, and a warning if a few slices were left out: localizers, odd sizes.

    Raises:
        GeometryError: If nearly every slice has its own orientation.
    """
    groups = _parallel_groups(frames)
    most = max(len(group) for group in groups)
    warnings, stacks = [], []
    kept = [group for group in groups if len(group) >= max(4, most / 2) or len(group) == most]
    left_out = len(frames) - sum(len(group) for group in kept)
    if left_out:
        warnings.append(f"{left_out} slice(s) of another orientation or size left out")
    for number, group in enumerate(kept, start=1):
        for stack in _told_apart(group):
            part = f"orientation or size {number}" if len(kept) > 1 else ""
            stacks.append(Stack(stack.frames, " ".join(filter(None, (part, stack.part)))))
    return stacks, warnings


def group_by_position(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group parallel frames by place, ordered along their normal."""
    distances = _distances(frames)
    order = np.argsort(distances, kind="stable")
    places = [[frames[order[0]]]]
    for before, here in pairwise(order):
        if distances[here] - distances[before] > SAME_POSITION_MM:
            places.append([])
        places[-1].append(frames[here])
    return places


def compute_affine(frames: Sequence[Frame], name: str) -> tuple[Affine, tuple[str, ...]]:
    """Return voxel → RAS mm for frames in order, one per place, and warnings.

    A tilted gantry's shear stays in the affine.

    Raises:
        UnevenSpacingError: If their distances vary.
        GeometryError: If slices are missing or not parallel.
    """
    step, warnings = _step(frames)
    lps = _lps(frames, np.arange(len(frames), dtype=np.float64), step)
    _refuse_uneven(frames, lps, name)
    return _LPS_TO_RAS @ lps, warnings


def compute_uneven_affine(frames: Sequence[Frame], name: str) -> tuple[Affine, Vector]:
    """Return the affine of unevenly spaced frames, in order, one per place.

    Returns:
        ``(i, j, t)`` → RAS mm, and each frame's ``t``: its distance in mm along the normal from
        the first. A tilted gantry's shear is in the affine.

    Raises:
        GeometryError: If the frames are not parallel or not in a straight line.
    """
    distances = _distances(frames) - _distances(frames)[0]
    positions = np.array([frame.position for frame in frames])
    centred = distances - distances.mean()
    lps = _lps(frames, distances, centred @ positions / (centred @ centred))
    pairs = zip(frames, distances.tolist(), strict=True)
    error = max(_corner_error(frame, lps, distance) for frame, distance in pairs)
    if error > TOLERANCE_MM:
        raise _not_straight(error, name)
    return _LPS_TO_RAS @ lps, distances


def _lps(frames: Sequence[Frame], numbers: Vector, step: Vector) -> Affine:
    """Return the affine on which frame n lies at its number, shifted to fit them all best."""
    first = frames[0]
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[0] * first.spacing[1]
    lps[:3, 1] = first.orientation[1] * first.spacing[0]
    lps[:3, 2] = step
    positions = np.array([frame.position for frame in frames])
    lps[:3, 3] = (positions - numbers[:, None] * step).mean(axis=0)
    return lps


def _parallel_groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    # Most slices say the same to the last digit; only others have to be compared.
    known: dict[object, list[Frame]] = {}
    for frame in frames:
        said = (frame.rows, frame.columns, frame.spacing, frame.orientation.tobytes())
        group = known.get(said) or next((one for one in groups if _alike(one[0], frame)), None)
        if group is None:
            if len(groups) == _MOST_ORIENTATIONS:
                raise GeometryError(
                    f"{frame.file.name}: the series has more than {len(groups)} orientations or "
                    "sizes of slices; it is no stack"
                )
            group = []
            groups.append(group)
        group.append(frame)
        known[said] = group
    return groups


def _alike(one: Frame, other: Frame) -> bool:
    return (
        (one.rows, one.columns) == (other.rows, other.columns)
        and np.allclose(one.spacing, other.spacing, rtol=1e-3)
        and bool(np.abs(one.orientation - other.orientation).max() < _SAME_DIRECTION)
    )


def _told_apart(frames: list[Frame]) -> list[Stack]:
    if _one_per_place(frames):
        return [Stack(tuple(frames))]
    keywords = [
        keyword
        for keyword in frames[0].telling
        if len({frame.telling.get(keyword, "") for frame in frames}) > 1
    ]
    chosen_ways = (combinations(keywords, count) for count in range(1, _MOST_TELLING + 1))
    for chosen in chain.from_iterable(chosen_ways):
        volumes = defaultdict(list)
        for frame in frames:
            volumes[tuple(frame.telling.get(keyword, "") for keyword in chosen)].append(frame)
        if len(volumes) > 1 and _are_volumes(list(volumes.values())):
            return _named(chosen, volumes)
    return [Stack(tuple(frames))]


def _one_per_place(frames: Sequence[Frame]) -> bool:
    distances = np.sort(_distances(frames))
    return len(distances) < 2 or bool(np.diff(distances).min() > SAME_POSITION_MM)


def _are_volumes(volumes: list[list[Frame]]) -> bool:
    """Tell whether each is a stack, one frame per place, and all are at the same places."""
    sizes = {len(volume) for volume in volumes}
    if len(sizes) != 1 or sizes == {1} or not all(map(_one_per_place, volumes)):
        return False
    normal = volumes[0][0].normal
    places = [np.sort([frame.position @ normal for frame in volume]) for volume in volumes]
    return all(np.abs(place - places[0]).max() <= TOLERANCE_MM for place in places[1:])


def _named(keywords: tuple[str, ...], volumes: dict[tuple[str, ...], list[Frame]]) -> list[Stack]:
    stacks = []
    for number, values in enumerate(sorted(volumes, key=_by_number), start=1):
        said = [
            f"{keyword} {f'#{number}' if _better_counted(keyword, value) else value}"
            for keyword, value in zip(keywords, values, strict=True)
        ]
        stacks.append(Stack(tuple(volumes[values]), ", ".join(said)))
    return stacks


def _better_counted(keyword: str, value: str) -> bool:
    # A time of day would help to find out who was scanned; its rank does not.
    return keyword in _CLOCK_TIMES or len(value) > _LONGEST_PART


def _by_number(values: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    return tuple((_as_number(value), value) for value in values)


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _distances(frames: Sequence[Frame]) -> Vector:
    return np.array([frame.position for frame in frames]) @ frames[0].normal


def _step(frames: Sequence[Frame]) -> tuple[Vector, tuple[str, ...]]:
    """Return the vector from one slice to the next, by least squares over all positions."""
    first = frames[0]
    if len(frames) == 1:
        return _single_step(first)
    positions = np.array([frame.position for frame in frames])
    numbers = np.arange(len(frames)) - (len(frames) - 1) / 2
    step: Vector = numbers @ positions / (numbers @ numbers)
    straight = np.clip(step @ first.normal / np.linalg.norm(step), -1, 1)
    tilt = float(np.degrees(np.arccos(straight)))
    if tilt <= _VISIBLE_TILT_DEGREES:
        return step, ()
    return step, (f"the slices are sheared by {tilt:.1f}° (gantry tilt); the affine keeps it",)


def _single_step(frame: Frame) -> tuple[Vector, tuple[str, ...]]:
    if frame.thickness is not None and np.isfinite(frame.thickness) and frame.thickness > 0:
        return frame.normal * frame.thickness, ("only one slice; its thickness is the spacing",)
    return frame.normal, ("only one slice, without a thickness; 1 mm is assumed",)


def _refuse_uneven(frames: Sequence[Frame], lps: Affine, name: str) -> None:
    errors = np.array([_corner_error(frame, lps, k) for k, frame in enumerate(frames)])
    gap = float(np.linalg.norm(lps[:3, 2]))
    if len(frames) == 1 or errors.max() <= min(TOLERANCE_MM, _TOLERANCE_OF_GAP * gap):
        return
    distances = _distances(frames)
    gaps = np.diff(distances)
    usual = float(np.median(gaps))
    holes = np.flatnonzero(gaps > 1.5 * usual)
    counts = np.rint(gaps[holes] / usual) - 1
    whole = np.abs(gaps[holes] / usual - counts - 1).max(initial=0) < 0.1
    if holes.size and whole and np.abs(np.delete(gaps, holes) - usual).max(initial=0) < 0.1 * usual:
        behind = ", ".join(f"{distances[hole]:.2f}" for hole in holes[:5])
        raise GeometryError(
            f"{name}: {int(counts.sum())} slice(s) missing, after the slice at {behind} mm along "
            "the normal; send the complete series"
        )
    if gaps.max() - gaps.min() > TOLERANCE_MM:
        raise UnevenSpacingError(
            f"{name}: the slice spacing varies from {gaps.min():.2f} to {gaps.max():.2f} mm; "
            "resample the series to one spacing first, or let --resample-uneven do it"
        )
    raise _not_straight(float(errors.max()), name)


def _not_straight(error: float, name: str) -> GeometryError:
    return GeometryError(
        f"{name}: the slices are up to {error:.2f} mm off a regular stack: they are not "
        "parallel or not in a straight line"
    )


def _corner_error(frame: Frame, lps: Affine, k: float) -> float:
    """Return the largest distance in mm of a corner pixel from its place on the grid."""
    worst = 0.0
    for i in (0, frame.columns - 1):
        for j in (0, frame.rows - 1):
            own = (
                frame.position
                + frame.orientation[0] * frame.spacing[1] * i
                + frame.orientation[1] * frame.spacing[0] * j
            )
            worst = max(worst, float(np.abs(lps[:3] @ (i, j, k, 1) - own).max()))
    return worst
