"""How many scans of a batch came to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medseg.inference.ledger_entry import Entry
from medseg.quality.estimates import explain_unjudged

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
    bundles: str = ""

    @property
    def skipped(self) -> int:
        """Those that were not asked for."""
        return self.total - self.good - self.failed


def count_scans(entries: Sequence[Entry]) -> ScanCounts:
    """Count what became of scans."""
    good = [entry for entry in entries if entry.is_good]
    qualities = [
        entry.quality.to_quality()
        for entry in good
        if entry.quality is not None
    ]
    unjudged = [quality for quality in qualities if not quality.is_judged]
    return ScanCounts(
        total=len(entries),
        good=len(good),
        failed=sum(entry.is_failed for entry in entries),
        warned=sum(bool(entry.remarks) for entry in good),
        flagged=sum(entry.needs_review for entry in good),
        judged=bool(qualities),
        unjudged=len(unjudged),
        why_unjudged=explain_unjudged(qualities),
        bundles=describe_bundles(good),
    )


def describe_bundles(entries: Iterable[Entry]) -> str:
    """Say of how many scans the results are which bundle's; empty where all are of one.

    Two bundles of the same name and version differ in their hash.
    """
    counts = Counter(
        (entry.bundle, entry.bundle_hash) for entry in entries if entry.is_good
    )
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
