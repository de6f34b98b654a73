"""What a report and a table say of all scans of a batch, from one look at each entry.

Entries of a hundred thousand scans, with a hundred structures each, are gigabytes. None is kept
here: only numbers are, and where an entry lies, so that a row can show it when its turn comes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medseg.inference.ledger_entry import Entry, get_review_order
from medseg.inference.scan_counts import ScanCounter, ScanCounts
from medseg.labels import LabelSet

if TYPE_CHECKING:
    Floats = array[float]

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
"""Which of the entries; by their numbers, since entries themselves take much memory."""

_IMPOSSIBLE = 1e100
"""A number from which on, as NaN, it was put into a ledger by hand; nothing is counted with it."""


@dataclass(frozen=True, slots=True)
class BatchOverview:
    """What is known of all scans.

    Attributes:
        entries: The latest entry of each scan.
        label_set: The labels of the results.
        counts: What became of how many.
        names: The labels or regions that the results have.
        order: The entries, what to look at first before others.
        sorted_results: The entries with a result, sorted by the scans' names.
        results: The same in the order of the entries.
        volumes: Structure → its millilitres in each of ``results``; NaN where it has none.
        expected_dice: Of the results for which it means something.
        failed: The entries of scans that failed.
        flagged: Those of results to look at first.
        causes: Why scans failed → which.
    """

    entries: Sequence[Entry]
    label_set: LabelSet
    counts: ScanCounts
    names: Sequence[str]
    order: Places
    sorted_results: Places
    results: Places
    volumes: Mapping[str, Numbers]
    expected_dice: Numbers
    failed: Places
    flagged: Places
    causes: Mapping[str, Places]

    def find_positions(self) -> Places:
        """Return where in ``order`` each of the entries is."""
        positions = np.empty_like(self.order)
        positions[self.order] = np.arange(len(self.order))
        return positions


def survey(entries: Sequence[Entry], label_set: LabelSet) -> BatchOverview:
    """Look at each entry once.

    Args:
        entries: The latest entry of each scan.
        label_set: The labels of the results.
    """
    surveyor = _Surveyor()
    for entry in entries:
        surveyor.add(entry)
    return surveyor.finish(entries, label_set)


def list_label_names(found: Sequence[str], label_set: LabelSet) -> list[str]:
    """Return the bundle's labels or regions, then those that only other bundles' results have.

    Of labels that no result was asked for, there is nothing to say.

    Args:
        found: The structures that some result has.
        label_set: The bundle's labels.
    """
    names = [region.name for region in label_set.regions]
    asked = [name for name in names if name in found]
    return list(dict.fromkeys([*(asked or names), *found]))


class _Surveyor:
    def __init__(self) -> None:
        self._counter = ScanCounter()
        self._keys: list[tuple[Any, ...]] = []
        self._results = array("q")
        self._volumes: dict[str, Floats] = {}
        self._expected = array("d")
        self._flagged = array("q")
        self._causes: dict[str, array[int]] = {}

    def add(self, entry: Entry) -> None:
        place = len(self._keys)
        self._keys.append(get_review_order(entry))
        self._counter.add(entry)
        if entry.is_failed:
            self._causes.setdefault(entry.error, array("q")).append(place)
        if not entry.is_good:
            return
        if entry.needs_review:
            self._flagged.append(place)
        self._add_volumes(entry)
        self._results.append(place)
        self._add_expected_dice(entry)

    def _add_volumes(self, entry: Entry) -> None:
        before = len(self._results)
        for name, volume in entry.volumes_ml.items():
            column = self._volumes.setdefault(name, array("d"))
            _fill(column, before)
            column.append(volume if abs(volume) < _IMPOSSIBLE else math.nan)

    def _add_expected_dice(self, entry: Entry) -> None:
        quality = entry.quality
        if quality is None or quality.expected_dice is None:
            return
        is_possible = abs(quality.expected_dice) < _IMPOSSIBLE
        if is_possible and quality.standing.is_judged:
            self._expected.append(quality.expected_dice)

    def finish(
        self, entries: Sequence[Entry], label_set: LabelSet
    ) -> BatchOverview:
        for column in self._volumes.values():
            _fill(column, len(self._results))
        keys = self._keys
        order = sorted(range(len(keys)), key=keys.__getitem__)
        by_name = sorted(self._results, key=lambda place: str(keys[place][-1]))
        causes = {text: _freeze(each) for text, each in self._causes.items()}
        failed = np.concatenate([np.empty(0, np.int64), *causes.values()])
        return BatchOverview(
            entries,
            label_set,
            self._counter.finish(),
            list_label_names(list(self._volumes), label_set),
            order=np.array(order, np.int64),
            sorted_results=np.array(by_name, np.int64),
            results=_freeze(self._results),
            volumes={
                name: np.asarray(column)
                for name, column in self._volumes.items()
            },
            expected_dice=np.asarray(self._expected),
            failed=failed,
            flagged=_freeze(self._flagged),
            causes=causes,
        )


def _fill(column: Floats, count: int) -> None:
    """Say of results before this one that they do not have a structure."""
    column.extend([math.nan] * (count - len(column)))


def _freeze(places: array[int]) -> Places:
    return np.asarray(places, np.int64)
