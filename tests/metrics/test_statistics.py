"""Statistics over cases: means, spreads and worst cases, without the values that are NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.metrics.metrics import METRICS, CaseScores, LabelScores
from medseg.metrics.statistics import compute_statistics, summarise


def scored(case: str, **dice: float) -> CaseScores:
    return CaseScores(
        {
            name: LabelScores(
                value, value, 10 - value, value, value, value, 1, 1, value == 0
            )
            for name, value in dice.items()
        },
        case,
    )


def test_summary_by_hand():
    nan = math.nan
    cases = [scored("a", liver=0.5, tumour=0.0), scored("b", liver=1.0, tumour=nan),
             scored("c", liver=0.9, tumour=0.4)]  # fmt: skip
    means = summarise(cases)
    assert list(means) == list(METRICS)
    assert means["dice"]["liver"] == pytest.approx(0.8)
    assert means["dice"]["tumour"] == pytest.approx(0.2)
    assert means["dice"]["mean"] == pytest.approx(0.5)
    liver, tumour = (
        compute_statistics(cases)["dice"][name] for name in ("liver", "tumour")
    )
    assert (liver.n, liver.median, liver.worst, liver.worst_case) == (
        3,
        0.9,
        0.5,
        "a",
    )
    assert liver.sd == pytest.approx(np.std([0.5, 1.0, 0.9], ddof=1))
    assert (tumour.n, tumour.missed) == (2, 1)
    assert compute_statistics(cases)["hd95"]["liver"].worst == pytest.approx(
        9.5
    )
    overall = compute_statistics(cases)["dice"]["mean"]
    assert (overall.n, overall.worst, overall.worst_case) == (3, 0.25, "a")


def test_nothing_to_count_is_nan_not_zero():
    means = summarise(
        [scored("a", liver=math.nan), scored("b", liver=math.nan)]
    )
    assert math.isnan(means["dice"]["liver"])
    assert math.isnan(means["dice"]["mean"])
    assert summarise([])["dice"].keys() == {"mean"}
    assert (
        compute_statistics([scored("a", liver=math.nan)])["dice"]["liver"].n
        == 0
    )


def test_the_worst_distance_is_the_longest_and_the_worst_volume_error_the_farthest_from_0() -> (
    None
):
    cases = [
        scored("a", liver=-3.0),
        scored("b", liver=2.0),
        scored("c", liver=0.5),
    ]
    statistics = compute_statistics(cases)
    assert statistics["dice"]["liver"].worst_case == "a"
    assert statistics["hd95"]["liver"].worst_case == "a"
    assert statistics["volume_error_ml"]["liver"].worst == -3.0
    assert statistics["iou"]["liver"].worst == -3.0


def test_of_equally_bad_cases_the_first_is_named() -> None:
    cases = [
        scored("a", liver=0.9),
        scored("b", liver=0.5),
        scored("c", liver=0.5),
    ]
    assert compute_statistics(cases)["dice"]["liver"].worst_case == "b"


def test_one_case_has_a_mean_and_no_spread() -> None:
    statistic = compute_statistics([scored("a", liver=0.5)])["dice"]["liver"]
    assert (statistic.n, statistic.mean) == (1, 0.5)
    assert math.isnan(statistic.sd)


def test_a_label_that_a_case_lacks_is_not_counted() -> None:
    cases = [scored("a", liver=0.5), scored("b", liver=0.7, tumour=0.2)]
    statistics = compute_statistics(cases, ["dice"])
    assert list(statistics) == ["dice"]
    assert list(statistics["dice"]) == ["liver", "tumour", "mean"]
    assert statistics["dice"]["tumour"].n == 1
