"""What a data set says of its labels and channels, compared with the bundle that reads it.

Label files and images hold numbers alone. Where ``dataset.json``, a table or DICOM says what they
mean, it must be what the bundle says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    list_file_values,
)
from medseg.errors import Fault
from medseg.layouts import LISTING, CaseListing
from medseg.layouts.channel_names import (
    is_same_channel,
    normalize_modality,
    read_modality,
    read_sequence,
)
from medseg.layouts.dataset_json import (
    find_ignore_value,
    parse_channel_names,
    parse_label_values,
    parse_region_values,
    read_json_object,
)
from medseg.names import abbreviate

INSIST = "or insist on the bundle with --trust-values"
"""How to go on where the data set is wrong."""

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
    listed_in = root
    if root.suffix.lower() != ".json":
        folder = root if root.is_dir() else root.parent
        listed_in = folder / LISTING
    statement = read_listing(listed_in)
    labels = statement.labels
    if not labels.labels:
        named: dict[str, set[int]] = defaultdict(set)
        for value, name in listing.stated_names.items():
            named[name].add(value)
        labels = LabelValues(_freeze(named))
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
    return Statement(
        labels=LabelValues(
            labels=_freeze(parse_label_values(content)),
            regions=_freeze(parse_region_values(content)),
        ),
        channels=parse_channel_names(content),
        ignore=find_ignore_value(content),
    )


def _freeze(values_of: Mapping[str, set[int]]) -> dict[str, Values]:
    return {name: Values(values) for name, values in values_of.items()}


def compare_statement(statement: Statement, spec: BundleSpec) -> Comparison:
    """Compare what a data set says with a bundle."""
    contradictions: list[Contradiction] = []
    warnings: list[str] = []
    # Where pictures hold colours, values of a list say nothing of them.
    if not spec.data.colour_coded:
        contradictions += _compare_labels(statement, spec)
        own = list_file_values(spec.label_set)
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
    own = list_file_values(label_set)
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
    stated_values = {conflict.name: conflict.stated for conflict in conflicts}
    own_values = {conflict.name: conflict.own for conflict in conflicts}
    stated_list = _list_values(stated_values)
    own_list = _list_values(own_values)
    return f"{stated} {stated_list}, and {own} {own_list}"


def _list_values(values_of: Mapping[str, Values]) -> str:
    """Write names and values in the order of the values."""
    texts = []
    for name in sorted(values_of, key=lambda name: min(values_of[name])):
        values = format_values(values_of[name])
        texts.append(f"{name} = {values}")
    return abbreviate(texts, _MOST_NAMED)


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
    for name, own in zip(names, own_names, strict=True):
        if is_same_channel(name, own):
            continue
        elsewhere = [is_same_channel(other, own) for other in names]
        if any(elsewhere):
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
        modality = normalize_modality(statement.modalities[number])
    own_modality = normalize_modality(channel.modality)
    if own_modality is None:
        own_modality = read_modality(channel.name)
    are_known = modality is not None and own_modality is not None
    if are_known and modality != own_modality:
        return str(own_modality), str(modality)
    sequence = read_sequence(name)
    own_sequence = read_sequence(channel.name)
    if not sequence or not own_sequence:
        return "", ""
    if sequence.kind == own_sequence.kind:
        return "", ""
    return str(own_sequence), str(sequence)


def _warn_of_contrast(
    statement: Statement, channels: Sequence[ChannelSpec]
) -> Iterator[str]:
    """Say where one of two T1 has contrast and the other not."""
    if len(statement.channels) != len(channels):
        return
    own_names = [channel.name for channel in channels]
    if _has_other_order(statement.channels, own_names):
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
