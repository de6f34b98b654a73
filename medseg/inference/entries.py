"""Many entries of ledgers, kept as the text of their lines: that is a tenth of the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import SupportsIndex, overload

from medseg.inference.ledger_entry import Entry


class Entries(Mapping[str, Entry]):
    """Scan → its latest entry, in the order in which scans first came."""

    def __init__(self) -> None:
        self._lines: dict[str, bytes] = {}

    def __getitem__(self, scan: str) -> Entry:
        return Entry.model_validate_json(self._lines[scan])

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, scan: object) -> bool:
        return scan in self._lines

    def add(self, entry: Entry, line: bytes) -> None:
        """Add an entry, or put it in the place of an older one.

        Args:
            entry: The entry.
            line: Its JSON.
        """
        self._lines[entry.scan] = line

    def take(self, others: Entries, scan: str) -> None:
        """Take over the entry of a scan."""
        self._lines[scan] = others._lines[scan]

    def format(self, entry: Entry) -> bytes:
        """Return the JSON of an entry; no second copy of what is kept here."""
        line = entry.model_dump_json().encode()
        known = self._lines.get(entry.scan)
        return known if known == line else line


class EntryList(Sequence[Entry]):
    """Entries in an order; equal to any sequence of the same."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def append(self, line: bytes) -> None:
        """Add an entry by its JSON."""
        self._lines.append(line)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(
        self, index: SupportsIndex | slice
    ) -> Entry | Sequence[Entry]:
        lines = self._lines[index]
        if isinstance(lines, bytes):
            return Entry.model_validate_json(lines)
        return [Entry.model_validate_json(line) for line in lines]

    def __len__(self) -> int:
        return len(self._lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))
