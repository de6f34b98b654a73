"""Scans whose channels are files with nnU-Net's numbers: ``x_0000``, ``x_0001``, …

A number is the channel of this place in the bundle, unless a ``dataset.json`` beside the files
calls channels by the bundle's names; then these count, as in training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from medseg._support.long_sort import sort_long
from medseg._support.spool import Spool
from medseg.datasets.channel_ways import describe_ways
from medseg.datasets.scan_candidates import (
    Candidate,
    Search,
    flatten,
    make_image,
)
from medseg.datasets.statements import read_listing
from medseg.errors import DatasetError
from medseg.layouts.channel_names import find_channels
from medseg.layouts.dataset_json import LISTING
from medseg.names import (
    abbreviate,
    is_picture,
    make_safe_name,
    split_channel,
    split_suffix,
)

_Group = tuple[Path, Sequence[Path]]
"""What names share, and the files as they are sorted."""

_Row = tuple[str, int, str, str]
"""What names share as the system compares it, the file's number, and both as they are spelled."""


def add_images(root: Path, files: Iterable[Path], search: Search) -> None:
    """Make scans of image files; those whose names differ in the channel's number are one.

    Args:
        root: The folder that is searched.
        files: Image files in it.
        search: Knows how many channels there are, and takes the scans.
    """
    groups: Spool[_Group] = Spool(pack=_pack, unpack=_unpack)
    # In the order of their first files, and not of what they share.
    groups.extend(_group_by_base(files, search.channels))
    stated: Sequence[int] = ()
    if any(key != group[0] for key, group in groups):
        stated = _read_stated_numbers(root, search)
    some_are_whole = any(
        _is_whole(group, stated, search.channels) for _, group in groups
    )
    for key, group in groups:
        where = key.relative_to(root).as_posix()
        if key == group[0] or not _is_scan(group, search, some_are_whole):
            search.candidates.extend(_make_images(group, root))
        elif _is_whole(group, stated, search.channels):
            wanted = stated or range(search.channels)
            _add_scan(where, group, wanted, search)
        else:
            _leave_out(where, group, search)


def _make_images(files: Iterable[Path], root: Path) -> Iterator[Candidate]:
    for file in files:
        where = file.relative_to(root).as_posix()
        yield make_image(file, where)


def _is_whole(
    group: Iterable[Path], stated: Sequence[int], channels: int
) -> bool:
    """Tell whether files are all channels of a scan.

    Args:
        group: The files.
        stated: The number of each channel, where the data set says so.
        channels: How many there are.
    """
    numbers = sorted(_number_of(file) for file in group)
    if stated:
        return _has_all(numbers, stated)
    # Without names nobody knows which of more channels are the bundle's.
    return numbers == [*range(channels)]


def _group_by_base(files: Iterable[Path], channels: int) -> Iterator[_Group]:
    """Group files whose names differ only in the channel's number; any other stands alone."""
    rows = sort_long(_list_rows(files, channels), key=itemgetter(0, 1))
    groups = ([*group] for _, group in groupby(rows, key=itemgetter(0)))
    for group in sort_long(groups, key=_get_first_number):
        _, _, key, _ = group[0]
        yield Path(key), [Path(file) for *_, file in group]


def _list_rows(files: Iterable[Path], channels: int) -> Iterator[_Row]:
    for number, file in enumerate(files):
        stem, _ = split_suffix(file.name)
        base, channel = split_channel(stem)
        is_alone = channels == 1 or channel is None
        key = file if is_alone else file.parent / base
        yield os.path.normcase(key), number, str(key), str(file)


def _get_first_number(group: Sequence[_Row]) -> int:
    _, number, *_ = group[0]
    return number


def _pack(group: _Group) -> tuple[str, tuple[str, ...]]:
    key, files = group
    return str(key), tuple(map(str, files))


def _unpack(packed: tuple[str, tuple[str, ...]]) -> _Group:
    key, files = packed
    return Path(key), [*map(Path, files)]


def _read_stated_numbers(root: Path, search: Search) -> Sequence[int]:
    """Return the number of each of the bundle's channels, where the data set says so."""
    if search.channels < 2 or not search.channel_names:
        return ()
    stated = _read_stated_names(root, search)
    names = find_channels(search.channel_names, stated) or ()
    return [stated.index(name) for name in names]


def _read_stated_names(root: Path, search: Search) -> Sequence[str]:
    """Return what a data set calls its channels, in its ``dataset.json``."""
    for folder in (root, root.parent):
        try:
            channels = read_listing(folder / LISTING).channels
        except DatasetError:
            search.notes.append(
                f"{LISTING} cannot be understood; numbered channels are taken in order"
            )
            return ()
        if channels:
            return channels
    return ()


def _has_all(numbers: Sequence[int], wanted: Iterable[int]) -> bool:
    """Tell whether each wanted channel is there once."""
    return all(numbers.count(number) == 1 for number in wanted)


def _is_scan(
    group: Sequence[Path], search: Search, others_are_whole: bool
) -> bool:
    """Tell whether files of one name are channels of one scan, whether or not all are there."""
    numbers = [_number_of(file) for file in group]
    if all(is_picture(file) for file in group):
        # Numbers beyond the bundle's channels, or without a 0, count pictures.
        is_counted = 0 not in numbers or max(numbers) >= search.channels
        return len(group) > 1 and not is_counted
    # A channel 0 alone is a scan: nnU-Net numbers files that hold all channels, too.
    return others_are_whole or (len(group) > 1 and 0 in numbers)


def _add_scan(
    where: str, group: Sequence[Path], wanted: Sequence[int], search: Search
) -> None:
    by_number = {_number_of(file): file for file in group}
    parts = [(by_number[number],) for number in wanted]
    search.candidates.append(Candidate(flatten(where), where, tuple(parts)))
    others = [file.name for file in group if _number_of(file) not in wanted]
    if others:
        search.notes.append(
            f"channels beyond the bundle's, not used: {abbreviate(others)}"
        )


def _leave_out(where: str, group: Sequence[Path], search: Search) -> None:
    """Leave out a scan of which not every channel is there."""
    numbers = [_number_of(file) for file in group]
    search.leave_out(
        make_safe_name(flatten(where)),
        where,
        _describe_channels(numbers, search),
        f"its files are {abbreviate(file.name for file in group)}",
    )


def _describe_channels(numbers: Sequence[int], search: Search) -> str:
    missing = [
        f"_{number:04d}"
        for number in range(search.channels)
        if number not in numbers
    ]
    what = "has a channel twice"
    if missing:
        what = f"has no channel {', '.join(missing)}"
    elif max(numbers) >= search.channels:
        what = (
            f"has channels up to _{max(numbers):04d}, and no {LISTING} says which "
            "of them are the bundle's"
        )
    text = f"{what}; the bundle has {search.channels} channels"
    if not search.channel_names:
        return text
    names = ", ".join(search.channel_names)
    return f"{text} ({names}); {describe_ways(search.channel_names)}"


def _number_of(file: Path) -> int:
    stem, _ = split_suffix(file.name)
    _, number = split_channel(stem)
    return number or 0
