"""What a ``dataset.json`` says of the values in its label files."""

from __future__ import annotations

from collections.abc import Mapping
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
    labels = said.get("labels")
    names: dict[int, str] = {}
    ignore = None
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, list):
            raise DatasetError(_no_regions(key, value, listing))
        number, name = (value, key) if isinstance(value, int) else (key, value)
        if not str(number).isdecimal() or int(number) == 0:
            continue
        if str(name).strip().lower() == IGNORE:
            ignore = int(number)
        else:
            names[int(number)] = name if isinstance(name, str) else ""
    return Meanings(tuple(names.items()), ignore)


def _no_regions(name: Any, values: Any, listing: Path) -> str:
    return (
        f"{listing}: the label '{name}' is a region made of the values {values}; regions, which "
        "may overlap, cannot be learned. Name each value by itself "
        '("labels": {"edema": 1, "core": 2, …}), learn those, and join them in the results'
    )
