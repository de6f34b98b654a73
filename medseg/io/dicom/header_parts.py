"""Headers of DICOM files, however many, so that those of a series come together.

Slices of a series may lie in many folders, and be told by their headers alone. The first headers
stay in memory. Of more, those of a series go to one of a few parts on the disk, each of which
fits into memory when its turn comes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from medseg._support.long_sort import sort_long
from medseg._support.spool import Spool
from medseg.io.dicom.header_groups import (
    SeriesKey,
    find_torn_slices,
    make_key,
    order_group,
)
from medseg.io.dicom.headers import Header

MOST_IN_MEMORY = 25_000
"""Slices whose headers stay there; they take 50 MB. To write and read a header again takes a third
of the time that it took to read it first."""

PARTS = 64
"""Of a million headers, each has 30 MB."""

_BLOCK_SLICES = 64
"""Of each part, so many are in memory until they are written."""

Numbered = tuple[int, Header]
"""The number of a file, and its header."""

_Excluded = tuple[int, str, str]
"""The number of a file, its path, and why it is no part of a volume."""


@dataclass(frozen=True, slots=True)
class HeaderGroup:
    """The headers of one series.

    Attributes:
        number: Of its first file.
        headers: Sorted by path, damaged ones last.
    """

    number: int
    headers: list[Header]


@dataclass(slots=True)
class _Part:
    """Some headers, told apart; all of a series are among them.

    Attributes:
        groups: Those of each series.
        excluded: Those of files that are no part of a volume.
    """

    groups: dict[SeriesKey, list[Numbered]]
    excluded: list[Numbered] = field(default_factory=list)


class HeaderParts:
    """The headers of a search; the rules are those of ``group_headers``.

    Args:
        by_study: Whether all headers of a study are in one part.

    Attributes:
        unassigned: Damaged files that could belong to several series or to none, once groups were
            listed.
    """

    def __init__(self, *, by_study: bool = False) -> None:
        self._by_study = by_study
        self._first: list[Numbered] = []
        self._parts: list[Spool[Numbered]] = []
        self._damaged: list[Header] = []
        self._excluded: Spool[_Excluded] = Spool()
        self._count = 0
        self._slices = 0
        self.unassigned: list[Header] = []

    @property
    def are_in_memory(self) -> bool:
        """Whether no header lies on the disk."""
        return not self._parts

    def append(self, header: Header) -> None:
        """Add the header of the next file."""
        numbered = (self._count, header)
        self._count += 1
        if header.is_damaged and not header.exclusion:
            self._damaged.append(header)
        elif self._parts:
            self._send(numbered)
        else:
            self._first.append(numbered)
            self._slices += _count_slices(numbered)
            if self._slices > MOST_IN_MEMORY:
                self._move_to_disk()

    def _move_to_disk(self) -> None:
        for _ in range(PARTS):
            part: Spool[Numbered] = Spool(
                fewest=0, block=_BLOCK_SLICES, weigh=_count_slices
            )
            self._parts.append(part)
        for numbered in self._first:
            self._send(numbered)
        self._first.clear()

    def _send(self, numbered: Numbered) -> None:
        _, header = numbered
        key: str | SeriesKey = make_key(header)
        if self._by_study and header.study:
            key = header.study
        self._parts[hash(key) % PARTS].append(numbered)

    def list_groups(self) -> Iterator[list[HeaderGroup]]:
        """Give the series, part by part; those of a part are in the order of their first files."""
        owned, self.unassigned = self._assign_damaged()
        self._excluded = Spool()
        for part in self._sort_parts():
            for number, header in part.excluded:
                row = (number, str(header.file), header.exclusion)
                self._excluded.append(row)
            groups = []
            for key, members in part.groups.items():
                headers = [header for _, header in members]
                ordered = [*order_group(headers), *owned.get(key, ())]
                number = min(map(itemgetter(0), members))
                groups.append(HeaderGroup(number, ordered))
            yield sorted(groups, key=_get_number)

    def list_excluded(self) -> Iterator[tuple[Path, str]]:
        """Give the files that are no part of a volume, and why, once groups were listed."""
        for _, file, reason in sort_long(self._excluded, key=itemgetter(0)):
            yield Path(file), reason

    def _sort_parts(self) -> Iterator[_Part]:
        if self.are_in_memory:
            yield _sort_part(self._first)
        for part in self._parts:
            yield _sort_part(part)

    def _assign_damaged(
        self,
    ) -> tuple[dict[SeriesKey, list[Header]], list[Header]]:
        """Return the damaged headers of each series, and those of none.

        One belongs to the only series of its UID, or else to the only one in its folder.
        """
        if not self._damaged:
            return {}, []
        owners = self._find_owners()
        owned: dict[SeriesKey, list[Header]] = defaultdict(list)
        unassigned = []
        for header in order_group(self._damaged):
            keys = owners[header.series] or owners[header.file.parent]
            if len(keys) == 1:
                (key,) = keys
                owned[key].append(header)
            else:
                unassigned.append(header)
        return owned, unassigned

    def _find_owners(self) -> dict[str | Path, set[SeriesKey]]:
        """Return the series of each UID and each folder that a damaged file names or lies in."""
        wanted: set[str | Path] = set()
        for header in self._damaged:
            wanted |= {header.series, header.file.parent}
        owners: dict[str | Path, set[SeriesKey]] = defaultdict(set)
        for part in self._sort_parts():
            for key, members in part.groups.items():
                places = {header.file.parent for _, header in members}
                for place in wanted & {key[1], *places}:
                    owners[place].add(key)
        return owners


def _count_slices(numbered: Numbered) -> int:
    """Return how many slices a file has, which may be thousands."""
    _, header = numbered
    return max(1, len(header.frames))


def _sort_part(numbered: Iterable[Numbered]) -> _Part:
    """Tell the headers of series from those of files that are no part of a volume."""
    members = list(numbered)
    torn = find_torn_slices(header for _, header in members)
    part = _Part(defaultdict(list))
    for number, header in members:
        header = torn.get(header.file, header)
        if header.exclusion:
            part.excluded.append((number, header))
        else:
            part.groups[make_key(header)].append((number, header))
    return part


def _get_number(group: HeaderGroup) -> int:
    return group.number
