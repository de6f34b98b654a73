"""Name the listed cases and find what is wrong with them, without opening a file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from medseg._support.folders import resolve_path
from medseg.datasets.layouts.entries import ListedCase
from medseg.datasets.names import distinct_names, is_picture, split_channel, split_suffix


def names(rows: Sequence[ListedCase]) -> list[str]:
    """Name each case: as listed, else by its file, else by its path where files share a name."""
    files = [resolve_path(row.images[0].parent) / row.images[0].name for row in rows]
    stems = [_stem(row) for row in rows]
    if len(set(stems)) < len(set(files)):
        common = os.path.commonpath([file.parent for file in files])
        stems = [
            (file.parent.relative_to(common) / stem).as_posix()
            for file, stem in zip(files, stems, strict=True)
        ]
    wanted = [(row.name or stem, file) for row, stem, file in zip(rows, stems, files, strict=True)]
    once = list(dict.fromkeys(wanted))
    given = distinct_names([text for text, _ in once], [f"{text}\n{file}" for text, file in once])
    by_case = dict(zip(once, given, strict=True))
    return [by_case[case] for case in wanted]


def faults(rows: Sequence[ListedCase], names: Sequence[str], channels: int) -> list[list[str]]:
    """Say for each case what is wrong with the files and the fold it lists.

    Args:
        rows: The listed cases.
        names: Their names.
        channels: How many channels the bundle has.
    """
    return [
        [*_missing(row), *_miscounted(row, channels), *_misnumbered(row), *repeated]
        for row, repeated in zip(rows, _repeats(rows, names), strict=True)
    ]


def says(row: ListedCase, field: str) -> bool:
    """Tell whether the list says something under this field."""
    return row.fields.get(field) not in (None, "")


def _stem(row: ListedCase) -> str:
    stem = split_suffix(row.images[0].name)[0]
    base, number = split_channel(stem)
    return base if len(row.images) > 1 and number == 0 else stem


def _missing(row: ListedCase) -> Iterator[str]:
    for image in row.images:
        if not is_there(image):
            yield f"the image {image} does not exist"
    if not is_there(row.label):
        yield f"the label {row.label} does not exist"
    elif row.label.is_dir():
        yield f"the label {row.label} is a folder; one file is needed"


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or folder, and it may be looked at."""
    try:
        return path.exists()
    except OSError:  # a name no file can have, or a folder that may not be entered
        return False


def _miscounted(row: ListedCase, channels: int) -> Iterator[str]:
    first = row.images[0]
    if len(row.images) not in (1, channels):
        yield (
            f"has {len(row.images)} channel files and the bundle {channels} channels; one file "
            "for each, or one for all is needed"
        )
    elif (
        len(row.images) < channels
        and split_channel(split_suffix(first.name)[0])[1] == 0
        and not is_picture(first)
    ):
        yield f"has only channel 0 ({first.name}) and the bundle has {channels} channels"


def _misnumbered(row: ListedCase) -> Iterator[str]:
    fold = row.fields.get("fold")
    is_number = isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0
    is_digits = isinstance(fold, str) and fold.isascii() and fold.isdigit() and len(fold) < 5
    if says(row, "fold") and not is_number and not is_digits:
        yield f"its fold must be a whole number such as 0, is {str(fold)[:20]!r}"


def _repeats(rows: Sequence[ListedCase], names: Sequence[str]) -> Iterator[list[str]]:
    given = Counter(row.name for row in rows if row.name)
    users: dict[Path, int] = {}
    for number, row in enumerate(rows):
        files = [resolve_path(file) for file in (*row.images, row.label)]
        first = [users.setdefault(file, number) for file in files]
        found = [
            f"uses {file.name}, which the case {names[user]} uses"
            for file, user in zip(files, first, strict=True)
            if user != number
        ]
        if row.name and given[row.name] > 1:
            found.append(f"{given[row.name]} cases have this name; give each its own")
        if len(set(files)) < len(files):
            found.append("lists one file twice; each channel and the label need their own")
        yield found
