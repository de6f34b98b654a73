"""Pairs images and label maps by their names."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.layouts.tree_case import (
    MOST_CHANNELS,
    Files,
    FilesByRole,
    Form,
    Place,
    TreeCase,
    name_role,
)
from medseg.layouts.tree_names import SEPARATORS, NamedFile
from medseg.names import fold_name, split_channel

_Spot = tuple[Place, str]
"""A place and a name in it, in folded form."""
_FilesBySpot = dict[_Spot, Files]
_SortedFiles = list[tuple[str, NamedFile]]
"""Files with their names, in order."""


def pair_by_name(
    images: Iterable[NamedFile],
    labels: Iterable[NamedFile],
    title: str = "images and label maps of the same names",
) -> Form:
    """Pair files whose paths are the same but for the words that say what they are.

    A label's name may also be the beginning of several images' (``x_seg``, ``x_flair``, ``x_t1``),
    or say nothing but that it is one (``x/segmentation``, ``x/imaging``).
    """
    index = _ImageIndex(images)
    cases: dict[_Spot, TreeCase] = {}
    orphans: Files = []
    for label in sorted(labels, key=_put_long_first):
        spot, found = index.find_images(label)
        if not found:
            orphans.append(label)
            continue
        if spot not in cases:
            cases[spot] = _open_case(
                spot,
                label,
                found,
            )
        case = cases[spot]
        case.labels.append(label)
    ordered = [cases[spot] for spot in sorted(cases)]
    return Form(
        title,
        tuple(ordered),
        tuple(orphans),
    )


def _put_long_first(label: NamedFile) -> int:
    """Order labels so that ``x_1_seg`` takes ``x_1`` before ``x_seg`` takes what begins with x."""
    return -len(label.key)


def _open_case(spot: _Spot, label: NamedFile, images: FilesByRole) -> TreeCase:
    place, name = spot
    is_whole_name = fold_name(label.stem) == name
    key = label.stem if is_whole_name else label.key
    return TreeCase(
        place,
        key,
        images,
    )


class _ImageIndex:
    """Images by their places and names.

    Args:
        images: The images.
    """

    def __init__(self, images: Iterable[NamedFile]) -> None:
        self._by_stem: _FilesBySpot = defaultdict(list)
        self._by_key: _FilesBySpot = defaultdict(list)
        self._by_base: _FilesBySpot = defaultdict(list)
        self._by_place: dict[Place, _SortedFiles] = defaultdict(list)
        self._found: dict[_Spot, FilesByRole] = {}
        self._taken: set[Path] = set()
        for image in images:
            self._add(image)
        for files in self._by_place.values():
            files.sort(key=_get_name)

    def _add(self, image: NamedFile) -> None:
        place = image.place
        stem = fold_name(image.stem)
        key = fold_name(image.key)
        self._by_stem[place, stem].append(image)
        self._by_key[place, key].append(image)
        self._by_place[place].append((stem, image))
        base, number = split_channel(stem)
        if number is not None:
            self._by_base[place, base].append(image)

    def find_images(self, label: NamedFile) -> tuple[_Spot, FilesByRole]:
        """Return the case of a label, and its images; none where it has none."""
        stem = fold_name(label.stem)
        key = fold_name(label.key)
        for name in (stem, key):
            spot = (label.place, name)
            if spot not in self._found:
                self._found[spot] = self._find_named(spot)
            if self._found[spot]:
                return spot, self._found[spot]
        spot = (label.place, key)
        longer = self._find_longer(label.place, key)
        self._found[spot] = self._tell(longer, key)
        return spot, self._found[spot]

    def _find_named(self, spot: _Spot) -> FilesByRole:
        """Return the images of a name, or those that number their channels behind it."""
        _, name = spot
        if not name:
            return {}
        named = self._by_stem.get(spot) or self._by_key.get(spot)
        if named:
            return self._tell_by_folder(named)
        numbered = self._by_base.get(spot, [])
        return self._tell(numbered, name)

    def _find_longer(
        self,
        place: Place,
        key: str,
    ) -> Files:
        """Return the images whose names go on where the label's key ends."""
        files = self._by_place.get(place, [])
        start = bisect_left(
            files,
            key,
            key=_get_name,
        )
        found: Files = []
        for stem, image in files[start:]:
            if not stem.startswith(key):
                break
            rest = stem[len(key) :]
            goes_on = not key or rest[:1] in SEPARATORS
            if goes_on and image.file not in self._taken:
                found.append(image)
        return found if len(found) <= MOST_CHANNELS else []

    def _tell(
        self,
        images: Sequence[NamedFile],
        key: str,
    ) -> FilesByRole:
        """Tell images of one case apart by what their names have besides it."""
        told: FilesByRole = defaultdict(list)
        for image in images:
            role = name_role(image, key)
            told[role].append(image)
            self._taken.add(image.file)
        return dict(told)

    def _tell_by_folder(self, images: Sequence[NamedFile]) -> FilesByRole:
        told: FilesByRole = defaultdict(list)
        for image in images:
            role = "/".join(image.folders) if len(images) > 1 else ""
            told[role].append(image)
            self._taken.add(image.file)
        return dict(told)


def _get_name(item: tuple[str, NamedFile]) -> str:
    return item[0]


# --- other names --------------------------------------------------------------------------


def pair_without_affixes(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Pair files by what is left when what all images, or all labels, share is taken away.

    ``x_L`` is the label of ``x``, and ``x_manual1`` that of ``x_training``.
    """
    title = "images and label maps whose names differ in what all of them share"
    bare_images = _strip_affixes(images)
    bare_labels = _strip_affixes(labels)
    return pair_by_name(
        bare_images,
        bare_labels,
        title,
    )


def _strip_affixes(files: Sequence[NamedFile]) -> Files:
    stems = [file.stem for file in files]
    start = end = ""
    if len(files) > 1:
        start = _find_shared_start(stems)
        end = _find_shared_end(stems)
    bare = []
    for file in files:
        key = file.stem.removeprefix(start)
        key = key.removesuffix(end)
        bare.append(
            replace(
                file,
                place=file.bare_place,
                key=key,
            )
        )
    return bare


def _find_shared_start(stems: Sequence[str]) -> str:
    """Return what all names begin with, without digits at its end: these are of a number."""
    shared = _find_prefix(stems)
    return re.sub(
        r"\d+$",
        "",
        shared,
    )


def _find_shared_end(stems: Sequence[str]) -> str:
    """Return what all names end with, from a separator on."""
    backwards = [stem[::-1] for stem in stems]
    shared = _find_prefix(backwards)[::-1]
    match = re.search(rf"[{SEPARATORS}].*", shared)
    return match[0] if match else ""


def _find_prefix(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first = min(texts)
    last = max(texts)
    length = 0
    for sign, other in zip(
        first,
        last,
        strict=False,
    ):
        if sign != other:
            break
        length += 1
    return first[:length]


def pair_across_folders(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Pair files of the same names in folders whose names say nothing: ``T1/x``, ``masks/x``."""
    title = "images and label maps of the same names in folders of any name"
    moved_images = [_leave_top_folder(image) for image in images]
    moved_labels = [_leave_top_folder(label) for label in labels]
    return pair_by_name(
        moved_images,
        moved_labels,
        title,
    )


def _leave_top_folder(file: NamedFile) -> NamedFile:
    if not file.folders:
        return file
    says_role = file.role_folder == file.folders[0]
    place = file.bare_place if says_role else file.place[1:]
    return replace(file, place=place)
