"""What a ``dataset.json`` says of the values in its label files."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import DatasetError

IGNORE = "ignore"
"""What nnU-Net calls the value of voxels that nobody annotated."""


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
class Meanings:
    """What the values in label files stand for.

    Attributes:
        names: Value and name of each label, background left out.
        ignore: The value of voxels that nobody annotated, if there is one.
        regions: Structures made of them, in the order in which they are painted.
    """

    names: tuple[tuple[int, str], ...] = ()
    ignore: int | None = None
    regions: tuple[NamedRegion, ...] = ()


def label_meanings(said: Mapping[str, Any], listing: Path) -> Meanings:
    """Read the ``labels`` of MSD, ``{"1": "liver"}``, or of nnU-Net, ``{"liver": 1}``.

    nnU-Net's may be regions, ``{"tumour": [1, 2], "core": 2}``, with the value that each paints
    in ``regions_class_order``.

    Args:
        said: The content of ``dataset.json``.
        listing: Where it stands, for errors.

    Raises:
        DatasetError: If regions are not right.
    """
    if any(isinstance(value, list) and len(value) != 1 for _, value in _labels(said)):
        regions = _regions(said, listing)
        return Meanings(_names_of_values(regions), ignored_value(said), regions)
    names: dict[int, str] = {}
    for key, value in _labels(said):
        value = value[0] if isinstance(value, list) else value
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if str(number).isdecimal() and int(number) > 0 and not _is_ignore(name):
            names[int(number)] = name if isinstance(name, str) else ""
    return Meanings(tuple(names.items()), ignored_value(said))


def _regions(said: Mapping[str, Any], listing: Path) -> tuple[NamedRegion, ...]:
    named = [(name, _values_of(name, value, listing)) for name, value in _labels(said)]
    named = [(name, values) for name, values in named if values != (0,) and not _is_ignore(name)]
    order = said.get("regions_class_order")
    order = list(order) if isinstance(order, list | tuple) else []
    if len(order) != len(named) or not all(_is_value(value) for value in order):
        raise DatasetError(
            f"{listing}: its labels are regions ({', '.join(str(name) for name, _ in named)}), so "
            f"'regions_class_order' must list {len(named)} values, the one that each paints in "
            f"label maps; it is {order}"
        )
    return tuple(
        NamedRegion(str(name), values, paint)
        for (name, values), paint in zip(named, order, strict=True)
    )


def _values_of(name: Any, said: Any, listing: Path) -> tuple[int, ...]:
    values = said if isinstance(said, list) else [said]
    if not values or not all(value == 0 or _is_value(value) for value in values):
        raise DatasetError(
            f"{listing}: the label '{name}' must be a value or a list of values of label files, "
            f"got {said}"
        )
    return tuple(values)


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _names_of_values(regions: Sequence[NamedRegion]) -> tuple[tuple[int, str], ...]:
    """Name single values, which nnU-Net names only as parts of regions.

    A value that is a region by itself has its name; one that a region paints is the rest of it.
    """
    names: dict[int, str] = {}
    for region in regions:
        alone = region.values == (region.paints,)
        names[region.paints] = region.name if alone else f"rest of {region.name}"
    held = sorted({value for region in regions for value in region.values})
    return tuple((value, names.get(value, f"value {value}")) for value in held)


def ignored_value(said: Mapping[str, Any]) -> int | None:
    """Return the value of voxels that nobody annotated, if a ``dataset.json`` says one."""
    for key, value in _labels(said):
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if _is_ignore(name) and str(number).isdecimal() and int(number) > 0:
            return int(number)
    return None


def _labels(said: Mapping[str, Any]) -> ItemsView[Any, Any]:
    labels = said.get("labels")
    return (labels if isinstance(labels, dict) else {}).items()


def _is_ignore(name: Any) -> bool:
    return str(name).strip().lower() == IGNORE
