"""Many entries of ledgers, kept as the text of their lines: that is a tenth of the memory.

Of very many, most lines lie on the disk, and memory holds their scans' names alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import SupportsIndex, overload

from medseg._support.spool import Spool
from medseg.inference.ledger_entry import Entry

_BLOCK_LINES = 8
"""Lines read from the disk at a time: few, because a report shows them in another order."""


def _spool_lines() -> Spool[bytes]:
    return Spool(block=_BLOCK_LINES)


class Entries(Mapping[str, Entry]):
    """Scan → its latest entry, in the order in which scans first came."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._lines: Spool[bytes] = _spool_lines()

    def __getitem__(self, scan: str) -> Entry:
        return Entry.model_validate_json(self._lines[self._numbers[scan]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, scan: object) -> bool:
        return scan in self._numbers

    def add(self, entry: Entry, line: bytes) -> None:
        """Add an entry, or put it in the place of an older one.

        Args:
            entry: The entry.
            line: Its JSON.
        """
        self._numbers[entry.scan] = self._lines.append(line)

    def take(self, others: Entries, scan: str) -> None:
        """Take over the entry of a scan."""
        line = others._lines[others._numbers[scan]]
        self._numbers[scan] = self._lines.append(line)

    def as_list(self) -> EntryList:
        """Return them in their order, as a sequence that keeps none of their lines twice."""
        return EntryList(self._lines, self._numbers.values())

    def format(self, entry: Entry) -> bytes:
        """Return the JSON of an entry; no second copy of what is kept here."""
        line = entry.model_dump_json().encode()
        number = self._numbers.get(entry.scan)
        known = None if number is None else self._lines[number]
        return known if known == line else line

    def list_others(self, scans: Iterable[str]) -> list[str]:
        """Return the scans that have an entry and are not among some."""
        is_among = bytearray(len(self._lines))
        for scan in scans:
            number = self._numbers.get(scan)
            if number is not None:
                is_among[number] = True
        return [
            scan
            for scan, number in self._numbers.items()
            if not is_among[number]
        ]


class EntryList(Sequence[Entry]):
    """Entries in an order; equal to any sequence of the same.

    Args:
        lines: What keeps their JSON; one of its own unless given.
        order: The numbers of the first ones there.
    """

    def __init__(
        self, lines: Spool[bytes] | None = None, order: Iterable[int] = ()
    ) -> None:
        self._lines = _spool_lines() if lines is None else lines
        self._order = array("Q", order)

    def append(self, line: bytes) -> None:
        """Add an entry by its JSON."""
        self.place(self.keep(line))

    def keep(self, line: bytes) -> int:
        """Keep the JSON of an entry whose place comes later; several threads may do so.

        Returns:
            What ``place`` is to be told.
        """
        return self._lines.append(line)

    def place(self, number: int) -> None:
        """Add an entry that was kept."""
        self._order.append(number)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(
        self, index: SupportsIndex | slice
    ) -> Entry | Sequence[Entry]:
        numbers = self._order[index]
        if isinstance(numbers, int):
            return self._get(numbers)
        return [self._get(number) for number in numbers]

    def _get(self, number: int) -> Entry:
        return Entry.model_validate_json(self._lines[number])

    def __len__(self) -> int:
        return len(self._order)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))
