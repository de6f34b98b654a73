"""What a data set says of its labels and channels, compared with the bundle that reads it.

Label files and images hold numbers alone. Where ``dataset.json``, a table or DICOM says what they
mean, it must be what the bundle says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.label_values import (
    Conflict,
    LabelValues,
    Values,
    find_conflicts,
    find_renamed,
    format_values,
)
from medseg.datasets.layouts import LISTING, CaseListing
from medseg.datasets.layouts.channel_names import (
    is_same_channel,
    read_modality,
    read_sequence,
)
from medseg.datasets.layouts.dataset_json import (
    find_ignore_value,
    parse_channel_names,
    parse_label_values,
    read_json_object,
)
from medseg.datasets.names import abbreviate
from medseg.errors import Fault

INSIST = "or insist on the bundle with --trust-values"
"""How to go on where the data set is wrong."""

_UNKNOWN_MODALITIES = ("", "OT")
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Statement:
    """What a data set says of itself.

    Attributes:
        labels: Its labels' names and values in label files.
        channels: The names of its channels, in order; empty where it does not say.
        modalities: The DICOM modality of each channel; empty where files do not state it.
        ignore: The value of unlabelled voxels, if it names one.
    """

    labels: LabelValues
    channels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    ignore: int | None = None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that a data set and a bundle say differently.

    Attributes:
        fault: What it is.
        label: The index of the label that label files hold only if the bundle is right; ``None``
            where files cannot tell.
    """

    fault: Fault
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A data set's statement beside a bundle.

    Attributes:
        contradictions: What cannot both be right.
        warnings: What a person should look at. They name what the data set says, so they are
            shown and never recorded.
    """

    contradictions: tuple[Contradiction, ...] = ()
    warnings: tuple[str, ...] = ()


def find_standing(
    contradictions: Sequence[Contradiction], present: Collection[int]
) -> list[Fault]:
    """Return the contradictions that label files do not settle.

    Args:
        contradictions: All.
        present: Indices of the labels that occur in cases without a fault.
    """
    return [
        contradiction.fault
        for contradiction in contradictions
        if contradiction.label not in present
    ]


def read_statement(root: Path, listing: CaseListing) -> Statement:
    """Read what a data set says of itself: its ``dataset.json``, or its layout.

    Args:
        root: The data folder, or its list of cases.
        listing: The listed cases.

    Raises:
        DatasetError: If there is a ``dataset.json`` that cannot be read.
    """
    is_list = root.suffix.lower() == ".json"
    statement = read_listing(root if is_list else root / LISTING)
    labels = statement.labels
    if not labels.labels:
        names = listing.stated_names.items()
        labels = LabelValues({name: Values([value]) for value, name in names})
    return Statement(
        labels=labels,
        channels=statement.channels or listing.channel_names,
        modalities=listing.modalities,
        ignore=statement.ignore,
    )


def read_listing(path: Path) -> Statement:
    """Read what a ``dataset.json`` says; nothing where there is none.

    Raises:
        DatasetError: If it cannot be read.
    """
    if not path.is_file():
        return Statement(LabelValues())
    content = read_json_object(path)
    labels, regions = parse_label_values(content)
    values = LabelValues(
        {name: Values(values) for name, values in labels.items()},
        {name: Values(values) for name, values in regions.items()},
    )
    channels = parse_channel_names(content)
    return Statement(values, channels, ignore=find_ignore_value(content))


def compare_statement(statement: Statement, spec: BundleSpec) -> Comparison:
    """Compare what a data set says with a bundle."""
    contradictions: list[Contradiction] = []
    warnings: list[str] = []
    # Where pictures hold colours, values of a list say nothing of them.
    if not spec.data.colour_coded:
        contradictions += _compare_labels(statement, spec)
        own = LabelValues.of_files(spec.label_set)
        warnings += _warn_of_renamed(statement.labels, own)
    for fault in _compare_channels(statement, spec.channels):
        contradictions.append(Contradiction(fault))
    warnings += _warn_of_contrast(statement, spec.channels)
    return Comparison(tuple(contradictions), tuple(warnings))


# --- labels -------------------------------------------------------------------------------


def _compare_labels(
    statement: Statement, spec: BundleSpec
) -> Iterator[Contradiction]:
    label_set = spec.label_set
    own = LabelValues.of_files(label_set)
    conflicts = find_conflicts(statement.labels, own)
    certain = [conflict for conflict in conflicts if conflict.is_certain]
    if certain:
        yield Contradiction(_describe_conflicts(certain))
    index_of = {label.name: label.index for label in label_set}
    for conflict in conflicts:
        if not conflict.is_certain and conflict.name in index_of:
            index = index_of[conflict.name]
            yield Contradiction(_describe_conflicts([conflict]), index)
    ignored = [
        label.name for label in label_set if statement.ignore in label.values
    ]
    if ignored:
        yield Contradiction(
            Fault(
                "data.ignore",
                f"the value {statement.ignore} is the data set's ignore label, and the bundle's "
                f"{ignored[0]}; correct the one that is wrong, {INSIST}",
            )
        )


def _describe_conflicts(conflicts: Sequence[Conflict]) -> Fault:
    said = describe_conflicts(conflicts, "the data set has", "the bundle")
    return Fault("labels", f"{said}; correct the one that is wrong, {INSIST}")


def describe_conflicts(
    conflicts: Sequence[Conflict], stated: str, own: str
) -> str:
    """Say which values two sides give the same names; the names are the own side's."""
    stated_texts = []
    own_texts = []
    for conflict in conflicts:
        stated_texts.append(
            f"{conflict.name} = {format_values(conflict.stated)}"
        )
        own_texts.append(f"{conflict.name} = {format_values(conflict.own)}")
    stated_list = abbreviate(stated_texts, _MOST_NAMED)
    own_list = abbreviate(own_texts, _MOST_NAMED)
    return f"{stated} {stated_list}, and {own} {own_list}"


