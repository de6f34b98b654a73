"""Where the marks of the evaluation's plots lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.evaluation.plots import (
    MOST_AGREEMENTS,
    plot_agreements,
    plot_boxes,
)
from medseg.metrics.metrics import ABSENT, CaseScores, LabelScores


def scores(
    dice: float, predicted: float = 10.0, reference: float = 10.0
) -> LabelScores:
    return replace(
        ABSENT,
        dice=dice,
        hd95=10 * (1 - dice),
        predicted_ml=predicted,
        reference_ml=reference,
    )


def cases(*dice: float) -> list[CaseScores]:
    return [
        CaseScores({"liver": scores(value)}, f"case {number}")
        for number, value in enumerate(dice)
    ]


def test_a_box_has_the_quartiles_and_whiskers_within_reach() -> None:
    plot = plot_boxes(cases(0.9, 0.8, 0.7, 0.6, 0.1), "dice", "Dice", 1.0)
    assert plot is not None
    (box,) = plot.boxes
    # The axis begins at the tenth below the lowest value, 0.
    assert (box.first, box.median, box.third) == (60, 70, 80)
    assert (box.low, box.high) == (60, 90)
    assert [point.x for point in box.points] == [90, 80, 70, 60, 10]
    assert box.points[0].text == "case 0: 0.900"
    assert box.text == "0.700 (0.600 to 0.800), n = 5"


def test_what_was_missed_does_not_stretch_the_axis_of_distances() -> None:
    near = cases(0.9, 0.8, 0.7)
    missed = replace(scores(0.0), hd95=500.0, missed=True)
    plot = plot_boxes(
        [*near, CaseScores({"liver": missed}, "x")], "hd95", "HD95", None
    )
    assert plot is not None
    assert len(plot.boxes[0].points) == 3
    assert float(plot.ticks[-1].text) < 5


@pytest.mark.parametrize("dice", [1.0, 0.0])
def test_values_that_are_all_alike_have_a_box(dice: float) -> None:
    for metric, highest in (("dice", 1.0), ("hd95", None)):
        plot = plot_boxes(cases(dice, dice, dice), metric, "", highest)
        assert plot is not None
        (box,) = plot.boxes
        assert box.low == box.median == box.high


def test_without_values_there_is_no_plot() -> None:
    nothing = [CaseScores({"liver": ABSENT}, "a")]
    assert plot_boxes(nothing, "dice", "Dice", 1.0) is None
    assert plot_agreements(nothing) == []


def test_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(2, 3, 40)
    found = [
        CaseScores({"liver": scores(0.9, 100 + each, 100)}, "a")
        for each in differences
    ]
    (plot,) = plot_agreements(found)
    reach = 1.96 * differences.std(ddof=1)
    expected = [
        differences.mean() + reach,
        differences.mean(),
        differences.mean() - reach,
    ]
    told = [
        float(line.text.split(": ")[1].split()[0].replace("−", "-"))
        for line in plot.lines
    ]
    assert told == pytest.approx(expected, abs=0.01)
    assert plot.lines[0].at > plot.lines[1].at > plot.lines[2].at
    inside = [
        0 <= point.x <= 100 and 0 <= point.y <= 100 for point in plot.points
    ]
    assert all(inside)


def test_of_many_labels_those_that_differ_most_are_shown() -> None:
    names = [f"organ {number}" for number in range(40)]
    labels = {
        name: scores(0.9, 100 + number, 100)
        for number, name in enumerate(names)
    }
    plots = plot_agreements(
        [CaseScores(labels, str(case)) for case in range(3)]
    )
    assert len(plots) == MOST_AGREEMENTS
    assert plots[0].label == "organ 39"
