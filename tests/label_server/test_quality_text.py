"""A quality in one line."""

from __future__ import annotations

from medseg.label_server.quality_text import (
    LONGEST_DESCRIPTION,
    choose_level,
    describe_proposal,
    describe_quality,
)

DOUBTFUL = {
    "shown": "0.71",
    "expected": 0.7123,
    "lower": 0.502,
    "review": True,
    "warnings": ["a"],
}


def test_a_line_holds_value_bound_flag_and_how_many_warnings() -> None:
    assert (
        describe_quality(DOUBTFUL)
        == "expected Dice 0.71, at least 0.50, review, 1 warning"
    )
    assert describe_quality(None) == ""


def test_words_stand_where_no_number_may_be_shown() -> None:
    quality = {"shown": "not calibrated", "expected": None, "review": False}
    assert describe_quality(quality) == "not calibrated"
    assert choose_level(quality) == "unknown"


def test_a_long_bundle_name_gives_way_to_version_and_quality() -> None:
    text = describe_proposal("b" * 100, "0012", DOUBTFUL)
    assert len(text) == LONGEST_DESCRIPTION
    assert text.startswith("Proposal: bbbbbbbb v0012, expected Dice 0.71")
