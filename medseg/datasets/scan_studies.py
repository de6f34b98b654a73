"""Scans whose channels are DICOM series of one study, by the rules of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.datasets.channel_ways import describe_missing
from medseg.datasets.scan_candidates import (
    Candidate,
    LeftOut,
    Search,
    make_series,
)
from medseg.io import Series
from medseg.layouts.dicom_channels import (
    ChannelChoice,
    Studies,
    describe_series,
)

_ANCHOR = "the other series"


def add_studies(root: Path, series: Sequence[Series], search: Search) -> None:
    """Make a scan of the series of each study that are channels of one another.

    It is called after the series of its first channel, as the case of training is whose labels
    were drawn on that. A study in which no grid has all channels is left out, once.
    """
    studies = Studies(series, search.specs, _ANCHOR)
    unused = 0
    for members in _group_by_study(series):
        study = members[0].study
        choices = list(studies.find_cases(study)) if study else []
        whole = [each for each in choices if len(each.found) == search.channels]
        for choice in whole:
            search.candidates.append(_make_scan(root, choice, search))
        if whole:
            unused += len(members) - len(whole) * search.channels
        else:
            entry = _describe_study(root, members, choices, search)
            search.left_out.append(entry)
    if unused:
        search.notes.append(
            f"{unused} DICOM series beside the channels of scans: not used"
        )


def _group_by_study(series: Iterable[Series]) -> list[list[Series]]:
    """Return the series of each study, and each one of no study alone."""
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for each in series:
        alone = "" if each.study else str(each.files[0])
        groups[each.study, alone].append(each)
    return list(groups.values())


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
