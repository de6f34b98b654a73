"""The page of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.browsers import open_chromium
from support.label_maps import phantom, save

from medseg.commands.evaluate import evaluate
from medseg.errors import Fault
from medseg.evaluation.report import (
    EvaluationPage,
    PageTable,
    render_evaluation,
)

HOSTILE = "\"><script>alert(1)</script>' onload='x' {{ 7*7 }} Ä 脑"
SUMMARY = PageTable("Summary", "", ("Label", "Dice"), [("liver", "0.9")])
PAGE = EvaluationPage(1, ("NSD at 1 mm",), SUMMARY)


def test_tables_without_rows_and_empty_lists_of_faults_are_left_out() -> None:
    empty = PageTable("Lesions", "", ("Label",), [])
    page = render_evaluation(replace(PAGE, tables=(empty,)))
    assert "Evaluation of 1 case<" in page
    assert '<th scope="row">liver</th><td>0.9</td>' in page
    assert "Lesions" not in page
    assert "Not scored" not in page
    assert "Worst cases" not in page


def test_faults_are_named_without_what_stands_apart() -> None:
    fault = Fault(
        "case_7", "the voxels end early", detail="mueller_hans.nii.gz"
    )
    page = render_evaluation(replace(PAGE, faults=(fault,)))
    assert "Not scored" in page
    assert '<th scope="row">case_<wbr>7</th>' in page
    assert "the voxels end early" in page
    assert "mueller" not in page


def test_hostile_names_are_text_wherever_they_stand() -> None:
    table = PageTable(HOSTILE, HOSTILE, (HOSTILE,), [(HOSTILE, HOSTILE)])
    page = render_evaluation(
        EvaluationPage(
            1,
            (HOSTILE,),
            table,
            tables=(table,),
            flags=((HOSTILE, (HOSTILE,)),),
            faults=(Fault(HOSTILE, HOSTILE),),
        )
    )
    assert "<script" not in page
    assert "49" not in page
    assert "' onload='" not in page


@pytest.mark.slow
def test_in_a_browser_the_page_fits_narrow_and_wide_screens(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        name = f"a_rather_long_name_of_a_case_{number:03d}.nii.gz"
        save(tmp_path / "p" / name, phantom(int(rng.integers(3))))
        save(tmp_path / "r" / name, phantom())
    evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=True)
    with open_chromium(tmp_path) as browser:
        for width in (390, 1280, 1920):
            browser.emulate(width, dark=width == 1280)
            browser.open((tmp_path / "out" / "evaluation.html").as_uri())
            assert browser.run(
                "return document.documentElement.scrollWidth <= innerWidth"
            ), width
            browser.run("document.images[0].scrollIntoView()")
            loaded = "return document.images[0].naturalWidth > 300"
            browser.wait("picture", partial(browser.run, loaded), 10)
        assert browser.log() == []
