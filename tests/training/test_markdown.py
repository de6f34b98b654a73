"""Sections of a model card are replaced, and the others stay as they are."""

from __future__ import annotations

from medseg.training.markdown import replace_sections

CARD = "# organs\n\nText.\n\n## Results\n\nNone.\n\n## Limits\n\nMany.\n"


def test_a_section_that_is_there_is_replaced() -> None:
    replaced = replace_sections(CARD, {"Results": "Good.\n\n| a |\n| b |"})
    assert replaced == CARD.replace("None.", "Good.\n\n| a |\n| b |")
    assert replace_sections(replaced, {"Results": "None."}) == CARD


def test_a_new_section_stands_before_the_limits_or_last() -> None:
    card = replace_sections(CARD, {"Calibration": "Done."})
    new = "## Calibration\n\nDone.\n\n"
    assert card == CARD.replace("## Limits", new + "## Limits")
    assert (
        replace_sections("# organs\n", {"A": "b"}) == "# organs\n\n## A\n\nb\n"
    )
    assert replace_sections("", {"A": "b"}).strip() == "## A\n\nb"
