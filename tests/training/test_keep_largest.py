"""Labels keep only their largest connected component where held-out cases gain by it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from medseg.metrics.metrics import ABSENT, CaseScores
from medseg.quality.calibration import CalibrationSample
from medseg.training.keep_largest import (
    MIN_CASES,
    CaseResults,
    HeldOutResults,
    explain,
    join_folds,
)


def results(**dice: list[float]) -> CaseResults:
    """Return cases with these Dice per label; NaN where neither mask holds it."""
    count = len(next(iter(dice.values())))
    rows = [
        {name: values[n] for name, values in dice.items()} for n in range(count)
    ]
    cases = [
        CaseScores(
            {name: replace(ABSENT, dice=value) for name, value in row.items()},
            f"case {n}",
        )
        for n, row in enumerate(rows)
    ]
    samples = [
        CalibrationSample(f"case {n}", dict(row), dict(row))
        for n, row in enumerate(rows)
    ]
    return CaseResults(cases, samples)


BEFORE = results(
    liver=[0.5, 0.6, 0.7, 0.8, 0.9], kidney=[0.9, 0.8, 0.7, 0.6, 0.5]
)
AFTER = results(
    liver=[0.9, 0.5, 0.7, 0.8, 0.9], kidney=[0.9, 0.8, 0.7, 0.6, 0.4]
)


def test_each_label_is_decided_by_its_own_paired_mean() -> None:
    found = HeldOutResults(BEFORE, AFTER).decide()
    assert found is not None
    assert found.kept == ("liver",)
    liver, kidney = found.labels["liver"], found.labels["kidney"]
    assert (liver.cases, liver.better, liver.worse) == (5, 1, 1)
    assert liver.dice_before == pytest.approx(0.7)
    assert liver.dice_after == pytest.approx(0.76)
    assert (kidney.kept, kidney.better, kidney.worse) == (False, 0, 1)


def test_a_label_without_a_gain_keeps_all_components() -> None:
    found = HeldOutResults(BEFORE, BEFORE).decide()
    assert found is not None
    assert found.kept == ()


def test_a_label_in_too_few_cases_keeps_all_components_and_the_reason_is_given() -> (
    None
):
    absent = [math.nan] * 2
    before, after = (
        results(liver=[0.5] * 4 + absent),
        results(liver=[0.9] * 4 + absent),
    )
    found = HeldOutResults(before, after).decide()
    assert found is not None
    assert found.labels["liver"].cases == 4 < MIN_CASES
    assert not found.labels["liver"].kept
    assert f"at least {MIN_CASES} cases" in explain(found)[0]


def test_a_label_in_no_case_is_not_decided() -> None:
    nowhere = results(liver=[0.5] * 5, kidney=[math.nan] * 5)
    found = HeldOutResults(nowhere, nowhere).decide()
    assert found is not None
    assert set(found.labels) == {"liver"}


def test_results_are_merged_label_by_label_as_decided() -> None:
    held_out = HeldOutResults(BEFORE, AFTER)
    finished = held_out.postprocessed(held_out.decide())
    assert [case["dice"]["liver"] for case in finished.cases] == [
        0.9,
        0.5,
        0.7,
        0.8,
        0.9,
    ]
    assert [case["dice"]["kidney"] for case in finished.cases] == [
        0.9,
        0.8,
        0.7,
        0.6,
        0.5,
    ]
    assert list(finished.cases[0].labels) == ["liver", "kidney"]
    assert finished.samples[0].scores == {"liver": 0.9, "kidney": 0.9}
    assert finished.samples[4].dice == {"liver": 0.9, "kidney": 0.5}
    assert held_out.postprocessed(None) is BEFORE


def test_nothing_is_decided_where_the_bundle_names_the_labels_or_no_case_is_held_out() -> (
    None
):
    assert HeldOutResults(BEFORE).decide() is None
    assert HeldOutResults(CaseResults(), CaseResults()).decide() is None


def test_folds_decide_together() -> None:
    halves = [results(liver=[0.5] * 3), results(liver=[0.6] * 3)]
    better = [results(liver=[0.7] * 3), results(liver=[0.5] * 3)]
    parts = [
        HeldOutResults(one, other)
        for one, other in zip(halves, better, strict=True)
    ]
    assert not any(found.kept for part in parts if (found := part.decide()))
    whole = join_folds(parts)
    found = whole.decide()
    assert found is not None
    assert found.kept == ("liver",)
    assert found.labels["liver"].cases == 6
    assert join_folds([parts[0], HeldOutResults(halves[1])]).decide() is None


def test_the_explanation_gives_both_mean_dice() -> None:
    found = HeldOutResults(BEFORE, AFTER).decide()
    assert found is not None
    liver, kidney = explain(found)
    assert "liver: only the largest connected component is kept" in liver
    assert "0.7000" in liver
    assert "0.7600" in liver
    assert "better in 1 and worse in 1 of 5 cases" in liver
    assert "kidney: all connected components are kept" in kidney
