"""Intervals and comparisons, against scipy and against what can be counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from medseg.metrics.comparison import (
    bootstrap_interval,
    bootstrap_interval_over_labels,
    collect_case_values,
    compare_methods,
)
from medseg.metrics.metrics import ABSENT, CaseScores


def scored(values: list[float], hd95: float = 1.0) -> list[CaseScores]:
    return [
        CaseScores(
            {"liver": replace(ABSENT, dice=value, hd95=hd95)}, case=f"c{number}"
        )
        for number, value in enumerate(values)
    ]


def test_an_interval_is_scipys_within_its_chance() -> None:
    values = np.random.default_rng(1).beta(8, 2, 40)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        rng=np.random.default_rng(2),
        n_resamples=5000,
    ).confidence_interval
    ours = bootstrap_interval(values.tolist())
    assert (ours.low, ours.high) == pytest.approx(
        (theirs.low, theirs.high), abs=0.004
    )
    assert bootstrap_interval(values.tolist()) == ours


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = [
        (found := bootstrap_interval(rng.normal(0.8, 0.1, 30).tolist())).low
        <= 0.8
        <= found.high
        for _ in range(200)
    ]
    assert 0.88 <= np.mean(hits) <= 0.99


def test_one_case_has_no_interval() -> None:
    assert math.isnan(bootstrap_interval([0.5]).low)
    assert math.isnan(bootstrap_interval([]).high)


def test_a_difference_is_paired_by_name() -> None:
    first, second = (
        scored([0.9, 0.8, 0.7]),
        list(reversed(scored([0.8, 0.7, 0.7, 0.1]))),
    )
    dice = next(
        one for one in compare_methods(first, second) if one.metric == "dice"
    )
    assert (dice.n, dice.better, dice.worse) == (3, 2, 0)
    assert dice.mean == pytest.approx(0.2 / 3)
    assert dice.interval.low <= dice.mean <= dice.interval.high


def test_of_distances_less_is_better() -> None:
    hd95 = next(
        one
        for one in compare_methods(scored([0.5], 2), scored([0.5], 3))
        if one.metric == "hd95"
    )
    assert (hd95.better, hd95.worse, hd95.mean) == (1, 0, -1)


def test_p_is_small_for_a_steady_gain_and_one_for_none() -> None:
    base = np.random.default_rng(4).uniform(0.5, 0.9, 30)
    gain = compare_methods(
        scored((base + 0.02).tolist()), scored(base.tolist())
    )[0]
    same = compare_methods(scored(base.tolist()), scored(base.tolist()))[0]
    assert gain.p < 1e-5
    assert (same.p, same.mean) == (1.0, 0.0)


def test_the_mean_leaves_out_labels_that_nobody_holds() -> None:
    case = CaseScores({"a": replace(ABSENT, dice=0.6), "b": ABSENT}, case="one")
    assert collect_case_values([case], "dice", "mean") == {"one": 0.6}
    assert collect_case_values([case], "dice", "b") == {}


def test_p_of_few_cases_is_exact() -> None:
    base = np.array([0.5, 0.55, 0.62, 0.7, 0.81])
    gains = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    found = compare_methods(
        scored((base + gains).tolist()), scored(base.tolist())
    )[0]
    assert found.p == pytest.approx(2 / 2**5)
    assert compare_methods(scored([0.9, 0.8]), scored([0.7, 0.7]))[
        0
    ].p == pytest.approx(0.5)


def test_the_interval_of_the_mean_over_labels_holds_that_mean() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(0.9, 0.02, 40)
    rare = np.full(40, math.nan)
    rare[:12] = rng.normal(0.2, 0.05, 12)
    found = bootstrap_interval_over_labels([common.tolist(), rare.tolist()])
    mean = (common.mean() + np.nanmean(rare)) / 2
    assert mean - 0.05 < found.low < mean < found.high < mean + 0.05


def test_where_every_case_has_every_label_the_interval_is_that_of_the_cases_means() -> (
    None
):
    table = np.random.default_rng(6).uniform(0, 1, (3, 20))
    whole, by_case = (
        bootstrap_interval_over_labels(table.tolist()),
        bootstrap_interval(table.mean(axis=0).tolist()),
    )
    assert (whole.low, whole.high) == pytest.approx((by_case.low, by_case.high))
    assert math.isnan(
        bootstrap_interval_over_labels([[0.5, math.nan], [0.2, math.nan]]).low
    )
    assert math.isnan(bootstrap_interval_over_labels([]).low)
