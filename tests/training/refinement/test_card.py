"""The model card's section on refinement: what was decided, by how much, and the critic."""

from __future__ import annotations

from medseg.bundle.spec import RefinementFinding
from medseg.training.refinement.card import (
    inseparable_warning,
    refinement_section,
)

GAIN = RefinementFinding(
    applied=True, dice_gain=0.012, interval=(0.004, 0.02), cases=7
)


def test_the_decision_and_the_gain_are_told() -> None:
    section = refinement_section(GAIN, None)
    assert section.startswith(
        "## Refinement\n\n- The refined mask replaces the network's own.\n"
    )
    assert (
        "+0.0120 (95 % interval +0.0040 to +0.0200, 7 held-out cases" in section
    )
    assert "critic" not in section
    refused = refinement_section(
        GAIN.model_copy(update={"applied": False}), None
    )
    assert "did not clearly improve it" in refused


def test_without_cases_no_gain_is_claimed() -> None:
    nothing = RefinementFinding(
        applied=False, dice_gain=0.0, interval=(0.0, 0.0), cases=0
    )
    section = refinement_section(nothing, None)
    assert "without held-out cases" in section
    assert "interval" not in section


def test_a_critic_that_taught_nothing_is_told() -> None:
    assert refinement_section(None, 0.5).endswith(
        "over the last quarter of its steps."
    )
    assert "taught nothing" in refinement_section(None, 0.1)
    assert "taught nothing" not in refinement_section(None, 0.3)
    assert "0.10" in inseparable_warning(0.1)


def test_without_refinement_there_is_no_section() -> None:
    assert refinement_section(None, None) == ""
