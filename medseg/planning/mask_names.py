"""Which table names the values or colours of a data set's masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.datasets.cases import Case
from medseg.datasets.colour_tables import (
    ColourTable,
    NamedCode,
    find_colour_table,
    list_table_folders,
)
from medseg.datasets.known_palettes import (
    list_palettes,
    read_cityscapes_ids,
    read_voc,
)
from medseg.datasets.mask_codes import (
    SURE,
    measure_distances,
    pack,
    to_points,
    unpack,
)
from medseg.names import split_suffix
from medseg.planning.mask_census import MaskCensus

_FEWEST_MATCHES = 3
"""Colours that a mask must share with a public palette to be told by them."""

_VOC_BORDER = 255

_CITYSCAPES_IDS = {"labelids": False, "labeltrainids": True}
"""End of a mask's name → whether it holds the ids for training."""


@dataclass(frozen=True, slots=True)
class CodeNames:
    """What a table calls the codes of masks.

    Attributes:
        origin: Who says so; empty where nobody does.
        names: Value or packed colour → name, in the table's order.
        colours: Value → the colour to show it in, where masks hold values.
        remark: What a person should know of the choice; may be empty.
        is_own: Whether the data set itself brings the table.
    """

    origin: str
    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]
    remark: str = ""
    is_own: bool = False


NOBODY = CodeNames("", {}, {})
"""Nobody names the codes."""


def find_code_names(
    root: Path, cases: Sequence[Case], census: MaskCensus
) -> CodeNames:
    """Find who names the values or colours: a table in the folders, or a public palette.

    Args:
        root: The data folder, or its list of cases.
        cases: The cases.
        census: What their masks hold.

    Raises:
        DatasetError: If there is a table that cannot be understood.
    """
    if not census.are_pictures:
        return NOBODY
    masks = [case.label for case in cases]
    table = find_colour_table(list_table_folders(root, masks))
    if census.is_colour:
        if table is not None:
            return replace(_name_colours(table), is_own=True)
        return _match_palette(census)
    by_palette = _name_by_palette(census, table)
    return by_palette or _name_by_files(cases)


def _name_colours(table: ColourTable) -> CodeNames:
    names = {pack(colour): name for colour, name in table.by_colour.items()}
    return CodeNames(table.origin, names, {})


def _match_palette(census: MaskCensus) -> CodeNames:
    """Return the names of the one public palette that has all colours of the masks."""
    colours = census.find_labels()
    fitting = [table for table in list_palettes() if _has_all(table, colours)]
    if len(fitting) == 1:
        return _name_colours(fitting[0])
    if not fitting:
        return NOBODY
    origins = " and ".join(table.origin for table in fitting)
    remark = (
        f"The colours are those of {origins}, which give them different names; name them with "
        "--labels, or put a class_dict.csv into the folder"
    )
    return CodeNames("", {}, {}, remark)


def _has_all(table: ColourTable, codes: Sequence[int]) -> bool:
    shown = [code for code in codes if code]
    if len(shown) < _FEWEST_MATCHES:
        return False
    known = np.array([pack(colour) for colour in table.by_colour])
    distances = measure_distances(
        to_points(np.array(shown), 3), to_points(known, 3)
    )
    nearest = distances.min(axis=1)
    return bool(nearest.max() <= SURE)


def _name_by_palette(
    census: MaskCensus, table: ColourTable | None
) -> CodeNames | None:
    """Return names by the colours that the masks' palette gives to values, if it does.

    Many tools use PASCAL VOC's palette for classes of their own. VOC's masks have its border, too.
    """
    if table is None and _VOC_BORDER not in census.codes:
        return None
    table = table or read_voc()
    by_colour = table.by_colour
    codes = []
    for value in census.codes.tolist():
        colour = census.palette.get(value)
        if colour is None or colour not in by_colour:
            return None
        codes.append(NamedCode(by_colour[colour], colour, value))
    return _name_values(ColourTable(table.origin, tuple(codes)))


def _name_by_files(cases: Sequence[Case]) -> CodeNames:
    """Return Cityscapes' names where the masks' names say which of its ids they hold."""
    for ending, for_training in _CITYSCAPES_IDS.items():
        if cases and all(_get_stem(case).endswith(ending) for case in cases):
            return _name_values(read_cityscapes_ids(for_training=for_training))
    return NOBODY


def _get_stem(case: Case) -> str:
    stem, _ = split_suffix(case.label.name)
    return stem.lower()


def _name_values(table: ColourTable) -> CodeNames:
    colours = {}
    for code in table.codes:
        if code.value is not None and code.colour is not None:
            colours[code.value] = code.colour
    return CodeNames(table.origin, table.by_value, colours)


def format_code(code: int, *, is_colour: bool) -> str:
    """Write a value, or the colour that a code stands for."""
    return str(unpack(code)) if is_colour else str(code)
