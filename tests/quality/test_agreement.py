"""What follows from agreement: Dice of two masks, and a bound that is never too high."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.bundle.spec import CalibrationSpec, QualityFinding
from medseg.labels import Label, LabelSet
from medseg.metrics.metrics import score_case
from medseg.quality.agreement import compute_mask_dice, estimate_mask_quality
from medseg.quality.calibration import BELOW_LIMIT
from medseg.quality.estimates import LabelQuality, Quality

LABELS = LabelSet(
    [Label(1, "a", 1, (255, 0, 0)), Label(2, "b", 2, (0, 255, 0))]
)


def random_labels(seed: int, share: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.integers(1, 3, (6, 5, 4))
    return np.where(rng.random(made.shape) < share, made, 0).astype(np.uint8)


def test_dice_is_that_of_the_metrics() -> None:
    one, other = random_labels(0), random_labels(1)
    scores = score_case(one, other, LABELS, (1, 1, 1))["dice"]
    assert compute_mask_dice(one, other, LABELS) == pytest.approx(scores)
    only_a = np.where(one == 1, 1, 0).astype(np.uint8)
    assert compute_mask_dice(only_a, only_a, LABELS) == {"a": 1}
    assert compute_mask_dice(only_a, one, LABELS) == {"a": 1, "b": 0}


@given(st.integers(0, 500), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_bound_is_below_the_truth_wherever_the_bundles_own_is(
    seed: int, wrong: float, drawn: float
) -> None:
    rng = np.random.default_rng(seed)
    truth = random_labels(seed)
    own = np.where(
        rng.random(truth.shape) < wrong, random_labels(seed + 1), truth
    )
    given_mask = np.where(
        rng.random(truth.shape) < drawn, random_labels(seed + 2), own
    )
    certain = compute_mask_dice(own, truth, LABELS)
    quality = Quality(
        0.9, 0.8, {k: LabelQuality(v, v) for k, v in certain.items()}, True
    )
    alike = compute_mask_dice(given_mask, own, LABELS)
    judged = estimate_mask_quality(
        dict.fromkeys(alike, 0.9), alike, quality, None
    )
    true = compute_mask_dice(given_mask, truth, LABELS)
    for name in alike.keys() & certain.keys() & true.keys():
        lower = judged.labels[name].lower
        assert lower is not None
        assert lower <= true[name] + 1e-4


def test_the_bound_is_that_of_the_own_mask_less_how_far_the_masks_lie_apart() -> (
    None
):
    own = Quality(0.9, 0.8, {"a": LabelQuality(0.9, 0.8)}, is_calibrated=True)
    for dice, lower in (
        (1.0, 0.8),
        (0.0, 0.0),
        (0.9, 2 * 0.4848485 / 1.4848485),
    ):
        quality = estimate_mask_quality({"a": 0.7}, {"a": dice}, own, None)
        assert quality.labels["a"].lower == pytest.approx(lower, abs=1e-4)


def test_a_label_that_the_own_mask_has_no_bound_for_gets_none() -> None:
    own = Quality(0.9, None, {"a": LabelQuality(0.9)})
    quality = estimate_mask_quality(
        {"a": 0.9, "b": 0.8}, {"a": 0.9, "b": 0.8}, own, None
    )
    assert [label.lower for label in quality.labels.values()] == [None, None]
    assert quality.mean is not None
    assert quality.mean.raw == pytest.approx(0.85)
    assert quality.mean.expected is None


def test_a_label_of_one_mask_alone_is_to_be_reviewed() -> None:
    own = Quality(0.9, 0.8, {"a": LabelQuality(0.9, 0.8)})
    both = estimate_mask_quality(
        {"a": 0.9, "b": 0.9}, {"a": 0.9, "b": 0.9}, own, None
    )
    assert not both.review
    one = estimate_mask_quality({"a": 0.9}, {"a": 0.9, "b": 0.0}, own, None)
    assert one.review
    assert one.labels["b"].raw == 0


def test_of_two_empty_masks_nothing_is_said_but_of_the_own_one() -> None:
    own = Quality(review=True)
    quality = estimate_mask_quality({"a": 0.5}, {}, own, None)
    assert quality.mean is None
    assert quality.labels == {}
    assert quality.review


CURVE = CalibrationSpec(scores=(0, 1), dice=(0, 0.5), margin=0.1, cases=20)
CALIBRATION = QualityFinding(
    case=CURVE, coverage=0.9, review_below=0.7, review_share=0.1
)


@pytest.mark.parametrize(
    ("dice", "expected", "review"),
    [
        pytest.param(1.0, 0.9, False, id="the own mask is as good as expected"),
        pytest.param(0.95, 0.9, False, id="a mask nearly like it"),
        pytest.param(0.75, 0.75, False, id="a mask that lies apart"),
        pytest.param(0.6, 0.6, True, id="one below the limit"),
    ],
)
def test_a_mask_is_expected_to_lie_in_the_middle_of_what_is_possible(
    dice: float, expected: float, review: bool
) -> None:
    own = Quality(0.9, 0.8, {"a": LabelQuality(0.9, 0.8)}, is_calibrated=True)
    # What the own calibration says of raw values of masks by others is far too low.
    found = estimate_mask_quality({"a": dice}, {"a": dice}, own, CALIBRATION)
    assert found.mean is not None
    assert found.mean.expected == found.labels["a"].expected == expected
    assert found.review == review


def test_a_mask_is_reviewed_where_the_own_one_would_be() -> None:
    own = Quality(
        0.6,
        labels={"a": LabelQuality(0.6)},
        is_calibrated=True,
        review=True,
        reasons=(BELOW_LIMIT,),
    )
    found = estimate_mask_quality({"a": 1.0}, {"a": 1.0}, own, CALIBRATION)
    assert found.reasons == (BELOW_LIMIT,)
