"""Scans whose channels are DICOM series of one study, by the rules of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from medseg._support.long_sort import sort_long
from medseg.datasets.channel_ways import describe_missing
from medseg.datasets.scan_candidates import (
    Candidate,
    LeftOut,
    Search,
    count_files,
    make_series,
)
from medseg.io import Series
from medseg.io.dicom.series_search import PlacedSeries
from medseg.layouts.dicom_channels import (
    ChannelChoice,
    Studies,
    describe_series,
)

_ANCHOR = "the other series"


@dataclass(frozen=True, slots=True)
class _Study:
    """What a study comes to.

    Attributes:
        place: Where it comes in the order of studies.
        scans: Its scans.
        left_out: Why it has none.
        unused: How many of its series are no channels of them.
    """

    place: tuple[int, int]
    scans: Sequence[Candidate]
    left_out: Sequence[LeftOut]
    unused: int


def add_studies(
    root: Path, parts: Iterable[Sequence[PlacedSeries]], search: Search
) -> None:
    """Make a scan of the series of each study that are channels of one another.

    It is called after the series of its first channel, as the case of training is whose labels
    were drawn on that. A study in which no grid has all channels is left out, once.

    Args:
        root: The folder that is searched.
        parts: Some series at a time; all of a study are among these.
        search: Knows the channels, and takes the scans.
    """
    found = _look_at(root, parts, search)
    by_place = sort_long(found, key=attrgetter("place"), weigh=_count_files)
    unused = 0
    for study in by_place:
        search.candidates.extend(study.scans)
        search.left_out.extend(study.left_out)
        unused += study.unused
    if unused:
        search.notes.append(
            f"{unused} DICOM series beside the channels of scans: not used"
        )


def _look_at(
    root: Path, parts: Iterable[Sequence[PlacedSeries]], search: Search
) -> Iterator[_Study]:
    for part in parts:
        series = [each for _, each in part]
        studies = Studies(series, search.specs, _ANCHOR)
        for place, members in _group_by_study(part):
            study = members[0].study
            choices = list(studies.find_cases(study)) if study else []
            yield _decide(root, place, members, choices, search)


def _group_by_study(
    part: Iterable[PlacedSeries],
) -> Iterator[tuple[tuple[int, int], list[Series]]]:
    """Give the place and the series of each study, and each one of no study alone."""
    places: dict[tuple[str, str], tuple[int, int]] = {}
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for place, each in part:
        alone = "" if each.study else str(each.files[0])
        key = (each.study, alone)
        places.setdefault(key, place)
        groups[key].append(each)
    for key, place in places.items():
        yield place, groups[key]


def _decide(
    root: Path,
    place: tuple[int, int],
    members: Sequence[Series],
    choices: Sequence[ChannelChoice],
    search: Search,
) -> _Study:
    whole = [each for each in choices if len(each.found) == search.channels]
    if not whole:
        entry = _describe_study(root, members, choices, search)
        return _Study(place, [], [entry], 0)
    scans = [_make_scan(root, choice, search) for choice in whole]
    unused = len(members) - len(whole) * search.channels
    return _Study(place, scans, [], unused)


def _count_files(study: _Study) -> int:
    return 1 + sum(map(count_files, study.scans))


def _make_scan(root: Path, choice: ChannelChoice, search: Search) -> Candidate:
    channels = [choice.found[number] for number in range(search.channels)]
    first = make_series(channels[0], root)
    warnings: list[str] = []
    for channel in channels:
        warnings += channel.warnings
    return replace(
        first,
        parts=tuple(channel.files for channel in channels),
        warnings=tuple(dict.fromkeys(warnings)),
        modalities=tuple(channel.modality for channel in channels),
    )


def _describe_study(
    root: Path,
    members: Sequence[Series],
    choices: Sequence[ChannelChoice],
    search: Search,
) -> LeftOut:
    """Say which channels a study has on one grid, at best, and which it lacks."""
    names = search.channel_names
    nearest = max(
        choices,
        key=lambda choice: len(choice.found),
        default=ChannelChoice({}, (), ()),
    )
    found = [names[number] for number in sorted(nearest.found)]
    doubled = [names[number] for number in nearest.doubled]
    there = {number for choice in choices for number in choice.found}
    others = sorted(there - {*nearest.found, *nearest.doubled})
    elsewhere = [names[number] for number in others]
    # The name that the scan will have once it is whole.
    named = make_series(nearest.found.get(0, members[0]), root)
    return LeftOut(
        named.name,
        members[0].files[0].relative_to(root).as_posix(),
        describe_missing(
            names,
            found,
            doubled,
            _describe_ways(names),
            elsewhere,
        ),
        f"its series are {describe_series(members)}",
        tuple(member.modality for member in members),
    )


def _describe_ways(names: Sequence[str]) -> str:
    return (
        "the series of a study are channels where they lie on one grid in one frame of reference, "
        "and Modality or Series Description tells which is which; or give a CSV with the columns "
        f"{','.join(names)} and a line per case"
    )
