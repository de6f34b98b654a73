"""How many scans of a batch came to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from medseg.inference.ledger_entry import Entry
from medseg.quality.estimates import Quality, explain_unjudged

_MOST_BUNDLES = 5
_HASH_DIGITS = 8


@dataclass(frozen=True, slots=True)
class ScanCounts:
    """Counts of scans.

    Attributes:
        total: All scans.
        good: Those with a result.
        failed: Those that should have one and have none.
        warned: Results with a warning, or without a format that was asked for.
        flagged: Results to review first.
        judged: Whether the quality of any result was estimated.
        unjudged: Results of which nobody can know how good they are.
        why_unjudged: Why that is so; empty where there are none.
        kept: Results that were there before, and would be the same.
        incomplete: Results that lack a format that was asked for.
        bundles: What is said where the results are of several bundles; empty where they are not.
    """

    total: int
    good: int
    failed: int
    warned: int
    flagged: int
    judged: bool
    unjudged: int
    why_unjudged: str
    kept: int = 0
    incomplete: int = 0
    bundles: str = ""

    @property
    def skipped(self) -> int:
        """Those that were not asked for."""
        return self.total - self.good - self.failed

    @property
    def has_all_results(self) -> bool:
        """Whether every scan that was asked for has a result in each format."""
        return not self.failed and not self.incomplete


class ScanCounter:
    """Counts what became of scans, of which each is shown to it once."""

    def __init__(self) -> None:
        self._total = 0
        self._failed = 0
        self._good = 0
        self._warned = 0
        self._kept = 0
        self._incomplete = 0
        self._flagged = 0
        self._unjudged = 0
        self._standings: dict[tuple[bool, bool], Quality] = {}
        self._bundles: Counter[tuple[str, str]] = Counter()

    def add(self, entry: Entry) -> None:
        """Count a scan."""
        self._total += 1
        self._failed += entry.is_failed
        if not entry.is_good:
            return
        self._good += 1
        self._kept += entry.state == "skipped"
        self._warned += bool(entry.remarks)
        self._incomplete += entry.is_incomplete
        self._flagged += entry.needs_review
        self._bundles[entry.bundle, entry.bundle_hash] += 1
        if entry.quality is not None:
            standing = entry.quality.standing
            self._unjudged += not standing.is_judged
            kind = standing.is_calibrated, standing.is_made_up
            self._standings[kind] = standing

    def finish(self) -> ScanCounts:
        """Return the counts."""
        return ScanCounts(
            total=self._total,
            good=self._good,
            failed=self._failed,
            warned=self._warned,
            flagged=self._flagged,
            judged=bool(self._standings),
            unjudged=self._unjudged,
            why_unjudged=explain_unjudged(self._standings.values()),
            kept=self._kept,
            incomplete=self._incomplete,
            bundles=_describe_bundles(self._bundles),
        )


def count_scans(entries: Iterable[Entry]) -> ScanCounts:
    """Count what became of scans."""
    counter = ScanCounter()
    for entry in entries:
        counter.add(entry)
    return counter.finish()


def _describe_bundles(counts: Counter[tuple[str, str]]) -> str:
    """Say of how many scans the results are which bundle's; empty where all are of one.

    Two bundles of the same name and version differ in their hash.

    Args:
        counts: Name and hash of a bundle → how many results are its own.
    """
    if len(counts) < 2:
        return ""
    titles = Counter(title for title, _ in counts)
    parts = []
    for (title, digest), count in counts.most_common(_MOST_BUNDLES):
        name = title
        if titles[title] > 1:
            name = f"{title}, hash {digest[:_HASH_DIGITS]}"
        parts.append(f"{count} of {name}")
    others = len(counts) - len(parts)
    more = f"; and {others} more bundles" if others else ""
    return (
        f"the results are of {len(counts)} bundles: {'; '.join(parts)}{more}. Segment the scans "
        "again with one of them, and results of others are replaced"
    )
