"""Very many items are sorted as few are."""

from __future__ import annotations

import random

import pytest

from medseg._support import long_sort
from medseg._support.long_sort import sort_long


@pytest.mark.parametrize("count", [0, 1, 3, 4, 50])
def test_items_are_in_the_order_that_sorting_them_in_memory_gives(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(long_sort, "MOST_IN_MEMORY", 3)
    chance = random.Random(count)
    items = [(chance.randrange(5), number) for number in range(count)]
    by_first = list(sort_long(iter(items), key=lambda item: item[0]))
    assert by_first == sorted(items, key=lambda item: item[0])
