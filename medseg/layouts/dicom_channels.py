"""Which DICOM series are the channels of a case: of one study, on the grid the labels lie on.

A channel is a series of the labelled one's study and frame of reference that lies on its grid,
voxel for voxel. Among these its modality decides where the bundle has one channel of it, and else
the Series Description: equal to the channel's name, or with every word of it. What is not certain
then is refused, with what there is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.bundle.spec import ChannelSpec
from medseg.errors import GeometryError, ScanError
from medseg.io.dicom.geometry import compute_affine, group_by_position
from medseg.io.dicom.series import Series
from medseg.io.dicom.stacks import split_stacks
from medseg.names import abbreviate
from medseg.volume import Volume

ANY = "OT"
"""The modality of a channel that says none."""

_REMEDY = (
    "resample it onto the grid of {}, saved as DICOM of the same study and frame of reference, or "
    "list NIfTI files in a CSV"
)
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True)
class ChannelChoice:
    """What the series on one grid are to a bundle.

    Attributes:
        found: Channel's number → its series, of those that are certain.
        doubled: Numbers of channels that several series may be.
        series: All series on the grid.
    """

    found: Mapping[int, Series]
    doubled: tuple[int, ...]
    series: tuple[Series, ...]


class Studies:
    """All series of a folder, by study; knows which of them are channels of one case.

    Args:
        series: Every series that was found.
        channels: The bundle's channels, several.
        anchor: What the others must lie on, for messages.
    """

    def __init__(
        self,
        series: Sequence[Series],
        channels: Sequence[ChannelSpec],
        anchor: str = "the labelled series",
    ) -> None:
        self._anchor = anchor
        self._channels = channels
        self._modality_counts = Counter(
            channel.modality for channel in channels
        )
        self._grids: dict[int, Volume | None] = {}
        self._by_study: dict[str, list[Series]] = defaultdict(list)
        for each in series:
            study = self._by_study[each.study]
            study.append(each)

    def find_channels(self, labelled: Series) -> tuple[Series, ...]:
        """Return the series of each channel, in order.

        Args:
            labelled: The series that labels were drawn on; it need not be a channel itself.

        Raises:
            ScanError: If that is not certain; says why.
        """
        mates = [labelled]
        if labelled.study:
            mates = self._by_study[labelled.study]
        obstacles = self._find_obstacles(mates, labelled)
        if id(labelled) in obstacles:
            reason = obstacles[id(labelled)]
            raise ScanError(
                f"its series cannot be one of several channels: it {reason}"
            )
        usable = [mate for mate in mates if id(mate) not in obstacles]
        options, assigned = self._match(usable, labelled)
        chosen = []
        for number, channel in enumerate(self._channels):
            if number in assigned:
                series = assigned[number]
                chosen.append(series)
            elif options[number]:
                raise _ambiguous_channel(channel, options[number])
            else:
                raise _missing_channel(channel, mates, obstacles)
        return tuple(chosen)

    def find_cases(self, study: str) -> Iterator[ChannelChoice]:
        """Yield, for each grid of a study, which of the series on it are channels.

        Nothing says which series is meant, as a label does: each channel has to be told by its
        modality or description alone.
        """
        seen: set[frozenset[int]] = set()
        mates = self._by_study[study]
        for first in mates:
            obstacles = self._find_obstacles(mates, first)
            usable = [mate for mate in mates if id(mate) not in obstacles]
            group = frozenset(id(mate) for mate in usable)
            if not usable or group in seen:
                continue
            seen.add(group)
            options, assigned = self._match(usable)
            doubled = []
            for number, channel in enumerate(self._channels):
                may_be = options[number] or self._is_told(channel, usable)
                if may_be and number not in assigned:
                    doubled.append(number)
            yield ChannelChoice(assigned, tuple(doubled), tuple(usable))

    def _is_told(self, channel: ChannelSpec, usable: Sequence[Series]) -> bool:
        """Tell whether its modality says of some series that they are a channel or none."""
        if (
            channel.modality == ANY
            or self._modality_counts[channel.modality] > 1
        ):
            return False
        return any(_has_modality(series, channel) for series in usable)

    def _match(
        self, usable: Sequence[Series], labelled: Series | None = None
    ) -> tuple[list[list[Series]], dict[int, Series]]:
        """Return the series that each channel may be, and those that are certain."""
        options = [
            self._find_options(channel, usable, labelled)
            for channel in self._channels
        ]
        return options, _assign(options)

    def _find_options(
        self,
        channel: ChannelSpec,
        usable: Sequence[Series],
        labelled: Series | None,
    ) -> list[Series]:
        """Return the series that may be a channel."""
        candidates = [
            series for series in usable if _has_modality(series, channel)
        ]
        is_only_of_modality = self._modality_counts[channel.modality] == 1
        if is_only_of_modality and channel.modality != ANY:
            if labelled is not None and labelled in candidates:
                return [labelled]
            if len(candidates) == 1:
                return candidates
        name = _split_words(channel.name)
        equal = [
            series for series in candidates if _describing_words(series) == name
        ]
        if equal:
            return equal
        return [
            series for series in candidates if name <= _describing_words(series)
        ]

    def _find_obstacles(
        self, mates: Iterable[Series], labelled: Series
    ) -> dict[int, str]:
        """Return why series of a labelled one's study cannot be channels beside it, by ``id``."""
        obstacles = {}
        for mate in mates:
            reason = self._find_obstacle(mate, labelled)
            if reason:
                obstacles[id(mate)] = reason
        return obstacles

    def _find_obstacle(self, series: Series, labelled: Series) -> str:
        if series.shares_files:
            return "lies in files that hold several volumes; split them first"
        grid, wanted = self._grid_of(series), self._grid_of(labelled)
        if grid is None or wanted is None:
            return "is no volume that can be read for certain"
        frame_of_reference = _frames_of_reference(series)
        if len(
            frame_of_reference
        ) != 1 or frame_of_reference != _frames_of_reference(labelled):
            return (
                f"has another frame of reference than {self._anchor}, or none"
            )
        try:
            wanted.reorder_to_grid(grid, f"{self._anchor} and this one")
        except GeometryError as error:
            remedy = _REMEDY.format(self._anchor)
            return (
                f"does not lie on the grid of {self._anchor}: {error.message}; "
                f"{remedy}"
            )
        return ""

    def _grid_of(self, series: Series) -> Volume | None:
        if id(series) not in self._grids:
            self._grids[id(series)] = _compute_grid(series)
        return self._grids[id(series)]


