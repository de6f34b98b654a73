"""What a ``dataset.json`` says, of MSD and of nnU-Net: above all, of the values in label files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from medseg._support.json_files import parse_json_object
from medseg._support.tables import read_text
from medseg.errors import DatasetError

LISTING = "dataset.json"
"""What the file is called."""

IGNORE = "ignore"
"""What nnU-Net calls the value of unlabelled voxels."""

_MOST_DIGITS = 10
_MAX_TEXT = 200
"""Characters of a name or description."""


@dataclass(frozen=True, slots=True)
class NamedRegion:
    """A structure that a ``dataset.json`` makes of several values.

    Attributes:
        name: Its name.
        values: In label files.
        paints: The value that shows it in label maps where no later region is.
    """

    name: str
    values: tuple[int, ...]
    paints: int


@dataclass(frozen=True, slots=True)
class LabelMeanings:
    """What the values in label files stand for.

    Attributes:
        names: Value and name of each label, background left out.
        ignore: The value of unlabelled voxels, if there is one.
        regions: Structures made of labels, in nnU-Net's ``regions_class_order``.
    """

    names: tuple[tuple[int, str], ...] = ()
    ignore: int | None = None
    regions: tuple[NamedRegion, ...] = ()


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        DatasetError: If it is no JSON object.
    """
    return parse_json_object(
        read_text(path), path, DatasetError, is_strict=False
    )


def parse_labels(content: Mapping[str, Any], listing: Path) -> LabelMeanings:
    """Read the ``labels`` of MSD, ``{"1": "liver"}``, or of nnU-Net, ``{"liver": 1}``.

    nnU-Net's may be regions, ``{"tumour": [1, 2], "core": 2}``, with the value that each paints
    in ``regions_class_order``.

    Args:
        content: The content of ``dataset.json``.
        listing: Where it stands, for errors.

    Raises:
        DatasetError: If regions are not right.
    """
    ignore = find_ignore_value(content)
    if _has_regions(content):
        regions = _parse_regions(content, listing)
        return LabelMeanings(_name_values(regions), ignore, regions)
    names: dict[int, str] = {}
    for value, name in _iterate_labels(content):
        number = _parse_value(value)
        if number is None or _is_ignore(name):
            continue
        names[number] = ""
        if isinstance(name, str):
            names[number] = name
    return LabelMeanings(tuple(names.items()), ignore)


def parse_label_values(content: Mapping[str, Any]) -> dict[str, set[int]]:
    """Return name → values of each single label, background included.

    What cannot be understood is passed over: it says nothing of a label.
    """
    labels: dict[str, set[int]] = defaultdict(set)
    for value, name in _iterate_labels(content):
        if not isinstance(name, str) or _is_ignore(name):
            continue
        if _is_number(value):
            number = int(value)
            labels[name].add(number)
    return labels


def parse_region_values(content: Mapping[str, Any]) -> dict[str, set[int]]:
    """Return name → values of each of nnU-Net's regions."""
    regions = {}
    for name, entry in _labels_of(content).items():
        if not isinstance(entry, list):
            continue
        numbers = set(map(int, filter(_is_number, entry)))
        if len(entry) > 1 and numbers:
            regions[name] = numbers
    return regions