def _warn_of_renamed(stated: LabelValues, own: LabelValues) -> Iterator[str]:
    renamed = [
        f"{value} is '{name}' there and '{own_name}' here"
        for value, name, own_name in find_renamed(stated, own)
    ]
    if renamed:
        yield (
            "the data set and the bundle name values differently; are these the same structures? "
            f"{abbreviate(renamed, _MOST_NAMED)}"
        )


# --- channels -----------------------------------------------------------------------------


def _compare_channels(
    statement: Statement, channels: Sequence[ChannelSpec]
) -> Iterator[Fault]:
    names = statement.channels
    if len(names) != len(channels):
        return
    own_names = [channel.name for channel in channels]
    if _has_other_order(names, own_names):
        order = [_find_own_name(name, own_names) for name in names]
        yield Fault(
            "channels",
            f"the data set has the channels {', '.join(order)} in this order, and the bundle "
            f"{', '.join(own_names)}; correct the one that is wrong, {INSIST}",
            f"its names are {', '.join(names)}",
        )
        return
    for number, (name, channel) in enumerate(zip(names, channels, strict=True)):
        own, stated = _find_difference(statement, number, name, channel)
        if own != stated:
            yield Fault(
                f"channels.{number}",
                f"the data set says that channel {number + 1} is {stated}, and the bundle's "
                f"'{channel.name}' is {own}; give data of the bundle's kind, correct the one that "
                f"is wrong, {INSIST}",
                f"its name is {name}",
            )


def _has_other_order(names: Sequence[str], own_names: Sequence[str]) -> bool:
    """Tell whether a channel is called as another one of the bundle."""
    for number, own in enumerate(own_names):
        if is_same_channel(names[number], own):
            continue
        if any(is_same_channel(name, own) for name in names):
            return True
    return False


def _find_own_name(name: str, own_names: Sequence[str]) -> str:
    for own in own_names:
        if is_same_channel(name, own):
            return own
    return "another"


def _find_difference(
    statement: Statement, number: int, name: str, channel: ChannelSpec
) -> tuple[str, str]:
    """Return what bundle and data set say of a channel; two equal texts where they agree."""
    modality = read_modality(name)
    if statement.modalities:
        modality = statement.modalities[number]
    own_modality = channel.modality
    if own_modality in _UNKNOWN_MODALITIES:
        own_modality = read_modality(channel.name) or ""
    known = {modality, own_modality} - {None, *_UNKNOWN_MODALITIES}
    if len(known) == 2:
        return own_modality, str(modality)
    sequence = read_sequence(name)
    own_sequence = read_sequence(channel.name)
    if sequence and own_sequence and sequence.kind != own_sequence.kind:
        return str(own_sequence), str(sequence)
    return "", ""


def _warn_of_contrast(
    statement: Statement, channels: Sequence[ChannelSpec]
) -> Iterator[str]:
    """Say where one of two T1 has contrast and the other not."""
    if len(statement.channels) != len(channels):
        return
    for name, channel in zip(statement.channels, channels, strict=True):
        sequence = read_sequence(name)
        own = read_sequence(channel.name)
        if not sequence or not own or sequence.kind != own.kind:
            continue
        if sequence != own:
            yield (
                f"the data set's channel '{name}' is {sequence}, and the bundle's "
                f"'{channel.name}' {own}; are they the same?"
            )
