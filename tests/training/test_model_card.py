"""The model card says what was trained, on how much, and how good it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support.bundles import made_spec

from medseg.bundle.spec import (
    CalibrationSpec,
    LargestDecision,
    LargestFinding,
    QualityFinding,
    RefinementFinding,
)
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import compute_statistics
from medseg.training.model_card import Facts, FoldFacts, cross_validation_rows, model_card

FACTS = Facts(
    training_cases=16,
    validation_cases=2,
    fold=1,
    best_step=300,
    fingerprint="abc123",
    provenance={"version.torch": "2.13.0", "git": ""},
)


def scored() -> list[CaseScores]:
    import numpy as np

    spec = made_spec()
    truth = np.zeros((6, 6, 6), np.uint8)
    truth[1:4, 1:4, 1:4] = 1
    truth[4:, 4:, 4:] = 2
    off = np.roll(truth, 1, axis=0)
    return [
        score_case(found, truth, spec.label_set, (1, 1, 1), case=name)
        for name, found in (("a", truth), ("b", off))
    ]


def test_a_partly_annotated_set_is_told() -> None:
    found = compute_statistics(scored())
    assert "nobody" not in model_card(made_spec(), FACTS, found)
    assert "the value 9 in the label files" in model_card(
        made_spec(data={"ignore": 9}), FACTS, found
    )


def test_the_card_has_what_a_reader_needs() -> None:
    spec = made_spec(
        description="Liver and kidney in CT",
        authors="A, B",
        licence="CC0-1.0",
        references=["Someone, Somewhere, 2020"],
        preprocessing={"spacing_mm": [1.5, None, 2]},
    )
    found = compute_statistics(scored())
    card = model_card(spec, FACTS, found)
    for words in (
        "# made_up\n",
        "Liver and kidney in CT",
        "Research only; not a medical device.",
        "CT (CT)",
        "1.5 × own × 2 mm",
        "1 liver, 2 kidney",
        "16 cases; 2 held back (fold 1)",
        "4 steps of 2 patches of 16 × 16 × 16 voxels, seed 0",
        "Weights of step 300",
        "Authors: A, B",
        "Licence: CC0-1.0",
        "Data fingerprint: `abc123`",
        "version.torch: 2.13.0",
        "Reference: Someone, Somewhere, 2020",
        "| label | Dice | IoU | HD95 (mm) | NSD at 1 mm |",
        f"| liver | {found['dice']['liver'].mean:.3f} ± {found['dice']['liver'].sd:.3f} |",
        "over 2 held-back cases",
    ):
        assert words in card
    assert "git:" not in card  # unknown facts are left out


def test_without_held_back_cases_nothing_is_claimed() -> None:
    facts = Facts(5, 0, None, 4, "x", {})
    card = model_card(made_spec(), facts, {})
    assert "nothing was measured" in card
    assert "held back (none)" in card
    assert "| label |" not in card


@pytest.mark.parametrize("name", ["a|b", "<b>bold</b>", "*star*", "`tick`", "[x](http://y)"])
def test_names_cannot_break_the_table_or_become_markup(name: str) -> None:
    import numpy as np

    spec = made_spec(
        labels=[{"index": 1, "name": name}],
        description=f"{name}\n\n# A heading that is none\n<script>alert(1)</script>",
    )
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1:3] = 1
    cases = [score_case(truth, truth, spec.label_set, (1, 1, 1), case="a")]
    card = model_card(spec, FACTS, compute_statistics(cases))
    rows = [line for line in card.splitlines() if line.startswith("|")]
    bars = [line.replace("\\|", "").count("|") for line in rows]
    assert len(set(bars)) == 1
    assert "<script>" not in card
    assert "<b>" not in card
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert "# A heading that is none" not in headings


def test_scores_that_are_not_known_are_a_dash() -> None:
    found = {"dice": {"liver": compute_statistics(scored())["dice"]["liver"]}}
    assert not math.isnan(found["dice"]["liver"].mean)
    card = model_card(made_spec(), FACTS, compute_statistics([]) or found)
    assert "nan" not in card.replace("Provenance", "")


UNSCORED = replace(FACTS, validation_cases=0)


@pytest.mark.parametrize(("gap", "told"), [(0.05, True), (0.6, False)])
def test_a_critic_that_never_separated_is_told(gap: float, told: bool) -> None:
    card = model_card(made_spec(), replace(UNSCORED, critic_gap=gap), {})
    assert ("never told them apart" in card) is told


@pytest.mark.parametrize("applied", [True, False])
def test_the_verdict_on_the_refiner_is_told_with_its_figures(applied: bool) -> None:
    finding = RefinementFinding(
        applied=applied, dice_gain=0.0123, interval=(-0.001, 0.02), cases=20
    )
    card = model_card(made_spec(), replace(UNSCORED, refinement=finding), {})
    assert ("The refined mask replaces" in card) is applied
    assert "+0.0123" in card
    assert "20 held-back cases" in card


def test_without_refinement_the_card_does_not_speak_of_it() -> None:
    assert "Refinement" not in model_card(made_spec(), UNSCORED, {})


def test_the_decision_on_largest_pieces_is_told_with_its_figures() -> None:
    decision = LargestDecision(
        kept=True, dice_before=0.8, dice_after=0.85, cases=9, better=6, worse=1
    )
    finding = LargestFinding(labels={"li|ver": decision})
    card = model_card(
        made_spec(), replace(FACTS, keep_largest=finding), compute_statistics(scored())
    )
    assert "## Postprocessing" in card
    assert "li\\|ver: only the largest piece is kept (Dice 0.8000 with every piece, 0.8500" in card
    assert "a gain is slightly too good" in card


def test_labels_that_the_bundle_names_are_told_without_figures() -> None:
    asked = made_spec(inference={"keep_largest": ["kidney"]})
    assert "Only the largest piece of kidney is kept" in model_card(
        asked, FACTS, compute_statistics(scored())
    )
    assert "## Postprocessing" not in model_card(made_spec(), FACTS, compute_statistics(scored()))


def test_a_cross_validation_has_mean_and_spread_per_fold_and_over_the_folds() -> None:
    first, second = scored()
    folds = [
        FoldFacts(0, 2, 10, compute_statistics([first, second], ["dice"])["dice"]),
        FoldFacts(1, 1, 20, compute_statistics([second], ["dice"])["dice"]),
    ]
    heading, zero, one, both = cross_validation_rows(folds)
    assert heading == ["fold", "held-back cases", "Dice liver", "Dice kidney", "Dice mean"]
    off = second["dice"]["liver"]
    assert zero[:3] == ["0", "2", f"{(1 + off) / 2:.3f} ± {(1 - off) / 2**0.5:.3f}"]
    assert one[:3] == ["1", "1", f"{off:.3f}"]
    means = [(1 + off) / 2, off]
    spread = abs(means[0] - means[1]) / 2**0.5
    assert both[:3] == ["all", "3", f"{sum(means) / 2:.3f} ± {spread:.3f}"]


def test_folds_with_a_time_budget_have_steps_of_their_own() -> None:
    folds = [FoldFacts(0, 2, 10, compute_statistics(scored(), ["dice"])["dice"])]
    timed = made_spec(training={"budget_minutes": 20})
    card = model_card(timed, replace(FACTS, fold="all", folds=folds), compute_statistics(scored()))
    assert "As many steps as fit into 20 minutes for each fold, of 2 patches" in card
    assert "- 4 steps of 2 patches" in model_card(timed, FACTS, compute_statistics(scored()))


def test_a_refiner_that_no_case_was_held_back_for_is_not_called_useless() -> None:
    unknown = RefinementFinding(applied=False, dice_gain=0, interval=(0, 0), cases=0)
    card = model_card(made_spec(), replace(FACTS, refinement=unknown), compute_statistics(scored()))
    assert "no held-back case says" in card
    assert "did not clearly improve" not in card


@pytest.mark.parametrize(("results", "told"), [(40, "clean and corrupted"), (10, "all clean")])
def test_what_quality_was_learned_from_is_told(results: int, told: str) -> None:
    case = CalibrationSpec(scores=(0, 1), dice=(0, 1), margin=0.1, cases=results)
    finding = QualityFinding(case=case, coverage=0.9, review_below=0.5, review_share=0.1)
    facts = replace(FACTS, validation_cases=10, quality=finding)
    card = model_card(made_spec(), facts, compute_statistics(scored()))
    assert f"{results} held-back results, {told}" in card
