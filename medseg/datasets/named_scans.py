"""Scans and their names, made when they are asked for: of very many, few are in memory."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import SupportsIndex, overload

from medseg.datasets.cases import Scan
from medseg.datasets.scan_candidates import Candidate, CandidateList
from medseg.names import (
    NameTags,
    find_tags,
    fold_name,
    make_former_name,
    make_safe_name,
)


@dataclass(frozen=True, slots=True, eq=False)
class NamedScans(Sequence[Scan]):
    """Scans whose names differ; equal to any sequence of the same.

    Attributes:
        candidates: All that were found.
        tags: Make names of all of them differ.
        former_tags: The same, of the names that release 0.1.0 gave.
        numbers: Which of them are meant, ascending.
        kept: Number → the former name that a scan keeps.
    """

    candidates: CandidateList
    tags: NameTags
    former_tags: NameTags
    numbers: Sequence[int]
    kept: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def name(cls, candidates: CandidateList) -> NamedScans:
        """Name all candidates."""

        def list_pairs(
            make_name: Callable[[str], str],
        ) -> Iterator[tuple[str, str]]:
            for name, origin in candidates.list_names():
                yield make_name(name), origin

        return cls(
            candidates,
            find_tags(lambda: list_pairs(make_safe_name)),
            find_tags(lambda: list_pairs(make_former_name)),
            range(len(candidates)),
        )

    def list_names(self) -> Iterator[tuple[int, str, str]]:
        """Give each scan's number among the candidates, its name and its former name.

        That is quicker than to make the scans.
        """
        pairs = self.candidates.list_names()
        last = -1
        for number in self.numbers:
            ((wanted, origin),) = islice(
                pairs, number - last - 1, number - last
            )
            last = number
            former = self.former_tags.add_to(make_former_name(wanted), origin)
            yield number, self._name(number, wanted, origin), former

    def _name(self, number: int, wanted: str, origin: str) -> str:
        if number in self.kept:
            return self.kept[number]
        return self.tags.add_to(make_safe_name(wanted), origin)

    def find_taken(self, names: Collection[str]) -> set[str]:
        """Return those of some names, folded, that scans have."""
        wanted = {fold_name(name) for name in names}
        taken = set()
        for _, name, _ in self.list_names() if wanted else ():
            folded = fold_name(name)
            if folded in wanted:
                taken.add(folded)
        return taken

    def choose(self, is_wanted: Callable[[str], bool]) -> NamedScans:
        """Return the scans whose names are wanted."""
        numbers = array("Q")
        for number, name, _ in self.list_names():
            if is_wanted(name):
                numbers.append(number)
        return replace(self, numbers=numbers)

    def keep_former_names(self, known: Collection[str]) -> NamedScans:
        """Call scans what they were called before, where results are known by that name alone."""
        if not known:
            return self
        kept = {}
        for number, name, former in self.list_names():
            is_known = former in known and name not in known
            if is_known and former != name:
                kept[number] = former
        taken = self.find_taken(kept.values())
        free = {
            number: former
            for number, former in kept.items()
            if fold_name(former) not in taken
        }
        return replace(self, kept=free)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Scan]:
        candidates = iter(self.candidates)
        last = -1
        for number in self.numbers:
            (candidate,) = islice(candidates, number - last - 1, number - last)
            last = number
            yield self._make(number, candidate)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Scan: ...

    @overload
    def __getitem__(self, index: slice) -> list[Scan]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Scan | list[Scan]:
        if isinstance(index, slice):
            return [self._get(number) for number in self.numbers[index]]
        return self._get(self.numbers[operator.index(index)])

    def _get(self, number: int) -> Scan:
        return self._make(number, self.candidates[number])

    def _make(self, number: int, candidate: Candidate) -> Scan:
        name = self._name(number, candidate.name, candidate.origin)
        return Scan(name, candidate.parts, candidate.volume, candidate.warnings)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} scans>"
