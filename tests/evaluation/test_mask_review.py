"""The review of masks by others: their order, and the table."""

from __future__ import annotations

from medseg.evaluation.mask_review import (
    JudgedMask,
    MaskReview,
    format_agreement_csv,
    review_order,
)
from medseg.quality.agreement import estimate_mask_quality
from medseg.quality.estimates import (
    Agreement,
    LabelQuality,
    MaskQuality,
    Quality,
)


def judged(name: str, raw: dict[str, float]) -> JudgedMask:
    return JudgedMask(name, estimate_mask_quality(raw, raw, Quality(0.9), None))


def test_the_worst_come_first_and_the_table_says_why() -> None:
    cases = [
        judged("good", {"a": 0.9, "b": 0.8}),
        judged("bad", {"a": 0.2}),
        judged("none", {}),
    ]
    review = MaskReview(tuple(sorted(cases, key=review_order)), ())
    assert [one.case for one in review.cases] == ["none", "bad", "good"]
    lines = format_agreement_csv(review).splitlines()
    assert lines[0].startswith(
        "case,label,expected_dice,lower_bound,raw_expected_dice"
    )
    assert lines[1] == "none,mean,,,,,,,0,"
    assert lines[2] == "bad,mean,,,0.2000,0.2000,,,0,"
    assert [line.split(",")[:2] for line in lines[4:]] == [
        ["good", "mean"],
        ["good", "a"],
        ["good", "b"],
    ]
    heading, *rows = review.summary_rows()
    assert heading[3] == "expected"
    assert rows[2][:4] == ("good", "0.850", "b 0.800", "not calibrated")


def test_why_to_review_a_mask_is_in_the_table() -> None:
    own = Quality(0.9, 0.7, is_calibrated=True)
    own = own.with_departures(["it measures 90 mm", "kidney was not found"])
    raw = {"a": 0.9}
    mask = JudgedMask("x", estimate_mask_quality(raw, raw, own, None))
    review = MaskReview((mask,), ())
    assert review.to_review == (mask,)
    (row, *_) = review.rows()
    assert row["reasons"] == "it measures 90 mm; kidney was not found"


def test_the_bundles_own_estimate_stands_beside_each_structure() -> None:
    own = Quality(0.9, 0.7, {"a": LabelQuality(0.8, 0.6)}, is_calibrated=True)
    raw = {"a": 0.5, "b": 0.4}
    review = MaskReview(
        (JudgedMask("x", estimate_mask_quality(raw, raw, own, None)),), (), 0.9
    )
    by_label = {row["label"]: row for row in review.rows()}
    estimates = {
        name: (row["bundle_expected_dice"], row["bundle_lower_bound"])
        for name, row in by_label.items()
    }
    assert estimates == {"mean": (0.9, 0.7), "a": (0.8, 0.6), "b": (None, None)}
    assert review.summary_rows()[0][3] == "expected"
    assert review.summary_rows()[1][2] == "b 0.400"


def test_masks_to_review_keep_their_order() -> None:
    cases = []
    for name, dice, flagged in (
        ("one", 0.3, True),
        ("two", 0.9, False),
        ("three", 0.2, True),
    ):
        agreement = Agreement(raw=dice, dice=dice)
        quality = MaskQuality(
            agreement, {"a": agreement}, Quality(0.9), review=flagged
        )
        cases.append(JudgedMask(name, quality))
    review = MaskReview(tuple(sorted(cases, key=review_order)), ())
    assert [mask.case for mask in review.to_review] == ["three", "one"]
