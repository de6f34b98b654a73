"""Frames of a series → the volumes they make up.

By orientation and size first; then, where frames share positions, by what their headers say; by
their instance numbers only where the user asks for it, since these say nothing of time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, MedsegError
from medseg.io.dicom.frames import Frame, Frames, Vector
from medseg.io.dicom.geometry import (
    TOLERANCE_MM,
    Groups,
    are_parallel,
    compute_affine,
    get_positions,
    group_by_position,
    has_distinct_positions,
)

INSTANCE_NUMBER = "instance-number"
"""How a series can be split whose headers do not tell its volumes apart, if the user says so."""
FEWEST_SLICES = 4
"""A smaller stack beside larger ones may be stray slices."""

_MAX_ORIENTATIONS = 50
_LONGEST_VALUE = 24
_MAX_SPLIT_KEYWORDS = 3
_CLOCK_TIMES = ("AcquisitionTime",)
_ACQUISITIONS = ("AcquisitionNumber", "FrameAcquisitionNumber")

_Keywords = tuple[str, ...]
_Values = tuple[str, ...]


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


def split_stacks(
    frames: Frames, split_4d: str = ""
) -> tuple[list[Stack], list[str]]:
    """Split a series into volumes: by orientation and size, then by ``Frame.split_values``.

    Args:
        frames: Of all files.
        split_4d: What to split by where those do not tell the volumes apart:
            ``INSTANCE_NUMBER``, or nothing.

    Returns:
        The volumes, and a warning if a few slices were left out: localizers, odd sizes.

    Raises:
        GeometryError: If nearly every slice has its own orientation.
        MedsegError: If a series cannot be split by that.
    """
    if split_4d not in ("", INSTANCE_NUMBER):
        raise MedsegError(
            f"a 4D series can be split by {INSTANCE_NUMBER}, got '{split_4d}'"
        )
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
        return _split_group(only_group, split_4d), warnings
    stacks = []
    for number, group in enumerate(kept, start=1):
        for stack in _split_group(group, split_4d):
            name = f"orientation or size {number} {stack.volume_name}"
            renamed = Stack(stack.frames, name.strip())
            stacks.append(renamed)
    return stacks, warnings


def _drop_small_groups(groups: Groups) -> Groups:
    """Leave out groups of parallel slices that are stray slices rather than volumes."""
    largest = max(len(group) for group in groups)
    fewest = max(FEWEST_SLICES, largest / 2)
    fewest = min(fewest, largest)
    return [group for group in groups if len(group) >= fewest]


def _group_parallel(frames: Frames) -> Groups:
    groups: Groups = []
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


def _require_few_groups(groups: Groups, frame: Frame) -> None:
    """Refuse a frame that needs a group of its own, where there are many already."""
    count = len(groups)
    if count == _MAX_ORIENTATIONS:
        raise GeometryError(
            f"the series has more than {count} orientations or sizes of slices, so they are not "
            "one volume",
            source=frame.file,
        )


def _find_parallel(groups: Groups, frame: Frame) -> list[Frame] | None:
    for group in groups:
        if are_parallel(group[0], frame):
            return group
    return None


def split_by_instance_number(frames: Frames) -> list[Stack]:
    """Split parallel frames into volumes that were numbered one after another.

    Either every slice of a volume comes before the next volume, or every volume's slice at a
    position before the next position; in each volume the positions come in the same order.

    Returns:
        The volumes in the order of their numbers; none if the numbers make no such volumes.
    """
    volumes = _chop_by_number(frames)
    stacks = []
    for number, volume in enumerate(volumes, start=1):
        stack = Stack(tuple(volume), f"InstanceNumber #{number}")
        stacks.append(stack)
    return stacks


def _chop_by_number(frames: Frames) -> list[Frames]:
    count = len(frames)
    numbers = {frame.instance_number for frame in frames}
    if None in numbers or len(numbers) < count:
        return []
    groups = group_by_position(frames)
    positions = len(groups)
    times, rest = divmod(count, positions)
    fewest = min(times, positions)
    if rest or fewest < 2:
        return []
    in_order = sorted(frames, key=_get_number)
    places = _find_places(in_order, groups)
    volume_after_volume = places.reshape(times, positions)
    if _repeats_rows(volume_after_volume):
        starts = range(0, count, positions)
        return [in_order[start : start + positions] for start in starts]
    position_after_position = places.reshape(positions, times)
    if _repeats_rows(position_after_position.T):
        starts = range(times)
        return [in_order[start::times] for start in starts]
    return []


def _find_places(frames: Frames, groups: Groups) -> npt.NDArray[np.intp]:
    """Return the group that each frame is in, by number."""
    place_of: dict[Frame, int] = {}
    for place, group in enumerate(groups):
        for frame in group:
            place_of[frame] = place
    places = [place_of[frame] for frame in frames]
    return np.array(places)


def _get_number(frame: Frame) -> int:
    return frame.instance_number or 0


def _repeats_rows(places: npt.NDArray[np.intp]) -> bool:
    """Tell whether all rows are one order of different places."""
    first = places[0]
    different = np.unique(first)
    if len(different) < len(first):
        return False
    is_same = places == first
    return bool(is_same.all())


def _split_group(frames: list[Frame], split_4d: str) -> list[Stack]:
    """Split parallel frames of one size; they stay together where nothing tells them apart."""
    stacks = []
    if not has_distinct_positions(frames):
        stacks = _split_by_keywords(frames)
    if not stacks:
        stacks = _split_by_acquisition(frames)
    if not stacks and split_4d:
        stacks = split_by_instance_number(frames)
    return stacks or [Stack(tuple(frames))]


def _split_by_keywords(frames: list[Frame]) -> list[Stack]:
    """Split frames that share positions by the fewest elements that make volumes of them."""
    for keywords in _iterate_keywords(frames):
        volumes = _group_by_values(frames, keywords)
        if _are_volumes(list(volumes.values())):
            return _name_stacks(keywords, volumes)
    return []


def _split_by_acquisition(frames: list[Frame]) -> list[Stack]:
    """Split stacks that overlap: acquisitions of the upper and of the lower part of a body.

    Acquisitions that join without overlap are one volume, or lack slices between them.
    """
    for keyword in _ACQUISITIONS:
        keywords = (keyword,)
        volumes = _group_by_values(frames, keywords)
        groups = list(volumes.values())
        if _are_overlapping(groups):
            return _name_stacks(keywords, volumes)
    return []


def _are_overlapping(groups: Groups) -> bool:
    """Tell whether each is a regular stack that overlaps the next one, and neither holds the other.

    Each has to reach beyond the other by more than its spacing: one that merely lacks an end slice
    is incomplete.
    """
    smallest = min(len(group) for group in groups)
    if len(groups) < 2 or smallest < FEWEST_SLICES:
        return False
    if not all(map(is_regular, groups)):
        return False
    first_frame = groups[0][0]
    extents = [_Extent.measure(group, first_frame.normal) for group in groups]
    extents.sort()
    neighbours = pairwise(extents)
    return all(below.is_overlapped_by(above) for below, above in neighbours)


@dataclass(frozen=True, slots=True, order=True)
class _Extent:
    """Where a regular stack begins and ends along a normal, and how far its slices are apart."""

    start: float
    end: float
    step: float

    @classmethod
    def measure(cls, frames: Frames, normal: Vector) -> _Extent:
        distances = get_positions(frames) @ normal
        distances.sort()
        start, next_to_start = distances[:2].tolist()
        end = float(distances[-1])
        return cls(start, end, next_to_start - start)

    def is_overlapped_by(self, above: _Extent) -> bool:
        """Tell whether a stack that begins later overlaps this one, each reaching further."""
        if above.start > self.end:
            return False
        beyond_start = above.start - self.start
        if beyond_start <= self.step + TOLERANCE_MM:
            return False
        beyond_end = above.end - self.end
        return beyond_end > above.step + TOLERANCE_MM


def is_regular(frames: Frames) -> bool:
    """Tell whether parallel frames are a complete, even stack, one frame per position."""
    groups = group_by_position(frames)
    if len(groups) < len(frames):
        return False
    in_order = [group[0] for group in groups]
    try:
        compute_affine(in_order)
    except GeometryError:
        return False
    return True


def _group_by_values(
    frames: list[Frame], keywords: _Keywords
) -> dict[_Values, list[Frame]]:
    volumes = defaultdict(list)
    for frame in frames:
        values = _get_split_values(frame, keywords)
        volumes[values].append(frame)
    return volumes


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


def _are_volumes(volumes: Groups) -> bool:
    """Tell whether each is a stack, one frame per position, and all are at the same positions."""
    if len(volumes) < 2:
        return False
    first = volumes[0]
    if len(first) == 1:
        return False
    if any(len(volume) != len(first) for volume in volumes):
        return False
    for volume in volumes:
        if not has_distinct_positions(volume):
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
