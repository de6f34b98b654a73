"""Which cases the work list shows first, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("starlette", reason="make label installs it")

from medseg.label_server.pages.case_rows import (
    count_by_filter,
    make_row,
    order_records,
    select_records,
)
from medseg.label_server.worklist import CaseRecord, CaseState


def record(name: str, rank: float | None = None, **more: Any) -> CaseRecord:
    quality = None if rank is None else {"rank": rank, "shown": f"{rank:.2f}"}
    return CaseRecord(name, quality=quality, **more)


def test_the_worst_comes_first_and_what_nobody_rated_last() -> None:
    records = [
        record("good", 0.9, state=CaseState.PROPOSED),
        record("unrated"),
        record("bad", 0.3, state=CaseState.PROPOSED),
        record("done", 0.1, state=CaseState.REVIEWED),
        record("waits", 0.1, state=CaseState.CORRECTED),
        record("again", 0.95, state=CaseState.REJECTED),
    ]
    names = [each.name for each in order_records(records)]
    assert names == ["again", "bad", "good", "unrated", "waits", "done"]


def test_filters_and_words_select_and_count() -> None:
    records = [
        record("a", state=CaseState.CORRECTED, comment="Left lobe?"),
        record("b", assignee="anna"),
    ]
    assert count_by_filter(records)["review"] == 1
    assert [r.name for r in select_records(records, "correct")] == ["b"]
    assert [r.name for r in select_records(records, "all", "LEFT lobe")] == [
        "a"
    ]
    assert [r.name for r in select_records(records, "all", "anna")] == ["b"]


def test_a_row_shows_no_number_that_people_must_not_see() -> None:
    quality = {
        "rank": 0.4,
        "shown": "not calibrated",
        "expected": None,
        "labels": {"liver": None},
    }
    row = make_row(CaseRecord("a", quality=quality), {"StudyDate": "2026x"})
    assert (row.text, row.percent, row.labels) == ("not calibrated", None, {})
    assert row.facts == ()
    assert row.title == "a"
