"""The page of an evaluation."""

from __future__ import annotations

from medseg.errors import Fault
from medseg.evaluation.report import PageTable, render_evaluation


def test_tables_without_rows_and_empty_lists_of_faults_are_left_out() -> None:
    full = PageTable("Summary", "a note", ("label", "mean"), [("liver", "0.9")])
    empty = PageTable("Lesions", "", ("label",), [])
    page = render_evaluation(1, "NSD at 1 mm", (full, empty), ())
    assert "Evaluation of 1 case<" in page
    assert "<td>liver</td><td>0.9</td>" in page
    assert "Lesions" not in page
    assert "Not scored" not in page


def test_faults_are_named_without_what_stands_apart() -> None:
    fault = Fault(
        "case_7", "the voxels end early", detail="mueller_hans.nii.gz"
    )
    page = render_evaluation(2, "", (), (fault,))
    assert "Not scored" in page
    assert "<td>case_7</td>" in page
    assert "the voxels end early" in page
    assert "mueller" not in page
