"""The model card says what was trained, on how much, and how good it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.bundles import NESTED, made_spec

from medseg.bundle.spec import (
    CalibrationSpec,
    KeepLargestDecision,
    KeepLargestFinding,
    QualityFinding,
)
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import compute_statistics
from medseg.training.keep_largest import CaseResults, HeldOutResults
from medseg.training.lineage import Lineage
from medseg.training.model_card import cross_validation_rows, model_card
from medseg.training.report import FoldSummary, TrainingReport
from medseg.training.stages import StageResult


def scored() -> list[CaseScores]:
    spec = made_spec()
    truth = np.zeros((6, 6, 6), np.uint8)
    truth[1:4, 1:4, 1:4] = 1
    truth[4:, 4:, 4:] = 2
    shifted = np.roll(truth, 1, axis=0)
    return [
        score_case(prediction, truth, spec.label_set, (1, 1, 1), case=name)
        for name, prediction in (("a", truth), ("b", shifted))
    ]


def results_of(cases: list[CaseScores]) -> HeldOutResults:
    return HeldOutResults(CaseResults(cases))


REPORT = TrainingReport(
    fold=1,
    training_cases=16,
    validation_cases=2,
    best_step=300,
    content_hash="abc123",
    provenance={"version.torch": "2.13.0", "git": ""},
    held_out=results_of(scored()),
)
UNSCORED = TrainingReport(
    fold=None,
    training_cases=5,
    validation_cases=0,
    best_step=4,
    content_hash="x",
    provenance={},
)


def test_a_partly_annotated_data_set_is_described() -> None:
    assert "were ignored" not in model_card(made_spec(), REPORT)
    card = model_card(made_spec(data={"ignore": 9}), REPORT)
    assert "Voxels with the value 9 in the label files were ignored" in card


def test_the_card_has_what_a_reader_needs() -> None:
    spec = made_spec(
        description="Liver and kidney in CT",
        authors="A, B",
        licence="CC0-1.0",
        references=["Someone, Somewhere, 2020"],
        preprocessing={"spacing_mm": [1.5, None, 2]},
    )
    liver = REPORT.statistics["dice"]["liver"]
    card = model_card(spec, REPORT)
    for words in (
        "# made_up\n",
        "Liver and kidney in CT",
        "Research only; not a medical device.",
        "CT (CT)",
        "1.5 × own × 2 mm",
        "1 liver, 2 kidney",
        "16 cases; 2 held out (fold 1)",
        "4 steps of 2 patches of 16 × 16 × 16 voxels, seed 0",
        "Weights of step 300",
        "Authors: A, B",
        "Licence: CC0-1.0",
        "Data fingerprint: `abc123`",
        "version.torch: 2.13.0",
        "Reference: Someone, Somewhere, 2020",
        "| label | Dice | IoU | HD95 (mm) | NSD at 1 mm |",
        f"| liver | {liver.mean:.3f} ± {liver.sd:.3f} |",
        "over 2 held-out cases",
    ):
        assert words in card
    assert "git:" not in card  # unknown facts are left out


def test_without_held_out_cases_nothing_is_claimed() -> None:
    card = model_card(made_spec(), UNSCORED)
    assert "nothing was measured" in card
    assert "held out (none)" in card
    assert "| label |" not in card


@pytest.mark.parametrize(
    "name", ["a|b", "<b>bold</b>", "*star*", "`tick`", "[x](http://y)"]
)
def test_names_cannot_break_the_table_or_become_markup(name: str) -> None:
    spec = made_spec(
        labels=[{"index": 1, "name": name}],
        description=f"{name}\n\n# A heading that is none\n<script>alert(1)</script>",
    )
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1:3] = 1
    cases = [score_case(truth, truth, spec.label_set, (1, 1, 1), case="a")]
    card = model_card(spec, replace(REPORT, held_out=results_of(cases)))
    rows = [line for line in card.splitlines() if line.startswith("|")]
    bars = [line.replace("\\|", "").count("|") for line in rows]
    assert len(set(bars)) == 1
    assert "<script>" not in card
    assert "<b>" not in card
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert "# A heading that is none" not in headings


def test_scores_that_are_unknown_are_a_dash() -> None:
    spec = made_spec()
    empty = np.zeros((4, 4, 4), np.uint8)
    cases = [score_case(empty, empty, spec.label_set, (1, 1, 1), case="a")]
    card = model_card(spec, replace(REPORT, held_out=results_of(cases)))
    assert "| liver | – | – | – | – |" in card
    assert "nan" not in card.split("## Provenance")[0]


def test_regions_are_listed_in_the_order_of_decoding() -> None:
    card = model_card(made_spec(**NESTED), UNSCORED)
    assert "Regions, which overlap, in the order of decoding: whole (" in card
    assert "Regions" not in model_card(made_spec(), UNSCORED)


def test_the_sections_of_stages_stand_in_the_card() -> None:
    stages = [StageResult(card="## Refinement\n\n- It helped."), StageResult()]
    card = model_card(made_spec(), replace(UNSCORED, stages=stages))
    assert "\n\n## Refinement\n\n- It helped.\n\n## Limits\n" in card


def test_the_parent_and_what_was_taken_over_are_named() -> None:
    lineage = Lineage(
        "parent",
        "1.2",
        "run7",
        "0123abcd",
        "/secret",
        ("label liver: taken over",),
    )
    card = model_card(made_spec(), replace(REPORT, lineage=lineage))
    assert (
        "## Fine-tuned from\n\nparent 1.2, run `run7`, weights `0123abcd`"
        in card
    )
    assert "- label liver: taken over" in card
    assert "/secret" not in card


def test_decisions_on_connected_components_have_their_figures() -> None:
    decision = KeepLargestDecision(
        kept=True, dice_before=0.8, dice_after=0.85, cases=9, better=6, worse=1
    )
    finding = KeepLargestFinding(labels={"li|ver": decision})
    card = model_card(made_spec(), replace(REPORT, keep_largest=finding))
    assert "## Postprocessing" in card
    assert (
        "li\\|ver: only the largest connected component is kept (Dice 0.8000"
        in card
    )
    assert "a gain is slightly too good" in card


def test_components_that_the_bundle_decides_on_have_no_figures() -> None:
    spec = made_spec(inference={"keep_largest": ["kidney"]})
    assert (
        "Only the largest connected component of kidney is kept"
        in model_card(spec, REPORT)
    )
    assert "## Postprocessing" not in model_card(made_spec(), REPORT)


def test_a_cross_validation_has_mean_and_spread_per_fold_and_over_the_folds() -> (
    None
):
    first, second = scored()
    folds = [
        FoldSummary(
            0, 2, 10, compute_statistics([first, second], ["dice"])["dice"]
        ),
        FoldSummary(1, 1, 20, compute_statistics([second], ["dice"])["dice"]),
    ]
    heading, zero, one, both = cross_validation_rows(folds)
    assert heading == [
        "fold",
        "held-out cases",
        "Dice liver",
        "Dice kidney",
        "Dice mean",
    ]
    dice = second["dice"]["liver"]
    assert zero[:3] == [
        "0",
        "2",
        f"{(1 + dice) / 2:.3f} ± {(1 - dice) / 2**0.5:.3f}",
    ]
    assert one[:3] == ["1", "1", f"{dice:.3f}"]
    means = [(1 + dice) / 2, dice]
    spread = abs(means[0] - means[1]) / 2**0.5
    assert both[:3] == ["all", "3", f"{sum(means) / 2:.3f} ± {spread:.3f}"]


def test_folds_with_a_time_budget_have_steps_of_their_own() -> None:
    folds = [
        FoldSummary(0, 2, 10, compute_statistics(scored(), ["dice"])["dice"])
    ]
    timed = made_spec(training={"budget_minutes": 20})
    card = model_card(timed, replace(REPORT, fold="all", folds=folds))
    assert (
        "As many steps as fit into 20 minutes for each fold, of 2 patches"
        in card
    )
    assert "- 4 steps of 2 patches" in model_card(timed, REPORT)


@pytest.mark.parametrize(
    ("results", "words"), [(40, "clean and corrupted"), (10, "all clean")]
)
def test_what_quality_was_learned_from_is_described(
    results: int, words: str
) -> None:
    case = CalibrationSpec(
        scores=(0, 1), dice=(0, 1), margin=0.1, cases=results
    )
    finding = QualityFinding(
        case=case, coverage=0.9, review_below=0.5, review_share=0.1
    )
    card = model_card(
        made_spec(), replace(REPORT, validation_cases=10, quality=finding)
    )
    assert f"{results} held-out results, {words}" in card
