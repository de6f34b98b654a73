"""Which files of a tree are one case: an image and its label map, or an image and its masks.

Each form is one way in which people lay out data. All are tried, and the one that finds an image
for most labels is taken.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.datasets.layouts.tree_names import (
    SEPARATORS,
    NamedFile,
    split_stem,
    strip_place,
)
from medseg.datasets.names import fold_name, split_channel

_MOST_CHANNELS = 16
"""Images that a case may have; more are cases of their own."""

_Place = tuple[str, ...]
_Spot = tuple[_Place, str]
"""A place and a name in it."""
_Channels = dict[str, list[NamedFile]]
"""Images of one case, by what tells them apart."""


@dataclass(slots=True)
class TreeCase:
    """A case to be.

    Attributes:
        place: The folders that its files share.
        key: Its name there; ``""`` where the folder is the case.
        images: Its images, by what tells them from each other: ``flair``, ``0000``, or ``""``.
        labels: Its label maps; more than one are candidates.
        masks: Its masks, one file per structure, by name.
    """

    place: _Place
    key: str = ""
    images: _Channels = field(default_factory=dict)
    labels: list[NamedFile] = field(default_factory=list)
    masks: dict[str, NamedFile] = field(default_factory=dict)

    @property
    def files(self) -> Iterator[NamedFile]:
        """Every file."""
        for images in self.images.values():
            yield from images
        yield from self.labels
        yield from self.masks.values()

    def add_image(self, role: str, image: NamedFile) -> None:
        """Add what may be one of its channels."""
        self.images.setdefault(role, []).append(image)


@dataclass(frozen=True, slots=True)
class Form:
    """What one way of reading a tree finds.

    Attributes:
        title: What the way is, for people.
        cases: The cases.
        orphans: Labels without an image.
        channels: The channels in their order, where somebody gave them one.
    """

    title: str
    cases: tuple[TreeCase, ...] = ()
    orphans: tuple[NamedFile, ...] = ()
    channels: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What the way is, in a few words."""
        places = {case.place for case in self.cases}
        if len(places) == len(self.cases) > 1:
            return "one folder per case" if not self.has_masks else self.title
        return self.title

    @property
    def has_masks(self) -> bool:
        """Whether the labels are masks, one file per structure."""
        return any(case.masks for case in self.cases)


