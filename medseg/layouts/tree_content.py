"""Tells labels from images by their voxels, where no name says which is which.

A few files of each kind are looked at: a label map holds few whole numbers, an image many values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medseg.errors import DatasetError, ScanError
from medseg.io import read_labels
from medseg.layouts.tree_names import (
    SEPARATORS,
    NamedFile,
    mark_label,
    strip_place,
)

_MOST_VALUES = 64
"""Different values of a label map at most."""
_LOOKED_AT = 3
"""Files of each kind that are opened."""
_MOST_KINDS = 8


def find_labels_by_content(
    root: Path, files: Sequence[NamedFile]
) -> tuple[list[NamedFile], str] | None:
    """Return the label files of a tree and the pattern that finds them.

    Args:
        root: The data folder.
        files: Its image files, none of which is called a label.

    Returns:
        ``None`` where there are not several kinds of files, or none of them holds labels.

    Raises:
        DatasetError: If several kinds of files may be the labels.
    """
    for kinds in (_group_by_folder(root, files), _group_by_name(files)):
        found = [
            pattern
            for pattern, members in kinds.items()
            if _hold_labels(members)
        ]
        if not found or len(found) == len(kinds):
            continue
        if len(found) > 1:
            raise DatasetError(
                "no name says which files are labels, and several kinds hold a few whole numbers "
                "as labels do; choose them by --labels PATTERN",
                source=root,
                detail=f"patterns that fit are {', '.join(sorted(found))}",
            )
        (pattern,) = found
        return _mark_labels(kinds[pattern], pattern), pattern
    return None


def _mark_labels(files: Iterable[NamedFile], pattern: str) -> list[NamedFile]:
    """Return the files of a kind as labels."""
    name = pattern.rpartition("/")[2]
    name = name.partition(".")[0]
    literal = name.strip(f"*{SEPARATORS}")
    return [mark_label(file, literal) for file in files]


def _group_by_folder(
    root: Path, files: Iterable[NamedFile]
) -> dict[str, list[NamedFile]]:
    """Group files by top folder, where names repeat from one to the next."""
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    for file in files:
        top, *below = file.file.relative_to(root).parts
        if not below:
            return {}
        groups[f"{top}/**"].append(file)
    names = [{file.stem for file in members} for members in groups.values()]
    if not 1 < len(groups) <= _MOST_KINDS or not names[0].intersection(*names):
        return {}
    # Folders of cases hold several files each whose names repeat, too; these are not parallel.
    if any(len(members) < len(groups) for members in groups.values()):
        return {}
    return dict(groups)


def _group_by_name(
    files: Sequence[NamedFile],
) -> dict[str, list[NamedFile]]:
    """Group files by what their names have besides the name of their folder."""
    groups: dict[str, list[NamedFile]] = defaultdict(list)
    places = {file.place for file in files}
    for file in files:
        name = strip_place(file.stem, file.folders)
        start = "" if name == file.stem else "*"
        groups[f"**/{start}{name}.*"].append(file)
    usual = {
        pattern: members
        for pattern, members in groups.items()
        if 2 * len(members) > len(places)
    }
    is_form = len(places) > 1 and 1 < len(usual) <= _MOST_KINDS
    return usual if is_form else {}


def _hold_labels(files: Sequence[NamedFile]) -> bool:
    """Tell whether the first few of some files hold labels."""
    return all(_holds_labels(file.file) for file in files[:_LOOKED_AT])


def _holds_labels(file: Path) -> bool:
    """Tell whether a file holds few values, all of them whole numbers from 0."""
    try:
        labels = read_labels(file)
    except ScanError:
        return False
    if len(labels.array) > 1:
        return False
    values = np.unique(labels.array)
    return len(values) <= _MOST_VALUES and values[0] == 0
