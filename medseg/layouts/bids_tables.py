"""What BIDS calls the values in label files: tables that end in ``dseg.tsv``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from medseg._support.tables import read_table
from medseg.errors import DatasetError
from medseg.layouts.bids_names import LABEL, BidsFile, parse_entities
from medseg.layouts.contract import CaseListing


def add_label_names(listing: CaseListing, label: BidsFile) -> None:
    """Take the names of a label file's values; the first name of a value counts.

    Args:
        listing: Takes the names, and a warning where a value has two.
        label: A label map, whose values the nearest ``dseg.tsv`` names, or a mask, whose only
            value has the mask's name.

    Raises:
        DatasetError: If the table is not right.
    """
    for value, name in _label_names(label, listing.origin).items():
        known = listing.label_names.setdefault(value, name)
        if known == name:
            continue
        warning = f"the value {value} is called '{known}' and '{name}'; '{known}' is used"
        if warning not in listing.warnings:
            listing.warnings.append(warning)


def _label_names(label: BidsFile, root: Path) -> Mapping[int, str]:
    if label.is_mask:
        name = label.entities.get(LABEL, label.entities.get("desc", "mask"))
        return {1: name}
    table = next(_find_tables(label, root), None)
    return {} if table is None else _read_names(table)


def _find_tables(label: BidsFile, root: Path) -> Iterator[Path]:
    """Yield the tables that speak of a label map, the nearest first: BIDS' inheritance."""
    top = root.resolve()
    for folder in label.file.parents:
        tables = folder.glob("*dseg.tsv")
        # The longest name says most, so it is the most special.
        for table in sorted(tables, key=lambda path: -len(path.name)):
            *pairs, _ = table.name.removesuffix(".tsv").split("_")
            entities = parse_entities(pairs)
            if entities.items() <= label.entities.items():
                yield table
        if folder.resolve() == top:
            return


def _read_names(path: Path) -> Mapping[int, str]:
    table = read_table(path)
    if not {"index", "name"} <= set(table.columns):
        raise DatasetError(
            "the columns index and name are needed",
            source=path,
            detail=f"its columns are {', '.join(table.columns)}",
        )
    names = {}
    for line, cells in table.rows:
        if not cells["index"].isdigit():
            raise DatasetError(
                f"line {line}: index must be a whole number from 0", source=path
            )
        index = int(cells["index"])
        if index > 0 and cells["name"]:
            names[index] = cells["name"]
    return names
