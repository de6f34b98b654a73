"""Scans whose channels are files of their own, by the names that training knows channels by.

``BraTS20_001_flair`` and ``BraTS20_001_t1``; ``P1/FLAIR`` and ``P1/T1w``; ``T1/P1`` and
``FLAIR/P1``; ``sub-01_FLAIR`` and ``sub-01_ce-gad_T1w`` of BIDS. Which name is which channel,
``layouts.channel_names`` decides for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.datasets.channel_endings import (
    SEPARATORS,
    names_channel,
    split_channel_name,
)
from medseg.datasets.channel_ways import describe_missing
from medseg.datasets.named_channels import match_names
from medseg.datasets.scan_candidates import Candidate, Search, flatten
from medseg.layouts.bids import DESCRIPTION, group_by_channel, is_derived
from medseg.layouts.bids_names import BidsFile, parse_bids_file
from medseg.names import (
    abbreviate,
    fold_name,
    is_picture,
    make_safe_name,
    split_suffix,
)

_Base = tuple[Path, str]
"""Folder of files and what their names share, in folded form."""


@dataclass(slots=True)
class _Group:
    """Image files that may be the channels of one scan.

    Attributes:
        where: Its path: the folder of its files, or in it what their names share.
        images: What tells an image from the others → its files.
    """

    where: Path
    images: dict[str, list[Path]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @property
    def files(self) -> list[Path]:
        """Every file."""
        return [file for files in self.images.values() for file in files]

    def assign(self, wanted: Sequence[str]) -> _Assignment:
        """Say which image is which channel."""
        found: dict[str, Path] = {}
        doubled = []
        match = match_names(wanted, self.images)
        for name, roles in match.options.items():
            files = [file for role in roles for file in self.images[role]]
            if len(files) == 1:
                found[name] = files[0]
            elif files:
                doubled.append(name)
        return _Assignment(found, tuple(doubled))


@dataclass(frozen=True, slots=True)
class _Assignment:
    """Which images of a group are which channels.

    Attributes:
        found: Channel → its file, of those that are certain.
        doubled: Channels for which there are several.
    """

    found: dict[str, Path]
    doubled: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no image is that of a channel."""
        return not self.found and not self.doubled


def take_named_channels(
    root: Path,
    files: Sequence[Path],
    search: Search,
) -> list[Path]:
    """Make scans of files that are called after the bundle's channels; return the other files.

    One name alone may be anything: groups that lack channels are left out where another one in
    the folder is whole, or two of their names are channels'.

    Args:
        root: The folder that is searched.
        files: Image files in it.
        search: Knows the channels' names, and takes the scans.
    """
    wanted = search.channel_names
    if len(wanted) < 2:
        return list(files)
    spare = _list_derived(root, files)
    groups = _group_files(root, files, spare, wanted)
    assigned = {base: group.assign(wanted) for base, group in groups.items()}
    whole = _find_whole(assigned, len(wanted))
    taken: set[Path] = set()
    cases = set(whole)
    for base, group in groups.items():
        assignment = assigned[base]
        if base in whole:
            _add_scan(root, group, assignment, search)
            taken.update(assignment.found.values())
            spare.update(group.files)
        elif _is_more_of(base, whole) or (whole and assignment.is_empty):
            spare.update(group.files)
        elif whole or _looks_like_scan(group, assignment):
            _leave_out(root, group, assignment, search)
            taken.update(group.files)
            cases.add(base)
    return _leave_neighbours(cases, files, taken, spare, search)


def _list_derived(root: Path, files: Iterable[Path]) -> set[Path]:
    """Return what was derived from the scans of a BIDS data set, which training leaves out."""
    if not (root / DESCRIPTION).is_file():
        return set()
    return {file for file in files if is_derived(file, root)}


def _find_whole(
    assigned: Mapping[_Base, _Assignment], channels: int
) -> set[_Base]:
    """Return the groups in which every channel has a file of its own."""
    whole = set()
    for base, assignment in assigned.items():
        if len(set(assignment.found.values())) == channels:
            whole.add(base)
    return whole


def _is_more_of(base: _Base, whole: Collection[_Base]) -> bool:
    """Tell whether images are further ones of a scan: ``a_post_T1`` of ``a``, not ``a_2_T1``."""
    folder, name = base
    lies_in_case = (folder.parent, fold_name(folder.name)) in whole
    start = _find_start(base, whole)
    rest = name[len(start) :]
    is_numbered = any(sign.isdigit() for sign in rest)
    return not is_numbered and bool(lies_in_case or start)