def parse_channel_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in nnU-Net's ``channel_names`` or MSD's ``modality``, by their numbers."""
    channels = content.get("channel_names")
    if not channels:
        channels = content.get("modality")
    if isinstance(channels, str):
        channels = [channels]
    if isinstance(channels, list):
        channels = dict(enumerate(channels))
    if not isinstance(channels, dict):
        return ()
    names = []
    for key in sorted(channels, key=_parse_channel_number):
        name = clean_text(channels[key])
        if not name:
            name = f"channel {key}"
        names.append(name)
    return tuple(names)


def _parse_channel_number(key: Any) -> int:
    return int(key) if _is_number(key) else 0


def clean_text(value: Any) -> str:
    """Return a text on one line, cut to a fair length; empty if it is no text."""
    if not isinstance(value, str):
        return ""
    return " ".join(value.split())[:_MAX_TEXT]


def find_listing(root: Path) -> Path:
    """Return where the ``dataset.json`` of a data set is, if it has one.

    Args:
        root: The data folder, or the file that lists its cases.
    """
    return root if root.name == LISTING else root / LISTING


def states_made_up(root: Path) -> bool:
    """Tell whether a data folder's ``dataset.json`` says ``"made_up": true``, as phantoms do.

    Args:
        root: The data folder, or the file that lists its cases.
    """
    listing = find_listing(root)
    if not listing.is_file():
        return False
    try:
        return read_json_object(listing).get("made_up") is True
    except (DatasetError, OSError):
        return False  # whoever reads its cases says what is wrong with it


def find_ignore_value(content: Mapping[str, Any]) -> int | None:
    """Return the value of unlabelled voxels, if a ``dataset.json`` has one."""
    for value, name in _iterate_labels(content):
        number = _parse_value(value)
        if number is not None and _is_ignore(name):
            return number
    return None


def _has_regions(content: Mapping[str, Any]) -> bool:
    for entry in _labels_of(content).values():
        if isinstance(entry, list) and len(entry) != 1:
            return True
    return False


def _labels_of(content: Mapping[str, Any]) -> Mapping[Any, Any]:
    labels = content.get("labels")
    return labels if isinstance(labels, dict) else {}


def _iterate_labels(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield value and name of each label, whichever of the two its key is."""
    for key, entry in _labels_of(content).items():
        value = entry
        # nnU-Net may write a single value as a list of one.
        if isinstance(entry, list) and len(entry) == 1:
            value = entry[0]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_text_value = _is_number(value) and not _is_number(key)
        if is_text_value or isinstance(value, int):
            yield value, key
        else:
            yield key, value


def _is_number(text: Any) -> bool:
    """Tell whether this is a value of label files, written as a number or as text."""
    digits = str(text)
    return digits.isdecimal() and len(digits) <= _MOST_DIGITS


def _parse_value(value: Any) -> int | None:
    """Return a label's value; ``None`` for background, and for what is no value."""
    if not _is_number(value):
        return None
    number = int(value)
    return number or None


def _parse_regions(
    content: Mapping[str, Any], listing: Path
) -> tuple[NamedRegion, ...]:
    values_of: dict[str, tuple[int, ...]] = {}
    for name, entry in _labels_of(content).items():
        values = _parse_region_values(name, entry, listing)
        if values == (0,):
            continue
        if not _is_ignore(name):
            values_of[name] = values
    order = content.get("regions_class_order")
    if not _is_order(order, len(values_of)):
        names = ", ".join(values_of)
        raise DatasetError(
            f"its labels are regions, so 'regions_class_order' must list {len(values_of)} values, "
            "the one that each region paints in label maps",
            source=listing,
            detail=f"the regions are {names}; 'regions_class_order' is {order}",
        )
    regions = []
    for (name, values), painted in zip(values_of.items(), order, strict=True):
        regions.append(NamedRegion(name, values, painted))
    return tuple(regions)


def _is_order(order: Any, length: int) -> TypeGuard[list[int]]:
    """Tell whether this is nnU-Net's ``regions_class_order`` of so many regions."""
    if not isinstance(order, list) or len(order) != length:
        return False
    return all(_is_label_value(value) for value in order)


def _parse_region_values(
    name: str, entry: Any, listing: Path
) -> tuple[int, ...]:
    values = entry if isinstance(entry, list) else [entry]
    are_values = all(value == 0 or _is_label_value(value) for value in values)
    if not values or not are_values:
        raise DatasetError(
            "each label must be a value or a list of values of label files; one of them is not",
            source=listing,
            detail=f"the label '{name}' is {entry}",
        )
    return tuple(values)


def _is_label_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _name_values(regions: Sequence[NamedRegion]) -> tuple[tuple[int, str], ...]:
    """Name single values, which nnU-Net names only as parts of regions.

    A value that is a region by itself has its name; one that a region paints is the rest of it.
    """
    names: dict[int, str] = {}
    held: set[int] = set()
    for region in regions:
        held.update(region.values)
        is_alone = region.values == (region.paints,)
        name = region.name
        if not is_alone:
            name = f"rest of {name}"
        names[region.paints] = name
    named = []
    for value in sorted(held):
        name = names.get(value, f"value {value}")
        named.append((value, name))
    return tuple(named)


def _is_ignore(name: Any) -> bool:
    return str(name).strip().lower() == IGNORE
