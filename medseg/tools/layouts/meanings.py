"""What a ``dataset.json`` says of the values in its label files."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.words.errors import DatasetError

IGNORE = "ignore"
"""What nnU-Net calls the value of voxels that nobody annotated."""


@dataclass(frozen=True, slots=True)
class Meanings:
    """What the values in label files stand for.

    Attributes:
        names: Value and name of each label, background left out.
        ignore: The value of voxels that nobody annotated, if there is one.
    """

    names: tuple[tuple[int, str], ...] = ()
    ignore: int | None = None


def label_meanings(said: Mapping[str, Any], listing: Path) -> Meanings:
    """Read the ``labels`` of MSD, ``{"1": "liver"}``, or of nnU-Net, ``{"liver": 1}``.

    Args:
        said: The content of ``dataset.json``.
        listing: Where it stands, for errors.

    Raises:
        DatasetError: If labels are regions, which overlap.
    """
    names: dict[int, str] = {}
    for key, value in _labels(said):
        if isinstance(value, list):
            raise DatasetError(_no_regions(key, value, listing))
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if str(number).isdecimal() and int(number) > 0 and not _is_ignore(name):
            names[int(number)] = name if isinstance(name, str) else ""
    return Meanings(tuple(names.items()), ignored_value(said))


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


def _no_regions(name: Any, values: Any, listing: Path) -> str:
    return (
        f"{listing}: the label '{name}' is a region made of the values {values}; regions, which "
        "may overlap, cannot be learned. Name each value by itself "
        '("labels": {"edema": 1, "core": 2, …}), learn those, and join them in the results'
    )
