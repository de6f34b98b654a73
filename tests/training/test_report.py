"""The training report survives metrics.json, today's and that of earlier versions."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from medseg.errors import CheckpointError
from medseg.metrics.metrics import ABSENT, CaseScores
from medseg.metrics.statistics import compute_statistics
from medseg.quality.calibration import CalibrationSample
from medseg.training.keep_largest import CaseResults, HeldOutResults
from medseg.training.lineage import Lineage
from medseg.training.report import (
    FoldSummary,
    TrainingReport,
    read_report,
    report_to_json,
)
from medseg.training.run_folder import RunFolder

FORMER = Path(__file__).parents[1] / "former" / "run"


def results(dice: float) -> CaseResults:
    labels = {"liver": replace(ABSENT, dice=dice, iou=0.5), "kidney": ABSENT}
    sample = CalibrationSample(
        "a",
        {"liver": 0.7},
        {"liver": dice, "kidney": math.nan},
        False,
        {0.5: {"liver": 0.6}},
    )
    return CaseResults([CaseScores(labels, "a")], [sample])


REPORT = TrainingReport(
    fold=1,
    training_cases=4,
    validation_cases=1,
    best_step=30,
    content_hash="abc",
    provenance={"version.torch": "2"},
    held_out=HeldOutResults(results(0.8), results(0.9)),
    validations=[(10, {"dice": {"liver": math.nan, "mean": 0.5}})],
    lineage=Lineage(
        "parent", "1", "run", "hash", "/secret", ("label liver: taken over",)
    ),
)


def write(report: TrainingReport, folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.metrics.write_text(report_to_json(report))
    return run


def test_a_report_comes_back_from_metrics_json(tmp_path: Path) -> None:
    found = read_report(write(REPORT, tmp_path))
    assert (found.fold, found.training_cases, found.validation_cases) == (
        1,
        4,
        1,
    )
    assert (found.best_step, found.content_hash) == (30, "abc")
    assert found.provenance == REPORT.provenance
    # NaN is not equal to itself.
    assert repr(found.held_out) == repr(REPORT.held_out)


def test_without_alternatives_the_results_themselves_come_back(
    tmp_path: Path,
) -> None:
    report = replace(REPORT, held_out=HeldOutResults(results(0.8)))
    found = read_report(write(report, tmp_path))
    assert found.held_out.largest is None
    assert repr(found.held_out.requested) == repr(report.held_out.requested)


def test_metrics_json_has_the_keys_it_always_had() -> None:
    folds = [
        FoldSummary(
            0, 1, 30, compute_statistics(results(0.8).cases, ["dice"])["dice"]
        )
    ]
    content = json.loads(report_to_json(replace(REPORT, folds=folds)))
    assert list(content) == [
        "fold", "training_cases", "validation_cases", "best_step", "data_fingerprint",
        "learned_from", "from", "scores", "cases", "confidence", "validations", "provenance",
        "folds", "undecided",
    ]  # fmt: skip
    assert list(content["undecided"]) == ["every_piece", "largest_piece"]
    assert content["validations"] == [
        {"step": 10, "scores": {"dice": {"liver": None, "mean": 0.5}}}
    ]
    assert content["folds"][0]["dice"]["liver"]["mean"] == 0.8
    assert "/secret" not in json.dumps(content)
    assert content["from"]["name"] == "parent"


def test_scores_are_those_of_the_results_as_decided() -> None:
    content = json.loads(report_to_json(REPORT))
    # With one case nothing is decided.
    assert content["scores"]["dice"]["liver"] == 0.8
    unscored = replace(REPORT, held_out=HeldOutResults(CaseResults()))
    assert unscored.scores == {}


def test_the_metrics_json_of_an_earlier_version_is_read() -> None:
    found = read_report(RunFolder(FORMER))
    content = json.loads((FORMER / "metrics.json").read_text())
    assert found.best_step == content["best_step"]
    assert [case.case for case in found.held_out.requested.cases] == [
        case["case"] for case in content["cases"]
    ]


def test_samples_without_other_temperatures_are_read(tmp_path: Path) -> None:
    content = json.loads(
        report_to_json(replace(REPORT, held_out=HeldOutResults(results(0.8))))
    )
    del content["confidence"][0]["scores_at"]
    run = RunFolder(tmp_path)
    run.metrics.write_text(json.dumps(content))
    (sample,) = read_report(run).held_out.requested.samples
    assert sample.scores_at == {}
    assert not sample.is_clean


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fold": 0}', "[" * 100_000])
def test_a_damaged_metrics_json_is_refused_and_its_file_named(
    text: str, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    run.metrics.write_text(text)
    with pytest.raises(
        CheckpointError, match=r"metrics\.json is damaged"
    ) as caught:
        read_report(run)
    assert caught.value.source == str(run.metrics)
    assert str(tmp_path) not in caught.value.message