def _looks_like_scan(group: _Group, assignment: _Assignment) -> bool:
    """Tell whether files are some channels of a scan, though no other one is whole.

    A picture holds all its channels, whatever its name ends in.
    """
    if len(assignment.found) < 2:
        return False
    return not any(is_picture(file) for file in group.files)


# --- groups -------------------------------------------------------------------------------


def _group_files(
    root: Path,
    files: Iterable[Path],
    derived: Collection[Path],
    wanted: Sequence[str],
) -> dict[_Base, _Group]:
    """Return the images that may be channels, by what they share."""
    groups: dict[_Base, _Group] = {}
    subjects: dict[_Base, list[BidsFile]] = defaultdict(list)
    for file in files:
        if file in derived:
            continue
        bids = parse_bids_file(file)
        if bids is not None:
            key = (_find_data_set(root, bids), bids.subject)
            subjects[key].append(bids)
            continue
        split = _split_name(file, wanted) or _split_path(root, file, wanted)
        if split is None:
            continue
        where, role = split
        base = (where.parent, fold_name(where.name))
        if base not in groups:
            groups[base] = _Group(where)
        groups[base].images[role].append(file)
    for (folder, _), images in subjects.items():
        groups |= _group_sessions(folder, images)
    return groups


def _find_data_set(root: Path, file: BidsFile) -> Path:
    """Return the folder that a subject's folder lies in."""
    for folder in file.file.parents:
        if folder.name == file.subject and folder.is_relative_to(root):
            return root if folder == root else folder.parent
    return file.file.parent


def _group_sessions(
    folder: Path, images: Sequence[BidsFile]
) -> dict[_Base, _Group]:
    """Return the images of each session and run of a subject, as for a label of it."""
    sessions = {image.session: image for image in images}
    groups = {}
    for name, image in sessions.items():
        if any(_refines(other, image) for other in sessions.values()):
            continue
        where = folder / name
        group = _Group(where)
        for role, mates in group_by_channel(image, images).items():
            group.images[role] += [mate.file for mate in mates]
        groups[folder, fold_name(name)] = group
    return groups


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


# --- scans --------------------------------------------------------------------------------


def _add_scan(
    root: Path, group: _Group, assignment: _Assignment, search: Search
) -> None:
    where, name = _name_group(root, group)
    parts = [(assignment.found[name],) for name in search.channel_names]
    search.candidates.append(Candidate(name, where, tuple(parts)))


def _leave_out(
    root: Path, group: _Group, assignment: _Assignment, search: Search
) -> None:
    """Leave out a scan of which not every channel is there, once."""
    where, name = _name_group(root, group)
    found = tuple(assignment.found)
    search.leave_out(
        make_safe_name(name),
        where,
        describe_missing(search.channel_names, found, assignment.doubled),
        f"its files are {abbreviate(file.name for file in group.files)}",
    )


def _name_group(root: Path, group: _Group) -> tuple[str, str]:
    """Return where a scan is, below the folder that is searched, and its name."""
    where = group.where.relative_to(root).as_posix()
    return where, flatten(where) if where != "." else root.name


def _leave_neighbours(
    bases: Collection[_Base],
    files: Iterable[Path],
    taken: Collection[Path],
    spare: Collection[Path],
    search: Search,
) -> list[Path]:
    """Return the files that are no channels; those of the same scans are passed over."""
    folders = {(base[0] / base[1]).as_posix().casefold() for base in bases}
    others: list[Path] = []
    beside: list[Path] = []
    for file in files:
        if file in taken:
            continue
        stem, _ = split_suffix(file.name)
        base = (file.parent, fold_name(stem))
        lies_in = file.parent.as_posix().casefold() in folders
        is_beside = file in spare or lies_in or _find_start(base, bases)
        kind = beside if is_beside else others
        kind.append(file)
    if beside:
        names = abbreviate(file.name for file in beside)
        noun = "1 file" if len(beside) == 1 else f"{len(beside)} files"
        search.notes.append(
            f"{noun} beside the channels of scans: none of the bundle's, not used: {names}"
        )
    return others


def _find_start(base: _Base, bases: Collection[_Base]) -> str:
    """Return the longest name of a scan in the same folder that a name goes on from, if any."""
    folder, name = base
    start = ""
    for end, sign in enumerate(name):
        if sign in SEPARATORS and (folder, name[:end]) in bases:
            start = name[:end]
    return start
