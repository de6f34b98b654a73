"""Tables that say which colour of a mask is which structure.

Read are ``class_dict.csv`` (columns name, r, g, b, as CamVid has it), ``labelmap.txt`` (CVAT:
``name:r,g,b:parts:actions``) and ``label_colors.txt`` (``r g b name``), in the data folder or in
the folders of the masks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError
from medseg.labels import RGB

BACKGROUND = "background"
"""What is nothing."""

IGNORE = "ignore"
"""What nobody annotated."""

_BACKGROUND = ("background", "bg", "backgroundclutter")
_IGNORED = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "unknown")
_LARGEST_FILE = 1_000_000
_BRIGHTEST = 255
_MOST_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class NamedCode:
    """What one colour, or one value, stands for.

    Attributes:
        name: Of the structure.
        colour: RGB, if it has one.
        value: The voxel value where masks hold values, if it has one.
    """

    name: str
    colour: RGB | None
    value: int | None = None


@dataclass(frozen=True, slots=True)
class ColourTable:
    """What the colours of masks stand for.

    Attributes:
        origin: Who says so: the name of a kind of file, or of a public data set.
        codes: In the table's order.
    """

    origin: str
    codes: tuple[NamedCode, ...]

    @property
    def by_colour(self) -> dict[RGB, str]:
        """Colour → name; the first of several."""
        names: dict[RGB, str] = {}
        for code in self.codes:
            if code.colour is not None:
                names.setdefault(code.colour, code.name)
        return names

    @property
    def by_value(self) -> dict[int, str]:
        """Value → name."""
        return {
            code.value: code.name
            for code in self.codes
            if code.value is not None
        }


def interpret_name(name: str) -> str:
    """Return a table's name; ``BACKGROUND`` or ``IGNORE`` where it says that there is no label."""
    simple = _simplify(name)
    if simple in _BACKGROUND:
        return BACKGROUND
    return IGNORE if simple in _IGNORED else name


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z]+", "", name.lower())


def list_table_folders(root: Path, masks: Iterable[Path]) -> list[Path]:
    """Return where a table may lie: the data folder, the masks' folders, and those between.

    Args:
        root: The data folder, or its list of cases.
        masks: The label files.
    """
    folder = root if root.is_dir() else root.parent
    folders = {folder: None}
    for mask_folder in sorted({mask.parent for mask in masks}):
        folders[mask_folder] = None
        if mask_folder != folder and mask_folder.is_relative_to(folder):
            folders[mask_folder.parent] = None
    return list(folders)


def find_colour_table(folders: Iterable[Path]) -> ColourTable | None:
    """Read the first table that lies in one of some folders.

    Args:
        folders: Where to look, the likeliest first.

    Returns:
        The table; ``None`` where there is none.

    Raises:
        DatasetError: If there is one and it cannot be understood.
    """
    readers = {
        "class_dict.csv": _read_class_dict,
        "labelmap.txt": _read_label_map,
        "label_colors.txt": _read_label_colors,
    }
    for folder in folders:
        for name, read in readers.items():
            file = folder / name
            if file.is_file():
                codes = tuple(read(_read_lines(file)))
                return _check(ColourTable(name, codes), file)
    return None


def _read_lines(file: Path) -> list[str]:
    """Return the lines of a table that say something.

    Raises:
        DatasetError: If it is no text.
    """
    if file.stat().st_size > _LARGEST_FILE:
        raise DatasetError("is too large for a table of classes", source=file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            "the table of classes cannot be read",
            source=file,
            detail=str(error),
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _check(table: ColourTable, file: Path) -> ColourTable:
    """Refuse a table without classes, or with one colour for two of them.

    Raises:
        DatasetError: If it is one.
    """
    if not table.codes:
        raise DatasetError(
            "names no class with a colour; each line has a name and red, green and blue from 0 to "
            "255",
            source=file,
        )
    for code in table.codes:
        other = table.by_colour.get(code.colour or (0, 0, 0), code.name)
        if other != code.name:
            raise DatasetError(
                f"gives two classes the colour {code.colour}; give each its own",
                source=file,
                detail=f"{other}, {code.name}",
            )
    return table


def _read_class_dict(lines: Sequence[str]) -> Iterator[NamedCode]:
    """Read columns name, r, g, b, under a heading or not, in any order where there is one."""
    rows = list(csv.reader(lines))
    places = _find_columns(rows[0]) if rows else [0, 1, 2, 3]
    for row in rows:
        if len(row) <= max(places):
            continue
        name, *colour = (row[place] for place in places)
        yield from _make_code(name, colour)


def _find_columns(heading: Sequence[str]) -> list[int]:
    """Return the places of name, red, green and blue."""
    plain = [text.strip().lower() for text in heading]
    places = []
    for names in (
        ("name", "class", "label"),
        ("r", "red"),
        ("g", "green"),
        ("b", "blue"),
    ):
        found = [place for place, text in enumerate(plain) if text in names]
        places.extend(found[:1])
    return places if len(places) == 4 else [0, 1, 2, 3]


def _read_label_map(lines: Sequence[str]) -> Iterator[NamedCode]:
    for line in lines:
        name, _, rest = line.partition(":")
        colour = rest.split(":")[0]
        yield from _make_code(name, colour.split(","))


def _read_label_colors(lines: Sequence[str]) -> Iterator[NamedCode]:
    for line in lines:
        red, green, blue, name = (*line.split(maxsplit=3), "", "", "", "")[:4]
        yield from _make_code(name, (red, green, blue))


def _make_code(name: str, colour: Sequence[str]) -> Iterator[NamedCode]:
    """Yield a class where name and colour are given; headings and other lines give none."""
    numbers = [int(text) for text in colour if text.strip().isdigit()]
    is_colour = len(numbers) == 3 and max(numbers) <= _BRIGHTEST
    name = " ".join(name.split())[:_MOST_CHARACTERS]
    if name and is_colour:
        red, green, blue = numbers
        yield NamedCode(name, (red, green, blue))
