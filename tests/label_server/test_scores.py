"""Which case is looked at first."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.bundles import made_spec

from medseg.inference.segmentation import Segmentation
from medseg.label_server.scores import (
    Scores,
    order_worst_first,
    summarise_quality,
)
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.versions import Version
from medseg.label_server.worklist import CaseState, Worklist
from medseg.quality.estimates import LabelQuality, Quality


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    return Scores(StateFolder(tmp_path), Version(3, tmp_path))


def test_the_lowest_expected_dice_comes_first() -> None:
    scores = {
        "a": {"expected": 0.9},
        "b": {"expected": 0.1},
        "c": {"expected": 0.5},
    }
    assert order_worst_first(["a", "b", "c"], scores) == ["b", "c", "a"]


def test_cases_without_a_score_come_last_even_after_perfect_ones() -> None:
    scores = {"z": {"expected": 1.0}, "y": {}}
    assert order_worst_first(["b", "a", "z", "y"], scores) == [
        "y",
        "z",
        "a",
        "b",
    ]


def test_equal_scores_are_ordered_by_name() -> None:
    same = {name: {"expected": 0.5} for name in "cab"}
    assert order_worst_first(["c", "a", "b"], same) == ["a", "b", "c"]


def test_scores_are_kept_by_version(scores: Scores, tmp_path: Path) -> None:
    scores.add("a", {"expected": 0.5})
    scores.add("b", {"expected": 0.25})
    scores.add("a", {"expected": 0.75})
    assert scores.read() == {"a": {"expected": 0.75}, "b": {"expected": 0.25}}
    assert Scores(StateFolder(tmp_path), Version(4, tmp_path)).read() == {}


def test_threads_lose_no_score(scores: Scores) -> None:
    threads = [
        threading.Thread(
            target=scores.add, args=(f"case_{n}", {"expected": 0.5})
        )
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scores.read()) == 12


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a": {"rank": 0.5}}'])
def test_scores_of_an_earlier_release_are_taken_over(
    scores: Scores, tmp_path: Path, text: str
) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "0003.json").write_text(text)
    whole = {"a": {"rank": 0.5}} if "rank" in text else {}
    assert scores.read() == whole  # torn ones are computed again
    scores.add("b", {"rank": 0.5})
    assert scores.read() == {**whole, "b": {"rank": 0.5}}


def test_a_scored_case_has_a_proposal_unless_it_is_further(
    scores: Scores, tmp_path: Path
) -> None:
    worklist = Worklist(Store(StateFolder(tmp_path)))
    worklist.set_state("b", CaseState.CORRECTED, "anna")
    for case in "ab":
        scores.add(case, {"rank": 0.5})
    states = [record.state for record in worklist.list_records("abc", "0003")]
    assert states == ["proposed", "corrected", "new"]


def segmentation_of(quality: Quality) -> Segmentation:
    return Segmentation(
        np.zeros((1, 1, 1), np.uint8), made_spec().label_set, {}, quality
    )


def test_a_result_with_nothing_in_it_expects_zero() -> None:
    summary = summarise_quality(segmentation_of(Quality()))
    assert summary["rank"] == 0.0
    assert summary["shown"] == "nothing found"
    assert (summary["expected"], summary["lower"]) == (None, None)
    assert summary["labels"] == {}


def test_a_quality_that_is_not_calibrated_is_words_and_no_number() -> None:
    labels = {"liver": LabelQuality(0.79)}
    summary = summarise_quality(segmentation_of(Quality(0.79, labels=labels)))
    assert summary["shown"] == "not calibrated"
    assert (summary["expected"], summary["labels"]) == (None, {})
    assert summary["rank"] == 0.79


def test_why_to_review_is_told_with_the_case() -> None:
    quality = Quality(0.9, is_calibrated=True).with_departures(["too long"])
    summary = summarise_quality(segmentation_of(quality))
    assert summary["review"]
    assert summary["reasons"] == ["too long"]


def test_a_quality_is_summarised_in_four_digits() -> None:
    labels = {"liver": LabelQuality(0.87654321, 0.7654321)}
    quality = Quality(
        0.87654321, 0.7654321, labels, is_calibrated=True, review=True
    )
    summary = summarise_quality(segmentation_of(quality))
    assert summary == {
        "rank": 0.8765,
        "shown": "0.88",
        "expected": 0.8765,
        "lower": 0.7654,
        "is_calibrated": True,
        "is_made_up": False,
        "review": True,
        "reasons": [],
        "remark": "validated range unknown",
        "labels": {"liver": 0.8765},
        "warnings": [],
    }
