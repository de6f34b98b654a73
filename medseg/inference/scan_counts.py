"""How many scans of a batch came to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medseg.inference.ledger_entry import Entry
from medseg.quality.estimates import explain_unjudged


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
    """

    total: int
    good: int
    failed: int
    warned: int
    flagged: int
    judged: bool
    unjudged: int
    why_unjudged: str

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
    )
