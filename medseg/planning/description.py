"""What a data set is about: the names of its channels and labels, as far as it says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.layouts import CaseListing
from medseg.datasets.layouts.dataset_json import NamedRegion, label_meanings
from medseg.datasets.layouts.msd_csv import read_json_list
from medseg.datasets.names import abbreviate
from medseg.errors import DatasetError, MedsegError
from medseg.planning.constraints import Notes
from medseg.planning.fingerprint import Fingerprint

Described = dict[str, Any]
"""A channel or label as ``bundle.json`` writes it."""

_MODALITIES = {
    "CT": r"ct|cta|cbct|hu",
    "MR": r"mri?|t1\w*|t2\w*|flair|adc|dwi|pd|cine|ce|post|pre|ktrans",
    "PT": r"pet|pt|suv",
    "US": r"us|ultrasound",
}
_AIR = -500.0
"""A scan that goes below this is taken for CT in HU."""

_MOST_NAMED = 20
"""Labels that a note names: an atlas has hundreds."""


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """What a data set says of itself.

    Attributes:
        name: Fit for a bundle's name.
        description: One sentence, or nothing.
        licence: Of the data, or nothing.
        channel_names: In order; may be empty.
        label_names: Value in the files → name; may be empty.
        ignore: Value in the files of voxels that nobody annotated, if it says one.
        asked: The channels as a person named them, in order; they count before what it says.
        named_regions: Structures that it makes of several values.
    """

    name: str
    description: str
    licence: str
    channel_names: tuple[str, ...]
    label_names: Mapping[int, str]
    ignore: int | None = None
    asked: tuple[ChannelSpec, ...] = ()
    named_regions: tuple[NamedRegion, ...] = ()

    def channels(self, survey: Fingerprint, pictures: bool, notes: Notes) -> list[Described]:
        """Describe the channels that the cases have.

        Raises:
            DatasetError: If others were asked for.
        """
        count = len(survey.cases[0].channels)
        if self.asked:
            return list(self._as_asked(count, notes))
        names = self.channel_names if len(self.channel_names) == count else ()
        made: list[Described] = []
        for place in range(count):
            name = names[place] if names else f"channel {place + 1}"
            modality, why = _modality(name, survey, place, pictures)
            made.append(
                {"name": name if names else modality_name(modality, place), **modality_of(modality)}
            )
            notes[f"channels.{place}.modality"] = why
        return made

    def _as_asked(self, count: int, notes: Notes) -> Iterator[Described]:
        if len(self.asked) != count:
            raise DatasetError(
                f"--channel names {len(self.asked)} channels, and the cases have {count}; name "
                "each of them, in order"
            )
        for place, channel in enumerate(self.asked):
            notes[f"channels.{place}.modality"] = "As asked, or as the name says"
            yield {"name": channel.name, **modality_of(channel.modality)}

    def labels(self, survey: Fingerprint, notes: Notes) -> list[Described]:
        """Describe the labels that occur; where they form regions, those that these need.

        Raises:
            DatasetError: If there are none, or one that is in no region.
        """
        values = survey.values
        if not values:
            raise DatasetError("no case has a labelled voxel, so there is nothing to learn")
        named = dict(self.label_names)
        if self.named_regions:
            self._refuse_left_out(values)
            notes["regions"] = "The data set says them, and which value each paints"
            return self.named_labels()
        said = []
        in_order = dict(zip(values, (named[value] for value in sorted(named)), strict=False))
        # Not where a value would get another name than it is said to have.
        fits = all(in_order[value] == named.get(value, in_order[value]) for value in in_order)
        if len(named) == len(values) and set(named) != set(values) and fits:
            said.append(
                f"The list calls the labels {_listed(named)}, the files hold {_listed(values)}; "
                "they are taken for the same, in this order"
            )
            named = in_order
        unnamed = [value for value in values if value not in named]
        if unnamed:
            said.append(f"Nothing says what the values {_listed(unnamed)} mean; give them names")
        absent = [named[value] for value in sorted(named) if value not in values]
        if absent:
            said.append(f"No case holds {abbreviate(absent, _MOST_NAMED)}; left out")
        if said:
            notes["labels"] = ". ".join(said)
        return list(_described(values, named))

    def named_labels(self) -> list[Described]:
        """Describe the labels that the data set names, whether they occur or not."""
        return list(_described(sorted(self.label_names), self.label_names))

    def regions(self) -> list[Described]:
        """Describe the regions; none where the data set has none."""
        return [
            {
                "name": _text(region.name) or f"region_{place}",
                "labels": [self.label_names[value] for value in sorted(set(region.values))],
                "paints": self.label_names.get(region.paints, f"value {region.paints}"),
            }
            for place, region in enumerate(self.named_regions, start=1)
        ]

    def _refuse_left_out(self, values: Sequence[int]) -> None:
        """Refuse label files with values that no region holds: nobody says what they are.

        Raises:
            DatasetError: Names them.
        """
        strange = [value for value in values if value not in self.label_names]
        if strange:
            raise DatasetError(
                f"label files hold the values {strange}, which are in none of the regions of "
                "dataset.json; put them into one, or mend the files"
            )


def _listed(values: Iterable[int]) -> str:
    return f"[{abbreviate(map(str, sorted(values)), _MOST_NAMED)}]"


def _described(values: Sequence[int], named: Mapping[int, str]) -> Iterator[Described]:
    for index, value in enumerate(values, start=1):
        label: Described = {"index": index, "name": named.get(value, f"label_{value}")}
        yield label | ({"value": value} if value != index else {})


def modality_of(modality: str) -> Described:
    """Return the field for a modality that is known."""
    return {"modality": modality} if modality != "OT" else {}


def modality_name(modality: str, place: int) -> str:
    """Name a channel that has no name."""
    return modality if place == 0 and modality != "OT" else f"channel_{place + 1}"


def modality_by_name(name: str) -> str | None:
    """Return the DICOM modality that a channel's name speaks of, if it does."""
    plain = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    for modality, pattern in _MODALITIES.items():
        if any(re.fullmatch(pattern, word) for word in plain):
            return modality
    return None


