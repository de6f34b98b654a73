"""The files of a trained bundle, and what held-out cases decide about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.sessions import made_session

from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import (
    CalibrationSpec,
    QualityFinding,
    RefinementFinding,
    TrainedSpec,
)
from medseg.bundle.spec_files import write_trained
from medseg.errors import OutputError
from medseg.events import Event, HeldOutDecision, RunDone
from medseg.metrics.metrics import ABSENT, CaseScores
from medseg.networks.building import build_network, select_inference_weights
from medseg.quality.calibration import CalibrationSample
from medseg.training.keep_largest import CaseResults, HeldOutResults
from medseg.training.report import TrainingReport
from medseg.training.runs import TrainingRun
from medseg.training.stages import StageResult
from medseg.training.trained_bundle import (
    write_stage_results,
    write_trained_bundle,
)

SPEC = made_spec()
FINDING = RefinementFinding(
    applied=False, dice_gain=0.0, interval=(0.0, 0.0), cases=6
)


def results(*dice: float) -> CaseResults:
    cases, samples = [], []
    for number, value in enumerate(dice):
        labels = {
            name: replace(ABSENT, dice=value) for name in SPEC.label_set.names
        }
        cases.append(CaseScores(labels, f"case {number}"))
        scores = dict.fromkeys(SPEC.label_set.names, value)
        samples.append(CalibrationSample(f"case {number}", scores, scores))
    return CaseResults(cases, samples)


REPORT = TrainingReport(
    fold=0,
    training_cases=4,
    validation_cases=8,
    best_step=4,
    content_hash="abc",
    provenance={},
    held_out=HeldOutResults(
        results(0.5, 0.6, 0.7, 0.8, 0.5, 0.6, 0.7, 0.8),
        results(0.6, 0.7, 0.8, 0.9, 0.6, 0.7, 0.8, 0.9),
    ),
)


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    run = made_session(tmp_path / "run", SPEC, training=0, validation=0).run
    run.folder.save_weights(select_inference_weights(build_network(SPEC), SPEC))
    return run


def test_held_out_cases_decide_and_everything_is_written(
    run: TrainingRun,
) -> None:
    events: list[Event] = []
    write_trained_bundle(run, REPORT, [events.append])
    trained = load_bundle(run.folder.path).trained
    assert trained.keep_largest is not None
    assert trained.keep_largest.kept == ("liver", "kidney")
    assert trained.quality is not None
    metrics = json.loads(run.folder.metrics.read_text())
    assert metrics["scores"]["dice"]["mean"] == pytest.approx(0.75)
    assert "## Postprocessing" in run.folder.card.read_text()
    assert [type(event) for event in events] == [HeldOutDecision, RunDone]
    metadata = json.loads(
        (run.folder.path / "configs" / "metadata.json").read_text()
    )
    assert metadata["eval_metrics"]


def test_without_held_out_cases_nothing_is_decided(run: TrainingRun) -> None:
    events: list[Event] = []
    report = replace(
        REPORT, held_out=HeldOutResults(CaseResults()), validation_cases=0
    )
    write_trained_bundle(run, report, [events.append])
    trained = load_bundle(run.folder.path).trained
    assert (trained.keep_largest, trained.quality) == (None, None)
    assert [type(event) for event in events] == [RunDone]


def test_a_stage_adds_its_finding_its_network_and_its_section(
    run: TrainingRun,
) -> None:
    network: dict[str, Any] = {"_target_": "torch.nn.Identity"}
    stage = StageResult(
        {"refinement": FINDING}, network, "## Refinement\n\nDone."
    )
    write_trained_bundle(run, replace(REPORT, stages=[stage]), [])
    assert load_bundle(run.folder.path).trained.refinement == FINDING
    inference = json.loads(
        (run.folder.path / "configs" / "inference.json").read_text()
    )
    assert "torch.nn.Identity" in json.dumps(inference["network_def"])
    assert "## Refinement\n\nDone." in run.folder.card.read_text()


def test_what_an_interrupted_end_decided_is_dropped(run: TrainingRun) -> None:
    line = CalibrationSpec(
        scores=(0.0, 1.0), dice=(0.0, 1.0), margin=0.1, cases=9
    )
    quality = QualityFinding(
        case=line, coverage=0.9, review_below=0.5, review_share=0.1
    )
    write_trained(TrainedSpec(quality=quality), run.folder.path)
    write_stage_results([StageResult({"refinement": FINDING})], run.folder)
    assert load_bundle(run.folder.path).trained == TrainedSpec(
        refinement=FINDING
    )


def test_metrics_json_comes_last(run: TrainingRun) -> None:
    run.folder.card.parent.parent.joinpath("docs").write_text("in the way")
    with pytest.raises(OutputError):
        write_trained_bundle(run, REPORT, [])
    assert not run.folder.is_finished
    assert torch.load(run.folder.weights, weights_only=True)
