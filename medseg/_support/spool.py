"""Long lists that take little memory: the first items stay there, the others lie on the disk.

Usual lists are never written. Of longer ones, blocks of items go to a file without a name, in the
folder for temporary files, which is gone with this process however that ends.
"""

from __future__ import annotations

import pickle
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, SupportsIndex, TypeVar, overload

from medseg._support.platform.files import read_at
from medseg.errors import OutputError

Item = TypeVar("Item")

FEWEST_ON_DISK = 10_000
"""Items that are kept in memory."""
BLOCK_ITEMS = 256
"""Items that are written, and read back, at a time."""


def count_one(item: Any) -> int:
    """Count an item as one, as is usual."""
    return 1


def _keep(item: Any) -> Any:
    return item


class Spool(Sequence[Item]):
    """A list to which items are only added. Several threads may use it.

    Items must be of such a kind that ``pickle`` takes them. What is read back from the disk is
    equal to what was added, and not the same object.

    Args:
        items: The first ones.
        fewest: How many are kept in memory; as usual unless given.
        block: How many are written at a time; as usual unless given.
        weigh: How many an item counts as, where some hold far more than others; at least 1.
        pack: Makes of an item what is written, if that is something smaller.
        unpack: Makes an item of what is read.
    """

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        fewest: int | None = None,
        block: int | None = None,
        weigh: Callable[[Item], int] = count_one,
        pack: Callable[[Item], Any] = _keep,
        unpack: Callable[[Any], Item] = _keep,
    ) -> None:
        self._pack = pack
        self._unpack = unpack
        self._fewest = FEWEST_ON_DISK if fewest is None else fewest
        self._block_items = BLOCK_ITEMS if block is None else block
        self._first: list[Item] = []
        self._last: list[Item] = []
        self._weigh = weigh
        self._weight = 0  # of the first items, and then of the last ones
        self._starts = array("Q")
        self._numbers = array("Q")
        self._count = 0
        self._end = 0
        self._file: IO[bytes] | None = None
        self._block: tuple[int, list[Item]] = (-1, [])
        self._lock = threading.RLock()
        self.extend(items)

    def append(self, item: Item) -> int:
        """Add an item; return its number.

        Raises:
            OutputError: If it cannot be written to the folder for temporary files.
        """
        with self._lock:
            # Before the item counts: where there is no room, the list stays as it was.
            if self._last and self._weight >= self._block_items:
                self._write()
            number = self._count
            is_first = number == len(self._first)
            if is_first and self._weight >= self._fewest:
                is_first = False
                self._weight = 0
            place = self._first if is_first else self._last
            place.append(item)
            self._weight += self._weigh(item)
            self._count += 1
            return number

    def extend(self, items: Iterable[Item]) -> None:
        """Add items.

        Raises:
            OutputError: As for ``append``.
        """
        for item in items:
            self.append(item)

    def list_from(self, start: int, stop: int) -> Iterator[Item]:
        """Give the items from one number to before another; readers do not disturb each other."""
        place = start
        while place < stop:
            first, block = self._find_block(place)
            items = block[place - first : stop - first]
            yield from items
            place += len(items)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        # Each reader keeps a block of its own, so that two do not take turns to read.
        yield from self._first
        number = 0
        while number < len(self._starts):
            yield from self._read(number)
            number += 1
        yield from self._last

    def __reduce__(self) -> tuple[Any, ...]:
        return Spool, (list(self),)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._get(place) for place in range(len(self))[index]]
        return self._get(range(len(self))[index])

    def _get(self, place: int) -> Item:
        if place < len(self._first):
            return self._first[place]
        with self._lock:
            first, block = self._block
            if not first <= place < first + len(block):
                first, block = self._block = self._find_block(place)
            return block[place - first]

    def _find_block(self, place: int) -> tuple[int, list[Item]]:
        """Return the items that were written with one, and the number of the first of them."""
        if place < len(self._first):
            return 0, self._first
        with self._lock:
            first = self._count - len(self._last)
            if place >= first:
                return first, self._last
            number = bisect_right(self._numbers, place) - 1
            return self._numbers[number], self._read(number)

    def _write(self) -> None:
        packed = list(map(self._pack, self._last))
        content = pickle.dumps(packed, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as the list
                weakref.finalize(self, self._file.close)
            # Not to the end of the file: a part may lie there of what had no room.
            self._file.seek(self._end)
            if self._file.write(content) != len(content):
                raise OSError(0, "the disk is full")
        except OSError as error:
            raise OutputError(
                "what was found so far does not fit into the folder for temporary files; make "
                "room there, or name another one in TMPDIR",
                source=tempfile.tempdir,  # none was found where no folder can be written
                detail=error.strerror,
            ) from error
        self._starts.append(self._end)
        self._numbers.append(self._count - len(self._last))
        self._end += len(content)
        self._last = []
        self._weight = 0

    def _read(self, number: int) -> list[Item]:
        file: Any = self._file
        # Where reading moves the place of the file, it must not come between seek and write.
        with self._lock:
            start = self._starts[number]
            ends = [*self._starts[number + 1 : number + 2], self._end]
            content = read_at(file.fileno(), ends[0] - start, start)
        packed = pickle.loads(content)  # noqa: S301 - of this very process
        return list(map(self._unpack, packed))