def parse_channel(text: str) -> ChannelSpec:
    """Return the channel that a person names: ``T1``, or with its modality ``uptake:PT``.

    Raises:
        MedsegError: If it is none.
    """
    name, _, modality = (part.strip() for part in text.partition(":"))
    try:
        return ChannelSpec(name=name, modality=modality or modality_by_name(name) or "OT")
    except ValueError as error:
        raise MedsegError(
            f"--channel takes a name such as T1, or a name and a DICOM modality such as uptake:PT; "
            f"got '{text}'"
        ) from error


def _modality(name: str, survey: Fingerprint, place: int, pictures: bool) -> tuple[str, str]:
    modality = modality_by_name(name)
    if modality:
        return modality, f"The data set calls this channel '{name}'"
    lowest = min(case.channels[place].lowest for case in survey.cases)
    if not pictures and lowest < _AIR:
        return (
            "CT",
            f"Guessed: its values go down to {lowest:g}, as HU of air do. Correct it if not",
        )
    return "OT", "Nothing says what it is; CT, MR and PT are normalised in their own ways"


def read_description(
    root: Path, listed: CaseListing | None = None, asked: Sequence[ChannelSpec] = ()
) -> DatasetDescription:
    """Read what a data set says of its channels and labels: its ``dataset.json``, or its layout.

    Args:
        root: The data folder, or its list of cases.
        listed: What the layout found; its names count where ``dataset.json`` has none.
        asked: The channels, where a person named them.

    Raises:
        DatasetError: If it cannot be read, or says what cannot be learned.
    """
    listing = root if root.suffix.lower() == ".json" else root / "dataset.json"
    said = read_json_list(listing) if listing.is_file() else {}
    meanings = label_meanings(said, listing)
    folder = root if root.is_dir() else root.parent
    channels = said.get("channel_names") or said.get("modality") or {}
    return DatasetDescription(
        name=bundle_name(str(said.get("name") or folder.resolve().name)),
        description=_text(said.get("description")),
        licence=_text(said.get("licence") or said.get("license")),
        channel_names=tuple(_ordered(channels)) or (listed.channel_names if listed else ()),
        label_names={value: _text(name) or f"label_{value}" for value, name in meanings.names}
        or (listed.label_names if listed else {}),
        ignore=meanings.ignore,
        asked=tuple(asked),
        named_regions=meanings.regions,
    )


def _ordered(channels: Any) -> Iterator[str]:
    if not isinstance(channels, dict):
        return
    for key in sorted(channels, key=lambda key: int(key) if str(key).isdigit() else 0):
        yield _text(channels[key]) or f"channel {key}"


def _text(value: Any) -> str:
    return " ".join(str(value).split())[:200] if isinstance(value, str) else ""


def bundle_name(text: str) -> str:
    """Make a data set's name one that a bundle can have."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-").lower()[:64].strip("_-")
    return plain or "planned"
