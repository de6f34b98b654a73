"""Calibration: expected Dice near the truth, a bound that holds, order kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.bundle.spec import QualityFinding
from medseg.quality.calibration import (
    MIN_CLEAN_RESULTS,
    CalibrationSample,
    calibrate,
    estimate_quality,
    predict_dice,
)


def made_samples(
    count: int, seed: int, *, corrupted: int = 2
) -> list[CalibrationSample]:
    """Raw scores that are too high by a known curve, with noise that grows as Dice falls."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        for copy in range(1 + corrupted):
            dice = rng.beta(40, 5) if copy == 0 else rng.beta(3, 2)
            noise = rng.normal(0, 0.4 * (1.02 - dice))
            score = float(np.clip(0.3 + 0.7 * (dice + noise), 0.01, 0.99))
            samples.append(
                CalibrationSample(
                    f"case{number}", {"a": score}, {"a": dice}, copy == 0
                )
            )
    return samples


def known(
    count: int = 60, seed: int = 0, coverage: float = 0.9
) -> QualityFinding:
    found = calibrate(made_samples(count, seed), ["a"], coverage=coverage)
    assert found is not None
    return found


def test_expected_dice_is_near_the_truth() -> None:
    fresh = made_samples(200, 1)
    bundle = known()
    expected = [estimate_quality(one.scores, bundle).expected for one in fresh]
    truth = np.array([one.dice["a"] for one in fresh])
    raw = np.array([one.scores["a"] for one in fresh])
    errors = np.array(expected, dtype=float) - truth
    assert np.abs(errors).mean() < np.abs(raw - truth).mean()
    assert abs(errors.mean()) < 0.02 < 0.08 < abs((raw - truth).mean())


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_bound_holds_as_often_as_stated_on_clean_scans(
    coverage: float,
) -> None:
    held = []
    for seed in range(8):
        bundle = known(seed=seed, coverage=coverage)
        for one in made_samples(60, 100 + seed, corrupted=0):
            lower = estimate_quality(one.scores, bundle).lower
            assert lower is not None
            held.append(one.dice["a"] >= lower)
    assert np.mean(held) == pytest.approx(coverage, abs=0.05)


def test_about_the_stated_share_is_flagged() -> None:
    fresh = [one for one in made_samples(400, 7) if one.is_clean]
    bundle = known()
    assert np.mean(
        [estimate_quality(one.scores, bundle).review for one in fresh]
    ) == pytest.approx(0.1, abs=0.06)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(MIN_CLEAN_RESULTS, 30))
def test_order_is_kept(seed: int, count: int) -> None:
    bundle = calibrate(made_samples(count, seed), ["a"])
    assert bundle is not None
    scores = np.linspace(0, 1, 301)
    dice = predict_dice(bundle.case, scores)
    assert (np.diff(dice) >= 0).all()
    assert dice[0] == 0
    for score in (0.0, 0.3, 0.77, 1.0):
        quality = estimate_quality({"a": score}, bundle)
        assert quality.expected is not None
        assert quality.lower is not None
        assert 0 <= quality.lower <= quality.expected <= 1


def test_a_calibration_survives_its_file() -> None:
    bundle = known()
    assert (
        QualityFinding.model_validate_json(bundle.model_dump_json()) == bundle
    )


def with_temperatures(
    samples: list[CalibrationSample],
    at_half: Callable[[CalibrationSample], float],
) -> list[CalibrationSample]:
    return [
        replace(one, scores_at={0.5: {"a": at_half(one)}}) for one in samples
    ]


def test_the_temperature_is_the_one_that_tells_results_apart() -> None:
    rng = np.random.default_rng(3)
    samples = made_samples(30, 3)
    sharp = with_temperatures(
        samples, lambda one: min(0.4 + 0.6 * one.dice["a"], 1.0)
    )
    found = calibrate(sharp, ["a"])
    assert found is not None
    assert found.temperature == 0.5
    for one in sharp:
        judged = estimate_quality(one.at(0.5).scores, found).expected
        assert judged == pytest.approx(one.dice["a"], abs=0.1)
    dull = calibrate(
        with_temperatures(samples, lambda _: float(rng.uniform())), ["a"]
    )
    assert dull is not None
    assert dull.temperature == 1
    assert dull == calibrate(samples, ["a"])


def test_a_temperature_that_orders_no_better_is_not_taken() -> None:
    samples = made_samples(30, 4)
    found = calibrate(
        with_temperatures(samples, lambda one: one.scores["a"] / 2), ["a"]
    )
    assert found is not None
    assert found.temperature == 1


def test_too_few_cases_calibrate_nothing() -> None:
    assert calibrate(made_samples(MIN_CLEAN_RESULTS - 1, 0), ["a"]) is None
    assert calibrate([], ["a"]) is None


def test_a_rare_label_is_judged_by_the_whole() -> None:
    samples = [
        CalibrationSample(
            one.case,
            one.scores | {"b": 0.5},
            one.dice | {"b": math.nan},
            one.is_clean,
        )
        for one in made_samples(20, 0)
    ]
    bundle = calibrate(samples, ["a", "b"])
    assert bundle is not None
    assert set(bundle.labels) == {"a"}
    assert set(estimate_quality({"a": 0.9, "b": 0.4}, bundle).labels) == {
        "a",
        "b",
    }


def test_nothing_found_is_to_be_looked_at() -> None:
    quality = estimate_quality({}, known())
    assert quality.expected is None
    assert quality.review


