"""What a table beside colour-coded masks says of their colours, compared with the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medseg.datasets.colour_tables import (
    BACKGROUND,
    IGNORE,
    ColourTable,
    find_colour_table,
    interpret_name,
    list_table_folders,
)
from medseg.datasets.label_values import (
    Conflict,
    LabelValues,
    Values,
    find_conflicts,
)
from medseg.datasets.mask_codes import pack, unpack
from medseg.datasets.statements import INSIST, Contradiction
from medseg.errors import Fault
from medseg.labels import LabelSet
from medseg.names import is_picture


def compare_colours(
    root: Path, masks: Iterable[Path], labels: LabelSet
) -> Iterator[Contradiction]:
    """Compare the colours of a ``class_dict.csv`` or the like with those of a bundle's labels.

    Args:
        root: The data folder, or its list of cases.
        masks: The label files.
        labels: The bundle's; nothing is compared where nobody chose their colours.

    Yields:
        The names to which the two give different colours.

    Raises:
        DatasetError: If there is a table that cannot be understood.
    """
    pictures = [mask for mask in masks if is_picture(mask)]
    if not pictures or not labels.has_own_colours:
        return
    table = find_colour_table(list_table_folders(root, pictures))
    if table is None:
        return
    own = {}
    index_of = {}
    for label in labels:
        own[label.name] = Values(map(pack, label.colours))
        index_of[label.name] = label.index
    for conflict in find_conflicts(_list_colours(table), LabelValues(own)):
        fault = _describe_conflict(conflict)
        if conflict.is_certain:
            yield Contradiction(fault)
        else:
            # Masks that hold the bundle's colour of the label settle it.
            yield Contradiction(fault, index_of[conflict.name])


def _list_colours(table: ColourTable) -> LabelValues:
    """Return name → packed colours of each class that is a label."""
    colours_of: dict[str, Values] = {}
    for code in table.codes:
        is_label = interpret_name(code.name) not in (BACKGROUND, IGNORE)
        if is_label and code.colour is not None:
            known = colours_of.get(code.name, Values())
            colours_of[code.name] = known | {pack(code.colour)}
    return LabelValues(colours_of)


def _describe_conflict(conflict: Conflict) -> Fault:
    stated = _format_colours(conflict.stated)
    own = _format_colours(conflict.own)
    return Fault(
        "labels",
        f"the table of the data set gives {conflict.name} the colour {stated}, and the bundle "
        f"{own}; correct the one that is wrong, {INSIST}",
    )


def _format_colours(colours: Values) -> str:
    texts = []
    for code in sorted(colours):
        red, green, blue = unpack(code)
        texts.append(f"({red}, {green}, {blue})")
    return " or ".join(texts)
