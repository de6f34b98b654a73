"""Scans whose channels are files of their own, by the names that training knows channels by.

``BraTS20_001_flair`` and ``BraTS20_001_t1``; ``P1/FLAIR`` and ``P1/T1w``; ``T1/P1`` and
``FLAIR/P1``; ``sub-01_FLAIR`` and ``sub-01_ce-gad_T1w`` of BIDS. Which name is which channel,
``layouts.channel_names`` decides for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg._support.spool import Spool
from medseg._support.text_hashes import TextHashes
from medseg.datasets.channel_endings import SEPARATORS
from medseg.datasets.channel_groups import (
    Assignment,
    ChannelGroup,
    NumberedFile,
    find_groups,
    join_base,
)
from medseg.datasets.channel_ways import describe_missing
from medseg.datasets.scan_candidates import Candidate, Search, flatten
from medseg.layouts.bids import DESCRIPTION, is_derived
from medseg.names import (
    abbreviate,
    fold_name,
    is_picture,
    make_safe_name,
    split_suffix,
)

_OTHER, _BESIDE, _TAKEN = range(3)
"""What becomes of a file: it may be a scan, it lies beside the channels of one, or is a channel."""


def take_named_channels(
    root: Path,
    files: Sequence[Path],
    search: Search,
) -> Sequence[Path]:
    """Make scans of files that are called after the bundle's channels; return the other files.

    One name alone may be anything: groups that lack channels are left out where another one in
    the folder is whole, or two of their names are channels'.

    Args:
        root: The folder that is searched.
        files: Image files in it.
        search: Knows the channels' names, and takes the scans.
    """
    if len(search.channel_names) < 2:
        return files
    return _ChannelSearch(root, files, search).find()


_Assigned = tuple[ChannelGroup, Assignment]


class _ChannelSearch:
    """Finds scans of several files; of very many files it holds a byte each, and some hashes.

    Args:
        root: The folder that is searched.
        files: Image files in it.
        search: Knows the channels' names, and takes the scans.
    """

    def __init__(
        self, root: Path, files: Sequence[Path], search: Search
    ) -> None:
        self._root = root
        self._files = files
        self._search = search
        self._fates = bytearray(len(files))
        self._whole = _Bases()
        self._left_out = _Bases()

    def find(self) -> Sequence[Path]:
        """Make the scans; return the files that are no channels and lie beside none."""
        self._set_derived_aside()
        groups: Spool[_Assigned] = Spool(pack=_pack, unpack=_unpack)
        wanted = self._search.channel_names
        for group in find_groups(self._root, self._list_others(), wanted):
            assignment = group.assign(wanted)
            groups.append((group, assignment))
            if assignment.is_whole:
                self._whole.add(group)
        for group, assignment in groups:
            self._decide(group, assignment)
        return self._leave_neighbours()

    def _set_derived_aside(self) -> None:
        """Take what was derived from the scans of a BIDS data set for no scan, as training does."""
        if not (self._root / DESCRIPTION).is_file():
            return
        for number, file in enumerate(self._files):
            if is_derived(file, self._root):
                self._fates[number] = _BESIDE

    def _list_others(self) -> Iterator[tuple[int, Path]]:
        for number, file in enumerate(self._files):
            if self._fates[number] == _OTHER:
                yield number, file

    def _decide(self, group: ChannelGroup, assignment: Assignment) -> None:
        """Make a scan of a group, leave it out, or take its files for no scan of their own."""
        some_are_whole = bool(self._whole)
        is_spare = some_are_whole and assignment.is_empty
        if assignment.is_whole:
            self._add_scan(group, assignment)
            self._mark(group.files, _BESIDE)
            self._mark(assignment.found.values(), _TAKEN)
        elif self._is_more(group) or is_spare:
            self._mark(group.files, _BESIDE)
        elif some_are_whole or _looks_like_scan(group, assignment):
            self._leave_out(group, assignment)
            self._mark(group.files, _TAKEN)
            self._left_out.add(group)

    def _mark(self, files: Iterable[NumberedFile], fate: int) -> None:
        for number, _ in files:
            # A file may be an image of several sessions.
            self._fates[number] = max(self._fates[number], fate)

    def _is_more(self, group: ChannelGroup) -> bool:
        """Tell whether images are more of a scan: ``a_post_T1`` of ``a``, and not ``a_2_T1``."""
        folder, name = group.base
        lies_in_case = self._whole.has(folder.parent, fold_name(folder.name))
        start = self._whole.find_start(folder, name)
        rest = name[len(start) :]
        is_numbered = any(sign.isdigit() for sign in rest)
        return not is_numbered and bool(lies_in_case or start)

    def _add_scan(self, group: ChannelGroup, assignment: Assignment) -> None:
        where, name = _name_group(self._root, group)
        parts = []
        for channel in self._search.channel_names:
            _, file = assignment.found[channel]
            parts.append((Path(file),))
        candidate = Candidate(name, where, tuple(parts))
        self._search.candidates.append(candidate)

    def _leave_out(self, group: ChannelGroup, assignment: Assignment) -> None:
        """Leave out a scan of which not every channel is there, once."""
        where, name = _name_group(self._root, group)
        found = tuple(assignment.found)
        self._search.leave_out(
            make_safe_name(name),
            where,
            describe_missing(
                self._search.channel_names, found, assignment.doubled
            ),
            f"its files are {abbreviate(group.file_names)}",
        )

    def _leave_neighbours(self) -> Sequence[Path]:
        """Return the files that are no channels; those of the same scans are passed over."""
        others: Spool[Path] = Spool(pack=str, unpack=Path)
        beside: Spool[str] = Spool()
        for file, fate in zip(self._files, self._fates, strict=True):
            if fate == _TAKEN:
                continue
            if fate == _BESIDE or self._lies_beside(file):
                beside.append(file.name)
            else:
                others.append(file)
        if beside:
            names = abbreviate(beside)
            noun = "1 file" if len(beside) == 1 else f"{len(beside)} files"
            self._search.notes.append(
                f"{noun} beside the channels of scans: none of the bundle's, not used: {names}"
            )
        return others

    def _lies_beside(self, file: Path) -> bool:
        """Tell whether a file lies in the folder of a scan, or is called after one."""
        stem, _ = split_suffix(file.name)
        folder, name = file.parent, fold_name(stem)
        return any(
            cases.is_folder(folder) or cases.find_start(folder, name)
            for cases in (self._whole, self._left_out)
        )


class _Bases:
    """What the files of scans share: hashes alone, since there may be very many."""

    def __init__(self) -> None:
        self._bases = TextHashes()
        self._folders = TextHashes()

    def add(self, group: ChannelGroup) -> None:
        """Add that of a group."""
        folder, name = group.base
        self._bases.add(join_base(folder, name))
        self._folders.add(_fold_path(folder / name))

    def __len__(self) -> int:
        return len(self._bases)

    def has(self, folder: Path, name: str) -> bool:
        """Tell whether files in a folder share this name, in folded form."""
        return join_base(folder, name) in self._bases

    def is_folder(self, folder: Path) -> bool:
        """Tell whether a folder is called after a scan."""
        return _fold_path(folder) in self._folders

    def find_start(self, folder: Path, name: str) -> str:
        """Return the longest name of a scan in the same folder that a name goes on from, if any."""
        if not self:
            return ""
        start = ""
        for end, sign in enumerate(name):
            if sign in SEPARATORS and self.has(folder, name[:end]):
                start = name[:end]
        return start


def _pack(assigned: _Assigned) -> tuple[Any, ...]:
    """Return plain values, which are soon written and read."""
    group, assignment = assigned
    return (
        str(group.where),
        group.images,
        assignment.found,
        assignment.doubled,
        assignment.channels,
    )


def _unpack(packed: tuple[Any, ...]) -> _Assigned:
    where, images, *others = packed
    return ChannelGroup(Path(where), images), Assignment(*others)


def _fold_path(folder: Path) -> str:
    return folder.as_posix().casefold()


def _looks_like_scan(group: ChannelGroup, assignment: Assignment) -> bool:
    """Tell whether files are some channels of a scan, though no other one is whole.

    A picture holds all its channels, whatever its name ends in.
    """
    if len(assignment.found) < 2:
        return False
    return not any(is_picture(Path(file)) for _, file in group.files)


def _name_group(root: Path, group: ChannelGroup) -> tuple[str, str]:
    """Return where a scan is, below the folder that is searched, and its name."""
    where = group.where.relative_to(root).as_posix()
    return where, flatten(where) if where != "." else root.name
