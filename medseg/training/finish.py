"""The end of a training: what held-back cases came to, and a run folder that is a whole bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medseg._support.files import write_atomically
from medseg.bundle.bundle import Bundle, write_trained
from medseg.bundle.spec import LargestFinding, TrainedSpec
from medseg.events import HeldOutDecision, Listener, RunDone, notify
from medseg.interop.monai_bundle import Parts, write_monai_bundle
from medseg.metrics.statistics import compute_statistics, summarise
from medseg.networks.inferers import SLICE_AXIS, window_arguments
from medseg.quality.calibration import calibrate
from medseg.training.keep_largest import CaseResults, HeldOutResults, explain
from medseg.training.model_card import Facts, metrics_json, model_card
from medseg.training.runs import TrainingRun

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Ending:
    """What the training of a bundle came to.

    Attributes:
        held_back: Of every held-back case.
        finding: Of which labels only the largest piece is kept, where that was decided.
        network: The network for inference, with ``_target_``.
        members: The weight files.
        validations: Step and ``metric → label → mean``, on the network's grid.
        stopped_early: Whether the training ended before its last step.
    """

    held_back: HeldOutResults
    finding: LargestFinding | None
    network: Mapping[str, Any]
    members: tuple[str, ...] = ("model.pt",)
    validations: Sequence[tuple[int, Scores]] = ()
    stopped_early: bool = False

    @property
    def outcome(self) -> CaseResults:
        """What the held-back cases come to as was decided."""
        return self.held_back.finished(self.finding)


def finish(run: TrainingRun, ending: Ending, facts: Facts, listeners: Sequence[Listener]) -> None:
    """Make the run folder a whole bundle; ``metrics.json`` comes last.

    Args:
        run: The training, whose weights are in its folder.
        ending: What it came to.
        facts: What else is known about it.
        listeners: Told of the decision, and that the bundle is whole.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder, spec, outcome = run.folder, run.spec, ending.outcome
    quality = calibrate(
        outcome.samples,
        [region.name for region in spec.label_set.regions],
        coverage=spec.quality.coverage,
        review_share=spec.quality.review_share,
    )
    trained = TrainedSpec(
        members=ending.members,
        refinement=facts.refinement,
        quality=quality,
        keep_largest=ending.finding,
    )
    write_trained(trained, folder.path)
    decided = Bundle(spec, folder.path).decided
    scores = summarise(outcome.cases) if outcome.cases else {}
    parts = Parts(ending.network, window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(folder.path, decided, parts, scores, ending.members)
    if ending.finding is not None and ending.finding.labels:
        notify(listeners, HeldOutDecision("largest piece", explain(ending.finding)))
    facts = replace(facts, quality=quality, keep_largest=ending.finding)
    write_atomically(folder.card, model_card(decided, facts, compute_statistics(outcome.cases)))
    write_atomically(
        folder.metrics,
        metrics_json(facts, scores, outcome, ending.validations, ending.held_back),
    )
    notify(listeners, RunDone(folder.path, scores, ending.stopped_early))
