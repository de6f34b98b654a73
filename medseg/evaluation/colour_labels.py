"""Labels of masks in colours that are compared without a bundle: by the table beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.datasets.colour_tables import (
    BACKGROUND,
    IGNORE,
    find_colour_table,
    interpret_name,
)
from medseg.errors import ScanError
from medseg.labels import Code, Label, LabelSet

_NO_VALUE = 1 << 24
"""Above what pictures hold: which value would be which label is not known."""


def read_colour_labels(masks: Sequence[Path]) -> LabelSet:
    """Read what the colours of masks mean.

    Args:
        masks: The masks that are compared; the table lies beside one of them, or in the folder
            above.

    Raises:
        ScanError: If there is no table.
        DatasetError: If it cannot be understood.
    """
    folders = [mask.parent for mask in masks]
    folders += [folder.parent for folder in folders]
    table = find_colour_table(folders)
    if table is None:
        raise ScanError(
            "a colour label map needs the bundle, or a class_dict.csv, labelmap.txt or "
            "label_colors.txt beside it, which says what each colour means"
        )
    labels: list[Label] = []
    others: dict[str, list[Code]] = {BACKGROUND: [], IGNORE: []}
    for colour, name in table.by_colour.items():
        meaning = interpret_name(name)
        if meaning in others:
            others[meaning].append(colour)
        else:
            index = len(labels) + 1
            labels.append(Label(index, name, _NO_VALUE + index, colour))
    return LabelSet(
        labels,
        others[IGNORE],
        background=others[BACKGROUND],
        colour_coded=True,
    )
