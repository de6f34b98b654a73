"""What is known of all scans of a batch, from one look at each, with no entry kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from medseg.inference.batch_overview import survey
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.labels import Label, LabelSet

LABELS = LabelSet(
    [Label(1, "liver", 1, (9, 9, 9)), Label(2, "spleen", 2, (8, 8, 8))]
)


def entry(scan: str, dice: float = 0.9, **facts: Any) -> Entry:
    quality = QualityEntry(
        expected_dice=dice,
        lower_bound=None,
        is_calibrated=True,
        review=dice < 0.8,
    )
    facts = {"volumes_ml": {"liver": 10.0}, "quality": quality} | facts
    return Entry(scan=scan, **({"state": "done"} | facts))


class CountedEntries(Sequence[Entry]):
    """Entries that know how often they were looked at."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self.looks = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return self._entries[place]

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))


ENTRIES = [
    entry("b", 0.7),
    entry("failed", state="failed", error="torn", volumes_ml={}),
    entry("A", volumes_ml={"liver": 20.0, "cyst": 3.0}),
    entry("d", state="skipped", reason="not asked for", volumes_ml={}),
    entry("c", volumes_ml={"liver": math.nan}),
]


def test_each_entry_is_looked_at_once() -> None:
    entries = CountedEntries(ENTRIES)
    survey(entries, LABELS)
    assert entries.looks == len(ENTRIES)


def test_places_say_which_entries_are_meant() -> None:
    overview = survey(ENTRIES, LABELS)

    def name(places: Sequence[int]) -> list[str]:
        return [ENTRIES[place].scan for place in places]

    assert name(overview.order) == ["failed", "b", "A", "c", "d"]
    assert name(overview.sorted_results) == ["A", "b", "c"]
    assert name(overview.results) == ["b", "A", "c"]
    assert name(overview.flagged) == ["b"]
    assert name(overview.failed) == ["failed"]
    assert {text: name(places) for text, places in overview.causes.items()} == {
        "torn": ["failed"]
    }
    positions = overview.find_positions()
    assert name(np.argsort(positions)) == name(overview.order)


def test_volumes_are_those_of_the_results_and_unknown_where_there_are_none() -> (
    None
):
    overview = survey(ENTRIES, LABELS)
    assert overview.names == ["liver", "cyst"]
    assert np.array_equal(
        overview.volumes["liver"], [10, 20, np.nan], equal_nan=True
    )
    assert np.array_equal(
        overview.volumes["cyst"], [np.nan, 3, np.nan], equal_nan=True
    )
    assert overview.expected_dice.tolist() == [0.7, 0.9, 0.9]
    assert overview.counts.total == 5
    assert overview.counts.skipped == 1
