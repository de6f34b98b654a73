"""Which values names stand for, as two sides say it: a data set, a bundle, a folder of results.

The same name with another value is a contradiction, and it is certain where one side's value is
the other's value of another label: 1 = kidney, 2 = liver against 1 = liver, 2 = kidney. Where the
sides only number from elsewhere (1 against 255), label files themselves tell which side is right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from medseg.labels import LabelSet
from medseg.layouts.label_names import (
    SIDES,
    normalize_label,
    split_words,
)

BACKGROUND = "background"

_GENERIC_WORDS = (
    "label",
    "value",
    "class",
    "structure",
    "segment",
    "segmentation",
    "mask",
    "foreground",
    "object",
    "target",
    "thing",
    "region",
    "roi",
    "manual",
)
_GENERIC = re.compile(rf"({'|'.join(_GENERIC_WORDS)})?[ _-]*\d*", re.IGNORECASE)
"""Names that say nothing."""

Values = frozenset[int]


@dataclass(frozen=True, slots=True)
class LabelValues:
    """What one side says.

    Attributes:
        labels: Name → values of each label.
        regions: Name → values of each structure made of several labels.
    """

    labels: Mapping[str, Values] = field(default_factory=dict)
    regions: Mapping[str, Values] = field(default_factory=dict)

    def find_names(self, value: int) -> list[str]:
        """Return the labels that have a value."""
        names = []
        for name, values in self.labels.items():
            if value in values:
                names.append(name)
        return names

    def list_foreground(self) -> dict[int, str]:
        """Return value → name of each label that is not background."""
        names = {}
        for name, values in self.labels.items():
            for value in values - {0}:
                names[value] = name
        return names


def list_file_values(labels: LabelSet) -> LabelValues:
    """Return what a bundle says of the values in label files."""
    values_of: dict[int, set[int]] = defaultdict(set)
    for value, index in labels.values.items():
        values_of[index].add(value)
    return _name_values(labels, values_of)


def list_result_values(labels: LabelSet) -> LabelValues:
    """Return what a bundle says of the values in label maps that medseg writes."""
    values_of = {}
    for index in range(labels.classes):
        values_of[index] = {index}
    return _name_values(labels, values_of)


def _name_values(
    labels: LabelSet, values_of: Mapping[int, set[int]]
) -> LabelValues:
    """Return the values of a bundle's labels and regions.

    Args:
        labels: The bundle's.
        values_of: Index → values.
    """
    named = {}
    background = values_of.get(0)
    if background:
        named[BACKGROUND] = Values(background)
    for label in labels:
        values = values_of[label.index]
        named[label.name] = Values(values)
    regions = {}
    if labels.has_regions:
        for region in labels.regions:
            parts = [values_of[index] for index in region.labels]
            regions[region.name] = Values().union(*parts)
    return LabelValues(named, regions)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name to which two sides give different values.

    Attributes:
        name: As the own side writes it.
        stated: Its values by the other side.
        own: Its values by the own side.
        is_certain: Whether it is one whatever the files hold.
    """

    name: str
    stated: Values
    own: Values
    is_certain: bool


def find_conflicts(stated: LabelValues, own: LabelValues) -> list[Conflict]:
    """Find the names to which two sides give different values.

    Args:
        stated: What the data say.
        own: What they are to be read by.
    """
    names = _key_by_plain_name(own.labels)
    regions = _key_by_plain_name(own.regions)
    conflicts = []
    for stated_name, values in stated.labels.items():
        plain = normalize_label(stated_name)
        conflict = None
        if stated_name in own.labels:
            conflict = _compare_label(stated_name, values, stated, own)
        elif plain in names:
            conflict = _compare_label(names[plain], values, stated, own)
        elif plain in regions:
            conflict = _compare_part(regions[plain], values, own)
        if conflict is not None:
            conflicts.append(conflict)
    whole = {**own.labels, **own.regions}
    for stated_name, values in stated.regions.items():
        plain = normalize_label(stated_name)
        name = regions.get(plain, names.get(plain))
        if name is None:
            continue
        if values != whole[name]:
            conflict = Conflict(name, values, whole[name], is_certain=True)
            conflicts.append(conflict)
    return conflicts


def _key_by_plain_name(names: Iterable[str]) -> dict[str, str]:
    return {normalize_label(name): name for name in names}


def _compare_label(
    name: str, values: Values, stated: LabelValues, own: LabelValues
) -> Conflict | None:
    other = own.labels[name]
    if values <= other or other <= values:
        return None
    is_certain = _is_certain(name, values, stated, own)
    return Conflict(name, values, other, is_certain)


def _compare_part(
    name: str, values: Values, own: LabelValues
) -> Conflict | None:
    """Compare a label with a region of its name, of which it may be a part."""
    other = own.regions[name]
    if values <= other:
        return None
    return Conflict(name, values, other, True)


def _is_certain(
    name: str, values: Values, stated: LabelValues, own: LabelValues
) -> bool:
    """Tell whether one of a label's two values is that of another label on the other side."""
    own_values = own.labels[name]
    if values & own_values:
        return True
    others = []
    for value in values:
        others += own.find_names(value)
    for value in own_values:
        others += stated.find_names(value)
    plain = normalize_label(name)
    return any(normalize_label(other) != plain for other in others)


def find_renamed(
    stated: LabelValues, own: LabelValues
) -> Iterator[tuple[int, str, str]]:
    """Find the values that two sides give different names, neither of which the other side has.

    Yields:
        Value, the data's name, and the own one.
    """
    stated_names = _list_plain_names(stated)
    own_names = _list_plain_names(own)
    for name, values in own.labels.items():
        is_named = normalize_label(name) in stated_names
        if is_named or name == BACKGROUND or _says_nothing(name):
            continue
        for value in sorted(values):
            other = _find_unknown_name(value, stated, own_names)
            if other and not _may_be_same(name, other):
                yield value, other, name


def _find_unknown_name(
    value: int, stated: LabelValues, own_names: Collection[str]
) -> str:
    """Return what the data call a value, if the own side has no such name."""
    for name in stated.find_names(value):
        plain = normalize_label(name)
        if plain not in own_names:
            return name
    return ""


def _list_plain_names(values: LabelValues) -> set[str]:
    names = [*values.labels, *values.regions]
    return {normalize_label(name) for name in names}


def _may_be_same(name: str, other: str) -> bool:
    """Tell whether two names may be of one structure: they share a word, and name no two sides."""
    if _says_nothing(other):
        return True
    words = _list_words(name)
    other_words = _list_words(other)
    sides = set(SIDES.values())
    named_sides = (words | other_words) & sides
    shared = (words & other_words) - sides
    return len(named_sides) < 2 and bool(shared)


def _list_words(name: str) -> set[str]:
    words = set()
    for word in split_words(name):
        singular = word.removesuffix("s")
        words.add(SIDES.get(word, singular))
    return words


def _says_nothing(name: str) -> bool:
    return _GENERIC.fullmatch(name.strip()) is not None


def format_values(values: Values) -> str:
    """Write the values of a label: ``1``, and ``1 + 2`` of several."""
    return " + ".join(str(value) for value in sorted(values))