def find_form(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form | None:
    """Return the form under which most labels have an image; ``None`` if no label has any."""
    forms = [
        pair_by_name(images, labels),
        collect_masks(images, labels),
        gather_folders(images, labels),
        pair_without_affixes(images, labels),
        pair_across_folders(images, labels),
    ]
    # The first of equals: it needs the least imagination.
    best = min(forms, key=lambda form: len(form.orphans))
    return best if best.cases else None


# --- pairs --------------------------------------------------------------------------------


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
    orphans = []
    # Long names first: x_1_seg takes x_1 before x_seg takes what begins with x.
    for label in sorted(labels, key=lambda label: -len(label.key)):
        spot, found = index.find_images(label)
        if not found:
            orphans.append(label)
            continue
        place, name = spot
        key = label.stem if fold_name(label.stem) == name else label.key
        case = cases.setdefault(spot, TreeCase(place, key))
        case.labels.append(label)
        case.images = found
    ordered = sorted(cases.values(), key=lambda case: (case.place, case.key))
    return Form(title, tuple(ordered), tuple(orphans))


class _ImageIndex:
    """Images by their places and names.

    Args:
        images: The images.
    """

    def __init__(self, images: Iterable[NamedFile]) -> None:
        self._exact: dict[_Spot, list[NamedFile]] = defaultdict(list)
        self._keys: dict[_Spot, list[NamedFile]] = defaultdict(list)
        self._numbered: dict[_Spot, list[NamedFile]] = defaultdict(list)
        self._by_place: dict[_Place, list[tuple[str, NamedFile]]] = defaultdict(
            list
        )
        self._taken: set[Path] = set()
        self._found: dict[_Spot, _Channels] = {}
        for image in images:
            stem = fold_name(image.stem)
            base, number = split_channel(stem)
            self._exact[image.place, stem].append(image)
            self._keys[image.place, fold_name(image.key)].append(image)
            if number is not None:
                self._numbered[image.place, base].append(image)
            self._by_place[image.place].append((stem, image))
        for files in self._by_place.values():
            files.sort(key=lambda item: item[0])

    def find_images(self, label: NamedFile) -> tuple[_Spot, _Channels]:
        """Return the case of a label, and its images; none where it has none."""
        stem, key = fold_name(label.stem), fold_name(label.key)
        for name in dict.fromkeys((stem, key)):
            spot = (label.place, name)
            images = self._found.get(spot) or self._find_named(spot)
            if images:
                self._found[spot] = images
                return spot, images
        spot = (label.place, key)
        images = self._tell(self._find_longer(*spot), key)
        if images:
            self._found[spot] = images
        return spot, images

    def _find_named(self, spot: _Spot) -> _Channels:
        _, name = spot
        named = self._exact.get(spot) or self._keys.get(spot)
        if named and name:
            return self._tell_by_folder(named)
        return self._tell(self._numbered.get(spot, []), name)

    def _find_longer(self, place: _Place, key: str) -> list[NamedFile]:
        """Return the images whose names go on where the label's key ends."""
        files = self._by_place.get(place, [])
        start = bisect_left(files, key, key=lambda item: item[0])
        found = []
        for stem, image in files[start:]:
            if not stem.startswith(key):
                break
            goes_on = not key or stem[len(key)] in SEPARATORS
            if goes_on and image.file not in self._taken:
                found.append(image)
        return found if len(found) <= _MOST_CHANNELS else []

    def _tell(self, images: Sequence[NamedFile], key: str) -> _Channels:
        told: _Channels = {}
        for image in images:
            self._taken.add(image.file)
            told.setdefault(name_role(image, key), []).append(image)
        return told

    def _tell_by_folder(self, images: Sequence[NamedFile]) -> _Channels:
        self._taken.update(image.file for image in images)
        if len(images) == 1:
            return {"": [images[0]]}
        told: _Channels = {}
        for image in images:
            told.setdefault("/".join(image.folders), []).append(image)
        return told


def name_role(image: NamedFile, key: str) -> str:
    """Return what tells an image from the others of its case.

    Args:
        image: The image.
        key: The name of the case in its folder, in folded form.
    """
    text = image.stem
    if key and fold_name(text).startswith(key):
        text = text[len(key) :]
    text = strip_place(text, image.folders)
    name, role = split_stem(text)
    return name if role == "image" else text


# --- other names --------------------------------------------------------------------------


def pair_without_affixes(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Pair files by what is left when what all images, or all labels, share is taken away.

    ``x_L`` is the label of ``x``, and ``x_manual1`` that of ``x_training``.
    """
    plain_images = _strip_affixes(images)
    plain_labels = _strip_affixes(labels)
    return pair_by_name(
        plain_images,
        plain_labels,
        "images and label maps whose names differ in what all of them share",
    )


def _strip_affixes(files: Sequence[NamedFile]) -> list[NamedFile]:
    stems = [file.stem for file in files]
    if len(files) < 2:
        return [_place_barely(file, file.key) for file in files]
    start = re.sub(r"\d+$", "", _find_shared_start(stems))
    reverse = _find_shared_start([stem[::-1] for stem in stems])
    end = re.sub(rf"^[^{SEPARATORS}]*$|^[^{SEPARATORS}]+", "", reverse[::-1])
    plain = []
    for file in files:
        key = file.stem.removeprefix(start).removesuffix(end)
        plain.append(_place_barely(file, key))
    return plain


def _find_shared_start(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first, last = min(texts), max(texts)
    length = 0
    while (
        first[length : length + 1]
        and first[length] == last[length : length + 1]
    ):
        length += 1
    return first[:length]


def _place_barely(file: NamedFile, key: str) -> NamedFile:
    return replace(file, place=file.bare_place, key=key)


def pair_across_folders(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Pair files of the same names in folders whose names say nothing: ``T1/x``, ``masks/x``."""
    moved = [_leave_top_folder(image) for image in images]
    return pair_by_name(
        moved,
        [_leave_top_folder(label) for label in labels],
        "images and label maps of the same names in folders of any name",
    )


def _leave_top_folder(file: NamedFile) -> NamedFile:
    if not file.folders:
        return file
    says_role = file.role_folder == file.folders[0]
    place = file.bare_place if says_role else file.place[1:]
    return replace(file, place=place)


# --- folders ------------------------------------------------------------------------------


def gather_folders(
    images: Iterable[NamedFile], labels: Iterable[NamedFile]
) -> Form:
    """Take every folder with one label map as a case, whatever its files are called.

    The names of the images must be those in the other folders, too.
    """
    images_of = _group_by_place(images)
    labels_of = _group_by_place(labels)
    cases = []
    orphans: list[NamedFile] = []
    for place, own_labels in labels_of.items():
        own_images = images_of.get(place, [])
        fits = len(own_labels) == 1 and 0 < len(own_images) <= _MOST_CHANNELS
        if not fits:
            orphans += own_labels
            continue
        case = TreeCase(place, labels=own_labels)
        for image in own_images:
            case.add_image(name_role(image, ""), image)
        cases.append(case)
    form = Form("one folder per case", tuple(cases), tuple(orphans))
    return form if _repeat(form) else _refuse_form(form, labels_of)


def _repeat(form: Form) -> bool:
    """Tell whether names of images repeat from case to case."""
    counts: Counter[str] = Counter()
    for case in form.cases:
        counts.update(fold_name(role) for role in case.images)
    if len(form.cases) == 1:
        return len(counts) == 1
    return any(2 * counts[role] > len(form.cases) for role in counts)


def _refuse_form(
    form: Form, labels_of: Mapping[_Place, Sequence[NamedFile]]
) -> Form:
    orphans = [label for group in labels_of.values() for label in group]
    return Form(form.title, (), tuple(orphans))


def _group_by_place(
    files: Iterable[NamedFile],
) -> dict[_Place, list[NamedFile]]:
    groups: dict[_Place, list[NamedFile]] = defaultdict(list)
    for file in files:
        groups[file.place].append(file)
    return groups


# --- masks --------------------------------------------------------------------------------


def collect_masks(
    images: Sequence[NamedFile], labels: Sequence[NamedFile]
) -> Form:
    """Take each folder of masks as the labels of the case that it lies in, or is called like.

    ``s1/ct`` and ``s1/segmentations/liver``; or ``images/s1`` and ``labels/s1/liver``.
    """
    title = "one folder of masks per case, one file per structure"
    by_folder = [label for label in labels if label.role_folder]
    masks_of = _group_by_place(by_folder)
    images_of = _group_by_place(images)
    named = {(*image.place, image.stem): image for image in images}
    cases = []
    orphans = [label for label in labels if not label.role_folder]
    for place, masks in masks_of.items():
        case = TreeCase(place)
        own = named.get(place)
        if own is not None:
            case.add_image("", own)
        else:
            _add_channels(case, images_of.get(place, ()))
        if not case.images:
            orphans += masks
            continue
        case.masks = {_name_structure(mask, place): mask for mask in masks}
        cases.append(case)
    form = Form(title, tuple(cases), tuple(orphans))
    is_named = _share_structures(cases) and _repeat(form)
    return form if is_named else _refuse_form(form, _group_by_place(labels))


def _add_channels(case: TreeCase, images: Sequence[NamedFile]) -> None:
    """Add the images of a folder to its case, unless they look like images of several cases."""
    roles = [name_role(image, "") for image in images]
    is_numbered = any(re.search(r"\d{2}", role) for role in roles)
    is_several = len(images) > 1 and is_numbered
    if is_several or len(images) > _MOST_CHANNELS:
        return
    for role, image in zip(roles, images, strict=True):
        case.add_image(role, image)


def _name_structure(mask: NamedFile, place: _Place) -> str:
    return strip_place(mask.key or mask.stem, place) or mask.stem


def _hold_their_masks(case: TreeCase) -> bool:
    """Tell whether the folder of masks lies where the images lie, and not beside their folder."""
    folders = {mask.folders[:-1] for mask in case.masks.values()}
    return all(
        image.folders in folders
        for images in case.images.values()
        for image in images
    )


def _share_structures(cases: Sequence[TreeCase]) -> bool:
    """Tell whether masks are named after structures: most names occur in several cases."""
    counts = Counter(name for case in cases for name in case.masks)
    if len(cases) == 1:
        return len(counts) > 1 and _hold_their_masks(cases[0])
    several = sum(count > 1 for count in counts.values())
    return 2 * several >= len(counts)
