"""What the work list shows of each case: worst first, those that wait for somebody at the top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from medseg.label_server.quality_text import choose_level, describe_bound
from medseg.label_server.worklist import CaseRecord, CaseState

PAGE_SIZE = 50
"""Cases on one page of the list."""

FILTERS: Mapping[str, tuple[str, frozenset[CaseState]]] = {
    "all": ("All", frozenset(CaseState)),
    "correct": (
        "To correct",
        frozenset({CaseState.NEW, CaseState.PROPOSED, CaseState.REJECTED}),
    ),
    "review": ("To review", frozenset({CaseState.CORRECTED})),
    "done": ("Reviewed", frozenset({CaseState.REVIEWED})),
}
"""What people ask the list for: its name in the address, for people, and the states it means."""

_URGENCY = {
    CaseState.REJECTED: 0,
    CaseState.PROPOSED: 1,
    CaseState.NEW: 1,
    CaseState.CORRECTED: 2,
    CaseState.REVIEWED: 3,
}
_NOT_RATED = 2.0
"""Behind every expected Dice."""


@dataclass(frozen=True, slots=True)
class CaseRow:
    """What is shown of a case.

    Attributes:
        record: What is known of the work on it.
        title: What people call it.
        facts: What else viewers show of it: modality, date.
        text: Its expected Dice, or the words in its place; empty if it was not rated yet.
        bound: The lower bound in words.
        level: Which colour its quality has.
        percent: The expected Dice as the length of a bar; ``None`` where it is no number.
        labels: Label name → expected Dice.
        reasons: Why to review it.
        warnings: What a person should know of the scan.
        remark: What else is to be known.
        has_picture: Whether a picture of it was drawn.
        viewer: Address that opens it in OHIF; empty where the cases are files.
    """

    record: CaseRecord
    title: str
    facts: tuple[str, ...]
    text: str
    bound: str
    level: str
    percent: int | None
    labels: Mapping[str, float]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    remark: str
    has_picture: bool
    viewer: str

    @property
    def needs_review(self) -> bool:
        """Whether somebody should look at its result first."""
        return self.level == "review"

    @property
    def changed(self) -> str:
        """When somebody worked on it last, UTC; empty if nobody did."""
        return format_moment(self.record.changed)


def make_row(
    record: CaseRecord,
    info: Mapping[str, Any],
    *,
    has_picture: bool = False,
    viewer: str = "",
) -> CaseRow:
    """Return what is shown of a case.

    Args:
        record: What is known of the work on it.
        info: What the datastore shows viewers of it.
        has_picture: Whether a picture of it was drawn.
        viewer: Address that opens it in OHIF.
    """
    quality = record.quality or {}
    expected = quality.get("expected")
    facts = (info.get("Modality"), _format_date(info.get("StudyDate")))
    return CaseRow(
        record,
        title=str(info.get("PatientID") or record.name),
        facts=tuple(str(fact) for fact in facts if fact),
        text=str(quality.get("shown", "")),
        bound=describe_bound(quality),
        level=choose_level(quality),
        percent=None if expected is None else round(100 * expected),
        labels=_select_labels(quality),
        reasons=tuple(quality.get("reasons") or ()),
        warnings=tuple(quality.get("warnings") or ()),
        remark=str(quality.get("remark") or ""),
        has_picture=has_picture,
        viewer=viewer,
    )


def _select_labels(quality: Mapping[str, Any]) -> dict[str, float]:
    labels = quality.get("labels") or {}
    return {name: dice for name, dice in labels.items() if dice is not None}


def _format_date(date: object) -> str:
    """Return a date of a DICOM header as people write it."""
    text = str(date or "")
    if len(text) != len("20260101") or not text.isdecimal():
        return ""
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


def format_moment(seconds: float) -> str:
    """Return a moment as date and time, UTC; empty for none."""
    if not seconds:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def order_records(records: Iterable[CaseRecord]) -> list[CaseRecord]:
    """Order cases: rejected ones, those without a correction, those to be reviewed, the rest.

    Within each, the lowest expected Dice comes first, and what was not rated yet comes last.
    """
    return sorted(records, key=_get_order)


def _get_order(record: CaseRecord) -> tuple[int, float, str]:
    quality = record.quality or {}
    # An earlier release kept what it ordered by as the expected Dice.
    rank = quality.get("rank", quality.get("expected"))
    order = _NOT_RATED if rank is None else float(rank)
    return _URGENCY[record.state], order, record.name


def count_by_filter(records: Sequence[CaseRecord]) -> dict[str, int]:
    """Return how many cases each filter of the list shows."""
    counts = {}
    for key, (_, states) in FILTERS.items():
        counts[key] = sum(record.state in states for record in records)
    return counts


def select_records(
    records: Iterable[CaseRecord], key: str, words: str = ""
) -> list[CaseRecord]:
    """Return the cases of a filter whose name, people or comment hold every word."""
    _, states = FILTERS.get(key, FILTERS["all"])
    wanted = words.casefold().split()
    selected = []
    for record in records:
        if record.state in states and _holds(record, wanted):
            selected.append(record)
    return selected


def _holds(record: CaseRecord, words: Sequence[str]) -> bool:
    texts = (
        record.name,
        record.assignee,
        record.second_reader,
        record.comment,
        record.state,
    )
    text = " ".join(texts).casefold()
    return all(word in text for word in words)
