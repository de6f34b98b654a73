"""The end of a training run: decisions on held-out results, and the files of a trained bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.bundle import REFINER_FILE, Bundle
from medseg.bundle.hashes import hash_network
from medseg.bundle.safe_weights import write_safe_copies
from medseg.bundle.spec import BundleSpec, TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.events import HeldOutDecision, Listener, RunDone, notify
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.networks.definition import define_network
from medseg.networks.inferers import SLICE_AXIS, get_window_arguments
from medseg.training.decisions import decide
from medseg.training.keep_largest import explain
from medseg.training.model_card import model_card
from medseg.training.report import TrainingReport, report_to_json
from medseg.training.run_folder import RunFolder
from medseg.training.runs import TrainingRun
from medseg.training.speed_card import describe_finding
from medseg.training.stages import StageResult

_MEMBERS = ("model.pt",)


def write_stage_results(
    stages: Sequence[StageResult], folder: RunFolder
) -> None:
    """Write what stages found into ``trained.json``, so that the folder can segment.

    Whatever an interrupted end found before is dropped: it must not influence what is found now.
    """
    write_trained(_with_stages(TrainedSpec(), stages), folder.path)


def write_trained_bundle(
    run: TrainingRun,
    report: TrainingReport,
    listeners: Sequence[Listener],
    members: tuple[str, ...] = _MEMBERS,
) -> None:
    """Make a run folder, which has its weights, a trained bundle; ``metrics.json`` comes last.

    Args:
        run: The run.
        report: What it found; what held-out cases decide is added.
        listeners: Notified of the decision, and that the bundle is complete.
        members: The weight files in ``models``.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = run.folder
    report = _decide(report, run.spec)
    trained = TrainedSpec(
        members=members,
        quality=report.quality,
        keep_largest=report.keep_largest,
        files=write_safe_copies(_list_weights(folder, members)),
        validated=report.validated,
        made_up=report.made_up,
        speed=report.speed,
    )
    trained = _with_stages(trained, report.stages)
    write_trained(trained, folder.path)
    if trained.speed is not None:
        # Of the weights as they are read from now on.
        network_hash = hash_network(Bundle(run.spec, folder.path))
        speed = trained.speed.model_copy(update={"network": network_hash})
        trained = trained.model_copy(update={"speed": speed})
        write_trained(trained, folder.path)
    decided = Bundle(run.spec, folder.path).decided
    network = _select_network(run.spec, report.stages)
    parts = Parts(network, get_window_arguments(run.spec), SLICE_AXIS)
    write_monai_bundle(folder.path, decided, parts, report.scores, members)
    finding = report.keep_largest
    if finding is not None and finding.labels:
        decision = HeldOutDecision(
            "largest connected component", explain(finding)
        )
        notify(listeners, decision)
    if report.speed is not None:
        sentences = describe_finding(report.speed)
        notify(listeners, HeldOutDecision("speed on a CPU", sentences))
    write_atomically(folder.card, model_card(decided, report))
    write_atomically(folder.metrics, report_to_json(report))
    done = RunDone(folder.path, report.scores, report.stopped_early)
    notify(listeners, done)


def _list_weights(folder: RunFolder, members: Sequence[str]) -> list[Path]:
    """Return the files of weights that segment: of the networks, and of a refiner."""
    names = [*members, REFINER_FILE.name]
    files = [folder.weights.with_name(name) for name in names]
    return [file for file in files if file.is_file()]


def _decide(report: TrainingReport, spec: BundleSpec) -> TrainingReport:
    """Return the report with the postprocessing and the calibration that held-out cases decide."""
    decided = decide(report.held_out, spec)
    return replace(
        report, keep_largest=decided.keep_largest, quality=decided.quality
    )


def _with_stages(
    trained: TrainedSpec, stages: Sequence[StageResult]
) -> TrainedSpec:
    for stage in stages:
        trained = trained.model_copy(update=dict(stage.trained))
    return trained


def _select_network(
    spec: BundleSpec, stages: Sequence[StageResult]
) -> Mapping[str, Any]:
    """Return the definition of the network for inference."""
    for stage in reversed(stages):
        if stage.network is not None:
            return stage.network
    return define_network(spec, supervised=False)
