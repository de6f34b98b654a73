"""What a data set says of itself: the names of its channels and labels, as far as it has any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.spec import ChannelSpec
from medseg.errors import DatasetError, MedsegError
from medseg.layouts import CaseListing
from medseg.layouts.channel_names import guess_modality
from medseg.layouts.dataset_json import (
    LabelMeanings,
    NamedRegion,
    clean_text,
    parse_channel_names,
    parse_labels,
    read_json_object,
)
from medseg.names import abbreviate
from medseg.planning.constraints import Notes
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.mask_labels import MaskLabels

Fields = dict[str, Any]
"""A channel, label or region as ``bundle.json`` writes it."""

_AIR_HU = -500.0
"""A scan with values below this is taken for CT in HU."""

_MAX_NAMED = 20
"""Labels that a note names: an atlas has hundreds."""


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """What a data set says of itself.

    Attributes:
        name: One that a bundle can have.
        description: One sentence, or empty.
        licence: Of the data, or empty.
        channel_names: In order; may be empty.
        label_names: Value in the files → name; may be empty.
        ignore: Value in the files of unlabelled voxels (nnU-Net's ignore label), if there is one.
        requested_channels: The channels as a person named them, in order; they take precedence.
        named_regions: Structures made of several values.
        mask_labels: The labels by what masks hold, where that is not one value for each.
    """

    name: str
    description: str
    licence: str
    channel_names: tuple[str, ...]
    label_names: Mapping[int, str]
    ignore: int | None = None
    requested_channels: tuple[ChannelSpec, ...] = ()
    named_regions: tuple[NamedRegion, ...] = ()
    mask_labels: MaskLabels | None = None

    @property
    def label_keys(self) -> dict[int, str]:
        """Number under which a fingerprint counts a label → name, where values do not say it."""
        return {} if self.mask_labels is None else self.mask_labels.names

    def list_header_fields(self) -> Fields:
        """Return the bundle's fields ``description`` and ``licence``, as far as they are known."""
        fields = {"description": self.description, "licence": self.licence}
        return {name: text for name, text in fields.items() if text}

    def describe_channels(
        self, fingerprint: Fingerprint, pictures: bool, notes: Notes
    ) -> list[Fields]:
        """Describe the channels of the cases.

        Args:
            fingerprint: Of the data set.
            pictures: Whether the cases are pictures, not scans.
            notes: Takes the reasons.

        Raises:
            DatasetError: If other channels were requested.
        """
        count = fingerprint.channel_count
        if self.requested_channels:
            return self._describe_requested_channels(count, notes)
        has_names = len(self.channel_names) == count
        channels = []
        for index in range(count):
            name = (
                self.channel_names[index]
                if has_names
                else f"channel {index + 1}"
            )
            modality, reason = _find_modality(
                name, fingerprint, index, pictures
            )
            if not has_names:
                name = name_channel(modality, index)
            channels.append({"name": name, **format_modality(modality)})
            notes[f"channels.{index}.modality"] = reason
        return channels

    def _describe_requested_channels(
        self, count: int, notes: Notes
    ) -> list[Fields]:
        requested = self.requested_channels
        if len(requested) != count:
            raise DatasetError(
                f"--channel names {len(requested)} channels, but the cases have {count}; name "
                "each of them, in order"
            )
        for index in range(count):
            notes[f"channels.{index}.modality"] = (
                "As requested, or by the channel's name"
            )
        return [
            {"name": channel.name, **format_modality(channel.modality)}
            for channel in requested
        ]

    def describe_labels(
        self, fingerprint: Fingerprint, notes: Notes
    ) -> list[Fields]:
        """Describe the labels that occur; of regions, all labels that they are made of.

        Args:
            fingerprint: Of the data set.
            notes: Takes the reasons.

        Raises:
            DatasetError: If there are none, or one that is in no region.
        """
        values = fingerprint.label_values
        if not values:
            raise DatasetError(
                "no case has a labelled voxel, so there is nothing to learn"
            )
        if self.mask_labels is not None:
            return self.mask_labels.describe(notes)
        if self.named_regions:
            self._require_regions_of(values)
            notes["regions"] = (
                "As dataset.json says, with the value that shows each in label maps"
            )
            return self.describe_named_labels()
        return self._describe_values(values, notes)

    def _describe_values(
        self, values: Sequence[int], notes: Notes
    ) -> list[Fields]:
        """Describe the labels where each value is one."""
        names: Mapping[int, str] = self.label_names
        remarks = []
        names_by_order = self._names_by_order(values)
        if names_by_order is not None:
            remarks.append(
                f"The data set names the labels {_list_values(names)}, the files hold "
                f"{_list_values(values)}; they are taken for the same, in this order"
            )
            names = names_by_order
        unnamed = [value for value in values if value not in names]
        if unnamed:
            remarks.append(
                f"Nothing names the values {_list_values(unnamed)}; give them names"
            )
        absent = [
            names[value] for value in sorted(names) if value not in values
        ]
        if absent:
            remarks.append(
                f"No case has {abbreviate(absent, _MAX_NAMED)}; left out"
            )
        if remarks:
            notes["labels"] = ". ".join(remarks)
        return _list_label_fields(values, names)

    def _names_by_order(
        self, values: Sequence[int]
    ) -> Mapping[int, str] | None:
        """Return value → name by the order of both, where names go with other values."""
        names = self.label_names
        if len(names) != len(values) or set(names) == set(values):
            return None
        by_order: dict[int, str] = {}
        for value, named_value in zip(values, sorted(names), strict=True):
            name = names[named_value]
            # No value may get another name than the one it is given explicitly.
            if names.get(value, name) != name:
                return None
            by_order[value] = name
        return by_order

    def describe_named_labels(self) -> list[Fields]:
        """Describe the labels that the data set names, whether they occur or not."""
        return _list_label_fields(sorted(self.label_names), self.label_names)

    def describe_regions(self) -> list[Fields]:
        """Describe the regions; none where the data set has none."""
        regions: list[Fields] = []
        names = self.label_names
        for number, region in enumerate(self.named_regions, start=1):
            values = sorted(set(region.values))
            fields = {
                "name": clean_text(region.name) or f"region_{number}",
                "labels": [names[value] for value in values],
                "paints": names.get(region.paints, f"value {region.paints}"),
            }
            regions.append(fields)
        return regions

    def _require_regions_of(self, values: Sequence[int]) -> None:
        """Refuse label files with values that are in no region: nothing says what they are."""
        unknown = [value for value in values if value not in self.label_names]
        if unknown:
            raise DatasetError(
                f"label files hold the values {unknown}, which are in none of the regions of "
                "dataset.json; add them to a region, or correct the files"
            )


def _list_values(values: Iterable[int]) -> str:
    return f"[{abbreviate(map(str, sorted(values)), _MAX_NAMED)}]"


def _list_label_fields(
    values: Sequence[int], names: Mapping[int, str]
) -> list[Fields]:
    """Return labels with indices from 1; ``value`` stands only where it is not the index."""
    labels: list[Fields] = []
    for index, value in enumerate(values, start=1):
        name = names.get(value, f"label_{value}")
        label: Fields = {"index": index, "name": name}
        if value != index:
            label["value"] = value
        labels.append(label)
    return labels


def format_modality(modality: str) -> Fields:
    """Return the field ``modality`` of a channel; nothing for ``OT``, its default."""
    return {} if modality == "OT" else {"modality": modality}


def name_channel(modality: str, index: int) -> str:
    """Return a name for a channel without one: its modality, or its number."""
    if index == 0 and modality != "OT":
        return modality
    return f"channel_{index + 1}"


def parse_channel(text: str) -> ChannelSpec:
    """Return the channel that ``--channel`` names: ``T1``, or with its modality ``uptake:PT``.

    Raises:
        MedsegError: If it is not a channel.
    """
    name, _, modality = (part.strip() for part in text.partition(":"))
    modality = modality or guess_modality(name) or "OT"
    try:
        return ChannelSpec(name=name, modality=modality)
    except ValueError as error:
        raise MedsegError(
            "--channel takes a name such as T1, or a name and a DICOM modality such as uptake:PT; "
            f"got '{text}'"
        ) from error


def _find_modality(
    name: str, fingerprint: Fingerprint, channel: int, pictures: bool
) -> tuple[str, str]:
    """Return a channel's DICOM modality, and the reason."""
    modality = guess_modality(name)
    if modality:
        return modality, f"The data set calls this channel '{name}'"
    lowest = min(case.channels[channel].minimum for case in fingerprint.typical)
    if not pictures and lowest < _AIR_HU:
        return (
            "CT",
            f"Guessed: values go down to {lowest:g}, like air in HU. Correct it if wrong",
        )
    return (
        "OT",
        "Unknown; name it if it is CT, MR or PT, which are normalised in their own ways",
    )


def read_description(
    root: Path,
    listed: CaseListing | None = None,
    requested: Sequence[ChannelSpec] = (),
) -> DatasetDescription:
    """Read what a data set says of its channels and labels: its ``dataset.json``, or its layout.

    Args:
        root: The data folder, or its list of cases.
        listed: The cases; the layout's names count where ``dataset.json`` has none.
        requested: The channels, where a person named them.

    Raises:
        DatasetError: If ``dataset.json`` cannot be read, or its labels make no sense.
    """
    file = root if root.suffix.lower() == ".json" else root / "dataset.json"
    folder = root if root.is_dir() else root.parent
    content = read_json_object(file) if file.is_file() else {}
    meanings = parse_labels(content, file)
    channel_names = parse_channel_names(content)
    label_names = _clean_label_names(meanings)
    if listed is not None:
        channel_names = channel_names or listed.channel_names
        label_names = {**listed.label_names, **label_names}
    name = content.get("name") or folder.resolve().name
    licence = content.get("licence") or content.get("license")
    return DatasetDescription(
        name=make_bundle_name(str(name)),
        description=clean_text(content.get("description")),
        licence=clean_text(licence),
        channel_names=channel_names,
        label_names=label_names,
        ignore=meanings.ignore,
        requested_channels=tuple(requested),
        named_regions=meanings.regions,
    )


def _clean_label_names(meanings: LabelMeanings) -> dict[int, str]:
    names = {}
    for value, name in meanings.names:
        names[value] = clean_text(name) or f"label_{value}"
    return names


def make_bundle_name(text: str) -> str:
    """Return a data set's name as one that a bundle can have."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    plain = plain.strip("_-").lower()[:64].strip("_-")
    return plain or "planned"
