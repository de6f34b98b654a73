"""Masks of a BIDS session, one file per label: which make up one label map, and with what values.

``sub-01_label-liver_mask.nii.gz`` and ``sub-01_label-kidney_mask.nii.gz`` are labels of one image,
called as their ``label-`` entity says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from medseg.datasets.layouts.entries import CaseListing
from medseg.datasets.mask_files import Masks
from medseg.datasets.names import abbreviate
from medseg.errors import DatasetError

MASK = "mask"
"""Suffix of a mask."""

_LABEL = "label"


class Label(Protocol):
    """A label file whose name follows BIDS."""

    @property
    def file(self) -> Path:
        """The file."""

    @property
    def entities(self) -> Mapping[str, str]:
        """``label`` → ``liver``, …"""

    @property
    def suffix(self) -> str:
        """``mask``, ``dseg``."""


def belong_together(labels: Sequence[Label]) -> bool:
    """Tell whether several label files are masks whose names differ in ``label-`` alone."""
    others = {
        (label.file.parent, tuple((k, v) for k, v in label.entities.items() if k != _LABEL))
        for label in labels
    }
    names = {plain(label.entities.get(_LABEL, "")) for label in labels}
    all_masks = all(label.suffix == MASK for label in labels)
    return all_masks and len(others) == 1 and len(names) == len(labels) and "" not in names


def values_by_name(
    sessions: Sequence[Sequence[Label]], wanted: Mapping[str, int], found: CaseListing
) -> dict[str, int]:
    """Return ``label-`` → value, where masks are to be told by their names.

    They are where a session has several, and where sessions have masks of different labels. Else
    there is one label, and its value is that in the files.

    Args:
        sessions: The label files of each session.
        wanted: Name → value of the bundle's labels; empty where there is no bundle yet. Masks of
            other names are background.
        found: Knows the names of other label files' values; a warning is added to it.

    Returns:
        The masks to take; empty where values in the files count.

    Raises:
        DatasetError: If the bundle names none of them, or values of other label files have no name.
    """
    masks = [[one for one in labels if one.suffix == MASK] for labels in sessions]
    names = sorted({one.entities[_LABEL] for its in masks for one in its if _LABEL in one.entities})
    known = {plain(name): value for name, value in wanted.items()}
    values = {name: known[plain(name)] for name in names if plain(name) in known}
    several = any(len(its) > 1 for its in masks)
    differing = len({plain(name) for name in names}) > 1
    if not several and not (differing and (values or not wanted)):
        return {}
    if not wanted:
        return _numbered(names, len(masks) > sum(map(bool, masks)), found)
    unnamed = [name for name in names if name not in values]
    if not values:
        raise DatasetError(
            f"{found.origin}: holds no mask of a label that the bundle names "
            f"({abbreviate(wanted)}); those there are {abbreviate(unnamed, 20)}"
        )
    if unnamed:
        found.warnings.append(
            f"masks that the bundle does not name count as background: {abbreviate(unnamed)}"
        )
    return values


def _numbered(names: Sequence[str], beside_others: bool, found: CaseListing) -> dict[str, int]:
    """Give each name a value: that which label maps have for it, or one that is free."""
    if beside_others and not found.label_names:
        raise DatasetError(
            f"{found.origin}: some sessions have masks and others _dseg files, and nothing says "
            "what the values of the latter mean; add a dseg.tsv with the columns index and name"
        )
    known = {plain(name): value for value, name in found.label_names.items()}
    for name in names:
        known.setdefault(plain(name), max(known.values(), default=0) + 1)
    return {name: known[plain(name)] for name in names}


def joined(labels: Iterable[Label], values: Mapping[str, int]) -> Masks | str:
    """Return the masks of one session as one label map, or why they are none."""
    labels = list(labels)
    nameless = [one.file.name for one in labels if _LABEL not in one.entities]
    if nameless:
        return f"{nameless[0]} has no label- in its name, which says which label it is a mask of"
    named = sorted((one.entities[_LABEL], one.file) for one in labels)
    taken = tuple((file, name) for name, file in named if name in values)
    if not taken:
        return f"has none of the labels; its masks are {abbreviate(name for name, _ in named)}"
    return Masks(taken, {name: values[name] for _, name in taken})


def missing(cases: Sequence[Masks], values: Mapping[str, int]) -> str:
    """Say which labels have no mask in some sessions, or nothing."""
    counts = {
        name: sum(all(one != value for one in case.values.values()) for case in cases)
        for name, value in values.items()
    }
    lacking = [f"{name} in {count} of {len(cases)}" for name, count in counts.items() if count]
    if not lacking:
        return ""
    return f"sessions without a mask of a label count as having none of it: {abbreviate(lacking)}"


def plain(name: str) -> str:
    """Return a name as names are compared: capitals do not count."""
    return name.strip().casefold()
