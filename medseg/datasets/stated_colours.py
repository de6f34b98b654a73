"""What a table beside colour-coded masks says of their colours, compared with the bundle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from medseg.datasets.colour_tables import (
    BACKGROUND,
    IGNORE,
    find_colour_table,
    interpret_name,
    list_table_folders,
)
from medseg.datasets.label_values import LabelValues, Values, find_conflicts
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
    stated: dict[str, set[int]] = defaultdict(set)
    for code in table.codes:
        is_label = interpret_name(code.name) not in (BACKGROUND, IGNORE)
        if is_label and code.colour is not None:
            colours = stated[code.name]
            colours.add(pack(code.colour))
    own = {}
    for label in labels:
        own[label.name] = Values(map(pack, label.colours))
    frozen = {name: Values(colours) for name, colours in stated.items()}
    index_of = {label.name: label.index for label in labels}
    for conflict in find_conflicts(LabelValues(frozen), LabelValues(own)):
        said = (
            f"the table of the data set gives {conflict.name} the colour "
            f"{_format_colours(conflict.stated)}, and the bundle {_format_colours(conflict.own)}"
        )
        fault = Fault(
            "labels", f"{said}; correct the one that is wrong, {INSIST}"
        )
        # Masks that hold the bundle's colour of a label settle what is no swap.
        settled_by = index_of[conflict.name]
        if conflict.is_certain:
            yield Contradiction(fault)
        else:
            yield Contradiction(fault, settled_by)


def _format_colours(colours: Values) -> str:
    texts = []
    for code in sorted(colours):
        red, green, blue = unpack(code)
        texts.append(f"({red}, {green}, {blue})")
    return " or ".join(texts)
