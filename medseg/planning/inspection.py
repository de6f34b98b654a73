"""A data set is searched and looked at once, whatever is planned for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.cases import Case, CaseList, make_cases
from medseg.datasets.layouts import CaseListing, Selection, list_cases
from medseg.datasets.names import is_picture
from medseg.errors import DatasetError
from medseg.events import Listener, Notice, notify
from medseg.planning.description import DatasetDescription, read_description
from medseg.planning.fingerprint import Fingerprint, extract_fingerprint
from medseg.planning.network import slim_network
from medseg.training.runs import RUNS

_ENOUGH_TO_MISS = 5
"""Cases from which on a label that one alone has is worth a word."""


@dataclass(frozen=True, slots=True)
class InspectedDataset:
    """A data set, looked at.

    Attributes:
        root: Its folder, or its list of cases.
        subject: What it says of itself.
        found: Its cases.
        survey: What they look like.
        pictures: Whether most are pictures.
    """

    root: Path
    subject: DatasetDescription
    found: CaseList
    survey: Fingerprint
    pictures: bool


def inspect_dataset(
    root: Path, asked: Sequence[ChannelSpec], listeners: Sequence[Listener]
) -> InspectedDataset:
    """Search a data set and look at its cases, each file once; notify what is odd about it.

    Raises:
        DatasetError: If it cannot be understood, has no such channels, or holds no good case.
    """
    listed = list_cases(root, "auto", Selection(channels=tuple(asked)))
    names = tuple(channel.name for channel in asked)
    if names and listed.channel_names not in ((), names):
        raise DatasetError(
            f"{root}: --channel names {', '.join(names)}; most cases here have "
            f"{', '.join(listed.channel_names)}"
        )
    subject = read_description(root, listed, asked)
    # Of the labels none is needed yet: a list may name more than there are.
    draft = provisional_spec(
        _channel_files(listed, subject),
        {1: "label"},
        names=listed.channel_names,
        ignore=listed.ignore,
    )
    found = make_cases(listed, draft)
    survey = extract_fingerprint(found, RUNS / "surveyed", listeners, subject.ignore)
    if not survey.cases:
        raise DatasetError("no case can be used:", survey.faults)
    for fault in survey.faults:
        notify(listeners, Notice(f"left out: {fault}"))
    for warning in (*found.warnings, *_doubts(survey)):
        notify(listeners, Notice(warning))
    return InspectedDataset(root, subject, found, survey, _are_pictures(found.cases))


def _channel_files(listed: CaseListing, subject: DatasetDescription) -> int:
    """Return of how many files a case is made: as many as channels are named, or as most are."""
    often = Counter(len(row.images) for row in listed.rows)
    named = len(subject.channel_names)
    usual = max(often, key=lambda files: (often[files], files), default=1)
    return named if named in often else usual


def provisional_spec(
    channels: int,
    labels: Mapping[int, str],
    *,
    names: Sequence[str] = (),
    ignore: int | None = None,
    dims: int = 3,
    wide: bool = False,
) -> BundleSpec:
    """Return a bundle for what needs one before there is a plan.

    Args:
        channels: How many.
        labels: Value and name of each.
        names: Of the channels, where the data say them.
        ignore: Value of voxels that nobody annotated.
        dims: Of the network.
        wide: Whether it is nnU-Net's, or the slim one.
    """
    network = slim_network(dims, [(2,) * dims] * 3)
    if wide:
        network = {"kind": "unet", "dims": dims, "channels": 32}
    return parse_spec(
        {
            "name": "draft",
            "channels": [
                {"name": names[n] if names else f"channel {n + 1}"} for n in range(channels)
            ],
            "labels": [
                {"index": index, "name": name, "value": value}
                for index, (value, name) in enumerate(sorted(labels.items()), start=1)
            ],
            "data": {"ignore": None if ignore in labels else ignore},
            "network": network,
            "training": {"patch": [48] * 3 if dims == 3 else [192] * 2, "optimizer": "adamw"},
        }
    )


def _are_pictures(cases: Sequence[Case]) -> bool:
    """Tell whether most cases are pictures, not scans."""
    kinds = Counter(
        all(is_picture(file) for part in case.scan.parts for file in part) for case in cases
    )
    return bool(kinds) and kinds.most_common(1)[0][0]


def _doubts(survey: Fingerprint) -> Iterator[str]:
    count = len(survey.cases)
    if count == 1:
        yield (
            "there is one case: none can be held back, so nothing can be measured and what is "
            "learned may hold for this case alone. Train with --fold none"
        )
    empty = sum(not case.labels for case in survey.cases)
    if empty:
        yield f"{empty} of {count} cases have no labelled voxel"
    for value in survey.values if count >= _ENOUGH_TO_MISS else ():
        where = survey.label(value)
        if len(where) == 1:
            yield (
                f"label {value} is in 1 of {count} cases alone, with {where[0].voxels} voxels: "
                "little can be learned of it. Is it a slip?"
            )
