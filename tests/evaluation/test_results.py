"""Statistics and summaries of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.label_maps import TWO, phantom, save

from medseg.commands.evaluate import evaluate


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Three cases: perfect, shifted, and with the tumour missed."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case, prediction in {
        "a": phantom(),
        "b": phantom(1),
        "c": phantom(tumour=False),
    }.items():
        save(predictions / f"{case}.nii.gz", prediction)
        save(references / f"{case}.nii.gz", phantom())
    return predictions, references


def test_the_mean_over_labels_lies_in_its_interval(tmp_path):
    for number in range(6):
        save(
            tmp_path / "p" / f"{number}.nii.gz",
            phantom(number % 2, tumour=False),
        )
        save(tmp_path / "r" / f"{number}.nii.gz", phantom(tumour=number < 3))
    found = evaluate(tmp_path / "p", tmp_path / "r", labels=TWO)
    for metric, by_label in found.statistics.items():
        its = found.intervals[metric]["mean"]
        mean = by_label["mean"].mean
        assert its.low - 1e-9 <= mean <= its.high + 1e-9, metric


def test_summary_rows_are_for_people(folders):
    heading, liver, tumour, mean = evaluate(*folders, labels=TWO).summary_rows()
    assert heading[:4] == ("label", "cases", "missed", "Dice")
    assert liver[:3] == ("liver", "3", "0")
    assert tumour[:4] == ("tumour", "3", "1", "0.667 ± 0.577")
    assert mean[0] == "mean"


def test_a_label_without_a_value_is_a_dash_and_one_case_has_no_spread(
    tmp_path: Path,
) -> None:
    save(tmp_path / "p" / "a.nii.gz", phantom(tumour=False))
    save(tmp_path / "r" / "a.nii.gz", phantom(tumour=False))
    _, liver, tumour, _ = evaluate(
        tmp_path / "p", tmp_path / "r", labels=TWO
    ).summary_rows()
    assert liver == ("liver", "1", "0", "1.000", "0.0", "1.000", "0.0")
    assert tumour == ("tumour", "0", "0", "–", "–", "–", "–")
