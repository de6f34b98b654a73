"""Very many items, put in order; most of them lie on the disk meanwhile."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from medseg._support.spool import Spool, count_one

Item = TypeVar("Item")

MOST_IN_MEMORY = 10_000
"""Items that are put in order at a time, if each counts as one."""

_BLOCK_ITEMS = 64
"""Of each part that is in order, so many are in memory while the parts are merged."""


def sort_long(
    items: Iterable[Item],
    key: Callable[[Item], Any],
    weigh: Callable[[Item], int] = count_one,
) -> Iterator[Item]:
    """Give items in order; equal ones stay as they were.

    Args:
        items: Of such a kind that ``pickle`` takes them.
        key: What to order them by.
        weigh: As for ``Spool``.

    Raises:
        OutputError: If they do not fit into the folder for temporary files.
    """
    # One file holds all parts: of very many, a file each would be too many.
    on_disk: Spool[Item] = Spool(fewest=0, block=_BLOCK_ITEMS, weigh=weigh)
    parts: list[Iterator[Item]] = []
    last: list[Item] = []
    weight = 0
    for item in items:
        if last and weight >= MOST_IN_MEMORY:
            start = len(on_disk)
            on_disk.extend(sorted(last, key=key))
            parts.append(on_disk.list_from(start, len(on_disk)))
            last, weight = [], 0
        last.append(item)
        weight += weigh(item)
    last.sort(key=key)
    return heapq.merge(*parts, last, key=key)
