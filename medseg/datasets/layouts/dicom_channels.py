"""Which DICOM series are the channels of a case: of one study, on the grid the labels lie on.

A channel is a series of the labelled one's study and frame of reference that lies on its grid,
voxel for voxel. Among these its modality decides where the bundle has one channel of it, and else
the Series Description: equal to the channel's name, or with every word of it. What is not certain
then is refused, with what there is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.names import abbreviate
from medseg.errors import GeometryError
from medseg.io.dicom.geometry import compute_affine, group_by_position, split_stacks
from medseg.io.dicom.series import Series
from medseg.volume import Volume

ANY = "OT"
"""The modality of a channel that says none."""

_REMEDY = (
    "resample it onto the labelled series' grid, saved as DICOM of the same study and frame of "
    "reference, or list NIfTI files in a cases.csv"
)


class Studies:
    """All series of a folder, by study; knows which of them are channels of one case.

    Args:
        series: Every series that was found.
        channels: The bundle's channels, several.
    """

    def __init__(self, series: Sequence[Series], channels: Sequence[ChannelSpec]) -> None:
        self._channels = channels
        self._by_study: dict[str, list[Series]] = defaultdict(list)
        self._grids: dict[int, Volume | None] = {}
        often = Counter(channel.modality for channel in channels)
        self._alone = {name for name, count in often.items() if count == 1 and name != ANY}
        for one in series:
            self._by_study[one.study].append(one)

    def channels_of(self, labelled: Series) -> tuple[Series, ...] | str:
        """Return the series of each channel, in order, or why that is not certain.

        Args:
            labelled: The series that labels were drawn on; it need not be a channel itself.
        """
        mates = self._by_study[labelled.study] if labelled.study else [labelled]
        off = {id(one): why for one in mates if (why := self._why_not(one, labelled))}
        if id(labelled) in off:
            return f"its series is no channel among several: it {off[id(labelled)]}"
        beside = [one for one in mates if id(one) not in off]
        options = [self._options(channel, beside, labelled) for channel in self._channels]
        chosen = _told_apart(options)
        for channel, fitting, one in zip(self._channels, options, chosen, strict=True):
            if one is None:
                return _several(channel, fitting) or _none(channel, mates, off)
        return tuple(one for one in chosen if one is not None)

    def _options(
        self, channel: ChannelSpec, beside: Sequence[Series], labelled: Series
    ) -> list[Series]:
        fitting = [one for one in beside if _is_of(channel, one)]
        if channel.modality in self._alone:
            if labelled in fitting:
                return [labelled]
            if len(fitting) == 1:
                return fitting
        equal = [one for one in fitting if _words(_told(one)) == _words(channel.name)]
        return equal or [one for one in fitting if _words(channel.name) <= _words(_told(one))]

    def _why_not(self, one: Series, labelled: Series) -> str:
        """Return why a series of a labelled one's study cannot be a channel beside it."""
        grid, wanted = self._grid(one), self._grid(labelled)
        if one.shares_files:
            return "lies in files that hold several volumes; split them first"
        if grid is None or wanted is None:
            return "is no volume that can be read for certain"
        if len(_references(one)) != 1 or _references(one) != _references(labelled):
            return "has another frame of reference than the labelled series, or none"
        if grid.shape != wanted.shape:
            return f"has {_times(grid)} voxels and the labelled series {_times(wanted)}; {_REMEDY}"
        if not wanted.on_same_grid(grid):
            away = wanted.grid_distance(grid)
            return f"lies {away:.3g} mm off the labelled series' grid; {_REMEDY}"
        return ""

    def _grid(self, one: Series) -> Volume | None:
        if id(one) not in self._grids:
            self._grids[id(one)] = _grid_of(one)
        return self._grids[id(one)]


def _grid_of(one: Series) -> Volume | None:
    """Return a series' grid as reading it would place it; ``None`` where reading would refuse."""
    try:
        stacks, _ = split_stacks(one.frames) if one.frames else ([], [])
        if len(stacks) != 1:
            return None
        frames = [place[0] for place in group_by_position(stacks[0].frames)]
        affine, _ = compute_affine(frames, one.description)
    except GeometryError:
        return None
    shape = (1, frames[0].columns, frames[0].rows, len(frames))
    return Volume(np.broadcast_to(np.zeros(1, np.uint8), shape), affine)


def _told_apart(options: Sequence[Sequence[Series]]) -> list[Series | None]:
    """Choose a series for each channel; what only one channel can be is taken from the others."""
    chosen: list[Series | None] = [None] * len(options)
    while True:
        taken = {id(one) for one in chosen if one is not None}
        left = [[one for one in fitting if id(one) not in taken] for fitting in options]
        sure = [n for n, one in enumerate(chosen) if one is None and len(left[n]) == 1]
        alone = Counter(id(left[n][0]) for n in sure)
        sure = [n for n in sure if alone[id(left[n][0])] == 1]
        if not sure:
            return chosen
        for n in sure:
            chosen[n] = left[n][0]


def _is_of(channel: ChannelSpec, one: Series) -> bool:
    return channel.modality in (ANY, one.modality)


def _several(channel: ChannelSpec, fitting: Sequence[Series]) -> str:
    if not fitting:
        return ""
    how = (
        f"{len(fitting)} series on its grid may be"
        if len(fitting) > 1
        else "another channel may be the same series as"
    )
    return (
        f"{how} the channel '{channel.name}' ({_listed(fitting)}); name the bundle's channels as "
        "Series Descriptions are, or keep one of the series"
    )


def _none(channel: ChannelSpec, mates: Sequence[Series], off: Mapping[int, str]) -> str:
    near = [one for one in mates if id(one) in off and _is_of(channel, one)]
    named = [one for one in near if _words(channel.name) <= _words(_told(one))] or near
    reasons = [f"{_shown(one)} {off[id(one)]}" for one in named[:3]]
    said = "; ".join(reasons) or f"its study holds {_listed(mates)}"
    return f"has no series for the channel '{channel.name}' ({channel.modality}): {said}"


def _listed(series: Sequence[Series]) -> str:
    return abbreviate(_shown(one) for one in series)


def _shown(one: Series) -> str:
    return f"'{_told(one) or 'no description'}' ({one.modality or ANY})"


def _told(one: Series) -> str:
    return " ".join(filter(None, (one.description, one.volume_name)))


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold().replace("_", " ")))


def _references(one: Series) -> set[str]:
    return {frame.frame_of_reference for frame in one.frames if frame.frame_of_reference}


def _times(grid: Volume) -> str:
    return "×".join(str(size) for size in grid.shape)