def _compute_grid(series: Series) -> Volume | None:
    """Return a series' grid as reading it would place it; ``None`` where reading would refuse."""
    if not series.frames:
        return None
    try:
        stacks, _ = split_stacks(series.frames)
        if len(stacks) != 1:
            return None
        positions = group_by_position(stacks[0].frames)
        frames = [at_position[0] for at_position in positions]
        affine, _ = compute_affine(frames)
    except GeometryError:
        return None
    first = frames[0]
    shape = (1, first.columns, first.rows, len(frames))
    nothing = np.zeros(1, np.uint8)
    return Volume(np.broadcast_to(nothing, shape), affine)


def _assign(options: Sequence[Sequence[Series]]) -> dict[int, Series]:
    """Choose a series for each channel; what only one channel can be is taken from the others.

    Args:
        options: The series that each channel may be.

    Returns:
        Channel → its series. Those are missing for which several are left, or none.
    """
    assigned: dict[int, Series] = {}
    while True:
        certain = _find_certain(options, assigned)
        if not certain:
            return assigned
        assigned |= certain


def _find_certain(
    options: Sequence[Sequence[Series]], assigned: Mapping[int, Series]
) -> dict[int, Series]:
    """Return channel → series, where one series is left that no other channel must be."""
    taken = {id(series) for series in assigned.values()}
    only: dict[int, Series] = {}
    claims: Counter[int] = Counter()
    for channel, candidates in enumerate(options):
        if channel in assigned:
            continue
        left = [series for series in candidates if id(series) not in taken]
        if len(left) == 1:
            series = left[0]
            only[channel] = series
            claims[id(series)] += 1
    return {
        channel: series
        for channel, series in only.items()
        if claims[id(series)] == 1
    }


def _ambiguous_channel(
    channel: ChannelSpec, candidates: Sequence[Series]
) -> ScanError:
    if len(candidates) > 1:
        what = f"{len(candidates)} series on its grid may be the channel '{channel.name}'"
    else:
        what = f"another channel may be the same series as the channel '{channel.name}'"
    return ScanError(
        f"{what}; name the bundle's channels as Series Descriptions are, or keep one of the series",
        detail=describe_series(candidates),
    )


def _missing_channel(
    channel: ChannelSpec, mates: Sequence[Series], obstacles: Mapping[int, str]
) -> ScanError:
    name = _split_words(channel.name)
    near = []
    named = []
    for mate in mates:
        if id(mate) in obstacles and _has_modality(mate, channel):
            near.append(mate)
            if name <= _describing_words(mate):
                named.append(mate)
    reasons = []
    for mate in (named or near)[:_MOST_REASONS]:
        reason = obstacles[id(mate)]
        reasons.append(f"{_describe(mate)} {reason}")
    return ScanError(
        f"has no series for the channel '{channel.name}' ({channel.modality}) on its grid",
        detail="; ".join(reasons)
        or f"its study holds {describe_series(mates)}",
    )


def _has_modality(series: Series, channel: ChannelSpec) -> bool:
    return channel.modality in (ANY, series.modality)


def describe_series(series: Iterable[Series]) -> str:
    """Name some series by their descriptions, which are texts of headers."""
    return abbreviate(_describe(each) for each in series)


def _describe(series: Series) -> str:
    description = _description(series) or "no description"
    modality = series.modality or ANY
    return f"'{description}' ({modality})"


def _description(series: Series) -> str:
    parts = (series.description, series.volume_name)
    return " ".join(part for part in parts if part)


def _describing_words(series: Series) -> frozenset[str]:
    return _split_words(_description(series))


def _split_words(text: str) -> frozenset[str]:
    plain = text.casefold().replace("_", " ")
    return frozenset(re.findall(r"\w+", plain))


def _frames_of_reference(series: Series) -> set[str]:
    uids = {frame.frame_of_reference for frame in series.frames}
    return uids - {""}