def test_equal_scores_do_not_break_it() -> None:
    samples = [
        CalibrationSample(str(n), {"a": 0.8}, {"a": 0.5 + n / 40})
        for n in range(12)
    ]
    bundle = calibrate(samples, ["a"])
    assert bundle is not None
    mean = np.mean([one.dice["a"] for one in samples])
    assert estimate_quality({"a": 0.8}, bundle).expected == pytest.approx(
        mean, abs=0.02
    )


def test_results_that_are_all_alike_are_not_all_flagged() -> None:
    samples = [
        CalibrationSample(str(n), {"a": 0.8}, {"a": 0.5 + n / 30})
        for n in range(12)
    ]
    bundle = calibrate(samples, ["a"])
    assert bundle is not None
    quality = estimate_quality({"a": 0.8}, bundle)
    assert quality.expected == 0.6833  # rounded down, and so below the limit
    assert not quality.review


def test_few_results_cannot_bound_more_than_they_can() -> None:
    assert known(count=60, coverage=0.95).coverage == 0.95
    found = calibrate(made_samples(12, 0), ["a"], coverage=0.99)
    assert found is not None
    assert found.coverage == pytest.approx(12 / 13)
    rarer = [
        CalibrationSample(
            one.case,
            one.scores | {"b": 0.5},
            one.dice | {"b": 0.5},
            one.is_clean,
        )
        if one.case in {f"case{n}" for n in range(MIN_CLEAN_RESULTS)}
        else one
        for one in made_samples(60, 0)
    ]
    found = calibrate(rarer, ["a", "b"])
    assert found is not None
    assert found.coverage == pytest.approx(
        MIN_CLEAN_RESULTS / (MIN_CLEAN_RESULTS + 1)
    )


# --- by hand ---


def convex_samples(
    count: int = 20, *, copies: bool = False
) -> list[CalibrationSample]:
    """Return samples whose Dice is the square of their score, at equal distances.

    The regression through them is exact where it sees them, and too high by the square of the
    distance where it interpolates between their neighbours.
    """
    samples = []
    for number in range(1, count + 1):
        score = number / (count + 1)
        dice = {"a": score**2}
        samples.append(CalibrationSample(f"case{number}", {"a": score}, dice))
        if copies:
            copy = CalibrationSample(
                f"case{number}", {"a": score + 1e-6}, dice, is_clean=False
            )
            samples.append(copy)
    return samples


def left_out_residuals(count: int = 20) -> list[float]:
    """Return the residuals of ``convex_samples``, each case left out with every fifth other."""
    scores = np.arange(1, count + 1) / (count + 1)
    residuals = []
    for number, score in enumerate(scores):
        others = scores[np.arange(count) % 5 != number % 5]
        top = min(1.0, others[-1] ** 2 + 1 - others[-1])
        expected = np.interp(score, [0, *others, 1], [0, *others**2, top])
        residuals.append((expected - score**2) / (1.02 - expected))
    return sorted(residuals)


@pytest.mark.parametrize(
    ("coverage", "rank"), [(0.9, 19), (0.8, 17), (0.99, 20)]
)
def test_the_margin_is_the_residual_of_the_rank_that_n_plus_one_results_need(
    coverage: float, rank: int
) -> None:
    bundle = calibrate(convex_samples(), ["a"], coverage=coverage)
    assert bundle is not None
    assert bundle.case.margin == pytest.approx(
        left_out_residuals()[rank - 1], rel=1e-6
    )
    # Another rank is another margin.
    assert len(set(left_out_residuals()[-5:])) > 3


def test_a_case_is_left_out_of_the_regression_with_its_corrupted_copies() -> (
    None
):
    bundle = calibrate(convex_samples(copies=True), ["a"], coverage=0.9)
    assert bundle is not None
    assert bundle.case.margin == pytest.approx(
        left_out_residuals()[18], rel=1e-3
    )


def test_the_regression_itself_has_seen_every_case() -> None:
    bundle = calibrate(convex_samples(), ["a"])
    assert bundle is not None
    scores = np.arange(1, 21) / 21
    assert predict_dice(bundle.case, scores) == pytest.approx(
        scores**2, abs=1e-9
    )
    assert bundle.case.cases == 20


def test_the_bound_lies_below_the_expected_dice_by_the_margins_share_of_what_is_left() -> (
    None
):
    bundle = calibrate(convex_samples(), ["a"])
    assert bundle is not None
    quality = estimate_quality({"a": 10 / 21}, bundle)
    expected = (10 / 21) ** 2
    lower = expected - bundle.case.margin * (1.02 - expected)
    assert quality.expected == pytest.approx(expected, abs=1e-4)
    assert quality.lower == pytest.approx(lower, abs=1e-4)
    assert quality.labels["a"].expected == quality.expected


def test_a_falling_stretch_is_levelled_to_its_mean() -> None:
    dice = [0.1, 0.5, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    samples = [
        CalibrationSample(str(number), {"a": (number + 1) / 10}, {"a": value})
        for number, value in enumerate(dice)
    ]
    bundle = calibrate(samples, ["a"])
    assert bundle is not None
    # 0.5, 0.3, 0.4 become one step of 0.4 in the middle of their scores.
    assert predict_dice(
        bundle.case, np.array([0.1, 0.3, 0.5])
    ) == pytest.approx([0.1, 0.4, 0.6])
