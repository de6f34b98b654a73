"""A case of a tree of files, before it is listed; and what one way of reading a tree finds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.layouts.tree_names import (
    NamedFile,
    split_stem,
    strip_place,
)
from medseg.names import fold_name

MOST_CHANNELS = 16
"""Images that a case may have; more are cases of their own."""

Place = tuple[str, ...]
"""The folders of files, without the words that say what these are."""

Files = list[NamedFile]
FilesByPlace = dict[Place, Files]
FilesByRole = dict[str, Files]


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

    place: Place
    key: str = ""
    images: FilesByRole = field(default_factory=dict)
    labels: Files = field(default_factory=list)
    masks: dict[str, NamedFile] = field(default_factory=dict)

    @property
    def image_files(self) -> Files:
        """Every image."""
        files: Files = []
        for images in self.images.values():
            files += images
        return files

    @property
    def label_files(self) -> Files:
        """Every label map and mask."""
        return [*self.labels, *self.masks.values()]

    @property
    def files(self) -> Files:
        """Every file."""
        return self.image_files + self.label_files

    def add_image(
        self,
        role: str,
        image: NamedFile,
    ) -> None:
        """Add what may be one of its channels."""
        images = self.images.setdefault(role, [])
        images.append(image)

    def add_channels(self, images: Sequence[NamedFile]) -> None:
        """Add the images of its folder, unless they look like images of several cases."""
        roles = [name_role(image, "") for image in images]
        numbered = [role for role in roles if re.search(r"\d{2}", role)]
        are_several = len(images) > 1 and numbered
        if are_several or len(images) > MOST_CHANNELS:
            return
        for role, image in zip(
            roles,
            images,
            strict=True,
        ):
            self.add_image(role, image)


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
        """What the way is, as far as the cases show it."""
        places = {case.place for case in self.cases}
        is_apart = len(places) == len(self.cases) > 1
        if is_apart and not self.has_masks:
            return "one folder per case"
        return self.title

    @property
    def has_masks(self) -> bool:
        """Whether the labels are masks, one file per structure."""
        return any(case.masks for case in self.cases)

    @property
    def is_convincing(self) -> bool:
        """Whether most labels have an image."""
        return len(self.labels) >= max(len(self.orphans), 1)

    @property
    def labels(self) -> Files:
        """The label files of all cases."""
        files: Files = []
        for case in self.cases:
            files += case.label_files
        return files

    @property
    def repeats_images(self) -> bool:
        """Whether names of images repeat from case to case; of one case, whether it has one."""
        counts: Counter[str] = Counter()
        for case in self.cases:
            roles = [fold_name(role) for role in case.images]
            counts.update(roles)
        if len(self.cases) == 1:
            return len(counts) == 1
        half = len(self.cases) / 2
        return any(count > half for count in counts.values())


def name_role(
    image: NamedFile,
    key: str,
) -> str:
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


def group_by_place(files: Iterable[NamedFile]) -> FilesByPlace:
    """Return the files of each place."""
    groups: FilesByPlace = defaultdict(list)
    for file in files:
        group = groups[file.place]
        group.append(file)
    return groups


def list_paths(files: Iterable[NamedFile]) -> set[Path]:
    """Return where files are."""
    return {file.file for file in files}
