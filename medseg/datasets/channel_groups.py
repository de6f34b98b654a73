"""Image files that may be the channels of one scan, by what their names and folders share.

Of very many, most lie on the disk meanwhile.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from medseg._support.long_sort import sort_long
from medseg._support.spool import Spool
from medseg.datasets.channel_endings import names_channel, split_channel_name
from medseg.datasets.named_channels import match_names
from medseg.layouts.bids import group_by_channel
from medseg.layouts.bids_names import BidsFile, parse_bids_file
from medseg.names import fold_name, split_suffix

NumberedFile = tuple[int, str]
"""The number of a file among all, and its path: a text, which is soon written and read."""

Images = Mapping[str, Sequence[NumberedFile]]
"""What tells an image from the others → its files."""

_Subject = tuple[str, str, int, str]
"""Folder of a BIDS data set, its subject, and a file of that."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which images of a group are which channels.

    Attributes:
        found: Channel → its file, of those that are certain.
        doubled: Channels for which there are several.
        channels: How many the bundle has.
    """

    found: Mapping[str, NumberedFile]
    doubled: tuple[str, ...]
    channels: int

    @property
    def is_empty(self) -> bool:
        """Whether no image is that of a channel."""
        return not self.found and not self.doubled

    @property
    def is_whole(self) -> bool:
        """Whether every channel has a file of its own."""
        return len(set(self.found.values())) == self.channels


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Image files that may be the channels of one scan.

    Attributes:
        where: Its path: the folder of its files, or in it what their names share.
        images: Its files.
    """

    where: Path
    images: Images

    @property
    def base(self) -> tuple[Path, str]:
        """Folder of files and what their names share, in folded form."""
        return self.where.parent, fold_name(self.where.name)

    @property
    def files(self) -> list[NumberedFile]:
        """Every file."""
        return [file for files in self.images.values() for file in files]

    @property
    def file_names(self) -> list[str]:
        """What they are called."""
        return [Path(file).name for _, file in self.files]

    def assign(self, wanted: Sequence[str]) -> Assignment:
        """Say which image is which channel."""
        found: dict[str, NumberedFile] = {}
        doubled = []
        match = match_names(wanted, self.images)
        for name, roles in match.options.items():
            files = [file for role in roles for file in self.images[role]]
            if len(files) == 1:
                found[name] = files[0]
            elif files:
                doubled.append(name)
        return Assignment(found, tuple(doubled), len(wanted))


_Place = tuple[bool, int, int]
"""Where a group comes in the order of groups: those of BIDS after others."""

_Found = tuple[str, _Place, str, Images]
"""Some images of a group, of BIDS all of them: what those of a group share, the group's place and
path as these images say it, and the images."""


def find_groups(
    root: Path, files: Iterable[tuple[int, Path]], wanted: Sequence[str]
) -> Iterator[ChannelGroup]:
    """Give the groups of images that may be channels, in the order in which they are met.

    Args:
        root: The folder that is searched.
        files: Image files in it, and the number of each.
        wanted: The names of the bundle's channels.

    Raises:
        OutputError: If they do not fit into the folder for temporary files.
    """
    found = sort_long(_look_at(root, files, wanted), key=itemgetter(0, 1))
    united = (_unite([*some]) for _, some in groupby(found, itemgetter(0)))
    for _, where, images in sort_long(united, key=itemgetter(0)):
        yield ChannelGroup(Path(where), images)


def _look_at(
    root: Path, files: Iterable[tuple[int, Path]], wanted: Sequence[str]
) -> Iterator[_Found]:
    subjects: Spool[_Subject] = Spool()
    for number, file in files:
        bids = parse_bids_file(file)
        if bids is not None:
            folder = _find_data_set(root, bids)
            subjects.append((str(folder), bids.subject, number, str(file)))
            continue
        split = _split_name(file, wanted) or _split_path(root, file, wanted)
        if split is None:
            continue
        where, role = split
        images = {role: [(number, str(file))]}
        yield _make_found(where, (False, number, 0), images)
    ordered = sort_long(subjects, key=itemgetter(0, 1, 2))
    for _, of_subject in groupby(ordered, key=itemgetter(0, 1)):
        yield from _group_sessions([*of_subject])


def _make_found(where: Path, place: _Place, images: Images) -> _Found:
    folder, name = os.path.split(where)
    return join_base(folder, fold_name(name)), place, str(where), images


def join_base(folder: str | Path, name: str) -> str:
    """Return as one text what files share: their folder, and the folded begin of their names."""
    # Where a system takes two folders for the same, so must this.
    return f"{os.path.normcase(folder)}\0{name}"


def _unite(found: Sequence[_Found]) -> tuple[_Place, str, Images]:
    """Return the place, the path and the images of a group."""
    _, place, where, _ = found[0]
    _, (is_bids, *_), last, of_session = found[-1]
    if is_bids:
        return place, last, of_session
    images: dict[str, list[NumberedFile]] = defaultdict(list)
    for *_, some in found:
        for role, files in some.items():
            images[role] += files
    return place, where, dict(images)


def _find_data_set(root: Path, file: BidsFile) -> Path:
    """Return the folder that a subject's folder lies in."""
    for folder in file.file.parents:
        if folder.name == file.subject and folder.is_relative_to(root):
            return root if folder == root else folder.parent
    return file.file.parent


def _group_sessions(of_subject: Sequence[_Subject]) -> Iterator[_Found]:
    """Give the images of each session and run of a subject, as for a label of it."""
    folder, _, first, _ = of_subject[0]
    numbers: dict[Path, int] = {}
    images = []
    for *_, number, text in of_subject:
        image = parse_bids_file(Path(text))
        if image is not None:
            images.append(image)
            numbers[image.file] = number
    sessions = {image.session: image for image in images}
    for place, (name, image) in enumerate(sessions.items()):
        if any(_refines(other, image) for other in sessions.values()):
            continue
        by_role: dict[str, list[NumberedFile]] = {}
        for role, mates in group_by_channel(image, images).items():
            files = [(numbers[mate.file], str(mate.file)) for mate in mates]
            by_role[role] = files
        yield _make_found(Path(folder, name), (True, first, place), by_role)


def _refines(other: BidsFile, image: BidsFile) -> bool:
    """Tell whether another image is of a session or run that this one does not name."""
    is_longer = len(other.session) > len(image.session)
    return is_longer and other.is_image_of(image)


def _split_name(file: Path, wanted: Sequence[str]) -> tuple[Path, str] | None:
    """Split a file's path into what it shares with others and a channel's name, if it has one."""
    stem, _ = split_suffix(file.name)
    split = split_channel_name(stem, wanted)
    if split is None:
        return None
    own, role = split
    is_folder = not own or own == file.parent.name
    return (file.parent if is_folder else file.parent / own), role


def _split_path(
    root: Path, file: Path, wanted: Sequence[str]
) -> tuple[Path, str] | None:
    """Split the folder that is called after a channel off a file's path, if there is one."""
    folders = file.relative_to(root).parts[:-1]
    for number in reversed(range(len(folders))):
        role = folders[number]
        if names_channel(role, tuple(wanted)):
            stem, _ = split_suffix(file.name)
            rest = (*folders[:number], *folders[number + 1 :], stem)
            return root.joinpath(*rest), role
    return None
