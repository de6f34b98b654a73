"""Calibration of a bundle apart from its training: by the end of a training, on other cases.

What is done stands in ``STEPS``, a list of functions in the order in which they run. Each takes the
state so far and returns it with what it found: fields of ``trained.json`` in ``bundle``, sections
of the model card, entries of ``metrics.json``. A later step measures with what earlier ones
decided.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from medseg.bundle.bundle import Bundle, with_trained
from medseg.bundle.hashes import hash_bundle, hash_texts
from medseg.bundle.spec import BundleSpec, CalibratedSpec
from medseg.datasets.cache import make_entry_key
from medseg.datasets.labelled_cases import LabelledCases
from medseg.datasets.validated_range import measure_range
from medseg.errors import DatasetError
from medseg.events import HeldOutDecision, Listener, Notice, notify
from medseg.inference.backends.at_speed import find_decided_speed
from medseg.metrics.statistics import compute_statistics, summarise
from medseg.networks.devices import choose_device
from medseg.training.calibration_card import (
    describe_calibration,
    describe_postprocessing,
)
from medseg.training.decisions import HeldOutDecisions, decide
from medseg.training.held_out import (
    ByPostprocessing,
    HeldOutCases,
    list_postprocessings,
    score_bundle,
)
from medseg.training.journal import Journal, JournalTask
from medseg.training.keep_largest import HeldOutResults, explain
from medseg.training.quantisation_windows import draw_case_windows
from medseg.training.report import results_from_json, results_to_json
from medseg.training.speed_card import SPEED, describe_finding, describe_speed
from medseg.training.speed_settings import decide_speed
from medseg.training.speed_trials import SpeedCases
from medseg.training.time_budget import count_corrupted_copies

SPEED_MEMORY = "speed-"
"""How the names of files begin that a decision on the speed goes on from."""

_SCORING = "scoring"
_RANGES_EVERY = 4
"""Of so many cases one serves to quantise the network; the others decide."""
_MOST_RANGES = 8


@dataclass(frozen=True, slots=True)
class CalibrationState:
    """A calibration under way.

    Attributes:
        bundle: The bundle, with what was found so far; its folder, which may be written to, holds
            the weights.
        cases: What it is measured on; it has learned from none of them.
        own: Ids of the cases that it was validated on when it was trained.
        decides_largest: Whether to decide of which labels only the largest component is kept.
        device: Where to compute.
        journal: Of what was computed, for a call that goes on. What steps keep lies beside it.
        listeners: Notified of progress and decisions.
        sections: Heading → text of sections of the model card.
        metrics: What ``metrics.json`` says of the calibration.
    """

    bundle: Bundle
    cases: LabelledCases
    own: Collection[str]
    decides_largest: bool
    device: str
    journal: Journal
    listeners: Sequence[Listener] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def with_findings(self, **findings: Any) -> CalibrationState:
        """Return the state with other fields of ``trained.json``."""
        trained = self.bundle.trained.model_copy(update=findings)
        return replace(self, bundle=with_trained(self.bundle, trained))


CalibrationStep = Callable[[CalibrationState], CalibrationState]


def begin_calibration(state: CalibrationState) -> CalibrationState:
    """Drop what an earlier calibration decided, as far as the steps decide it anew."""
    findings: dict[str, Any] = {"quality": None, "calibrated": None}
    if state.decides_largest:
        findings["keep_largest"] = None
    return state.with_findings(**findings)


def measure_cases(state: CalibrationState) -> CalibrationState:
    """Measure what the cases are like: results that lie outside are flagged for review.

    The range that training measured stays where its own held-out cases are calibrated on: it is of
    these and of more.
    """
    known = state.bundle.trained.validated
    if known is not None and _are_own_cases(state):
        return state
    spec = state.bundle.spec
    return state.with_findings(
        validated=measure_range(state.cases.measures, spec)
    )


def decide_on_speed(state: CalibrationState) -> CalibrationState:
    """Decide how fast a CPU may compute the network, as at the end of a training.

    Before the scores: quality is calibrated at the speed that results will have. What its own
    held-out cases decided in training stays.
    """
    if _are_own_cases(state) and find_decided_speed(state.bundle) is not None:
        return state
    if choose_device(state.device).type != "cpu":
        return _leave_speed(state, "that takes --device cpu")
    ranges, deciding = _share_out(state.cases)
    folder = state.journal.file.parent
    windows = partial(draw_case_windows, ranges, folder / "cache")
    undrawn = list_unknown_labels(deciding, state.bundle.spec)
    held_out = HeldOutCases(deciding.cases, deciding.ids, deciding.spec)
    decision = decide_speed(
        state.bundle,
        SpeedCases(held_out, windows, undrawn),
        math.inf,
        folder / f"{SPEED_MEMORY}{state.cases.fingerprint}.json",
        state.listeners,
    )
    if decision.finding is None:
        return _leave_speed(state, decision.reason)
    sentences = describe_finding(decision.finding)
    notify(state.listeners, HeldOutDecision("speed on a CPU", sentences))
    sections = {**state.sections, SPEED: describe_speed(decision.finding)}
    state = state.with_findings(speed=decision.finding)
    return replace(state, sections=sections)


def _leave_speed(state: CalibrationState, reason: str) -> CalibrationState:
    """Say why nothing new is decided."""
    message = f"how fast a CPU may compute the network is not decided: {reason}"
    notify(state.listeners, Notice(message))
    return state


def _share_out(cases: LabelledCases) -> tuple[LabelledCases, LabelledCases]:
    """Return cases to measure the ranges of activations on, and the others, which decide."""
    positions = range(len(cases.cases))
    ranges = positions[::_RANGES_EVERY]
    deciding = [each for each in positions if each not in ranges]
    return cases.keep(ranges[:_MOST_RANGES]), cases.keep(deciding)


def _are_own_cases(state: CalibrationState) -> bool:
    """Tell whether the bundle was validated on all of the cases when it was trained."""
    return set(state.cases.ids) <= set(state.own)


def decide_by_scores(state: CalibrationState) -> CalibrationState:
    """Score the cases, decide on the largest components where that is asked for, and calibrate.

    Raises:
        DatasetError: If too few of the results can be scored.
    """
    spec = state.bundle.spec
    held_out = _score(state)
    unknown = list_unknown_labels(state.cases, spec)
    held_out = held_out.without_labels(unknown)
    decided = decide(held_out, spec)
    if decided.quality is None:
        raise DatasetError(
            "too few of the results hold anything that can be scored, so nothing is known of what "
            "an estimate means; give more cases that hold the bundle's labels"
        )
    finding = decided.keep_largest
    sections = dict(state.sections)
    if finding is not None and finding.labels:
        sections["Postprocessing"] = describe_postprocessing(finding)
        decision = HeldOutDecision(
            "largest connected component", explain(finding)
        )
        notify(state.listeners, decision)
    calibrated = CalibratedSpec(
        cases=len(state.cases.cases),
        data_fingerprint=state.cases.fingerprint,
        calibrated_with=f"medseg {importlib.metadata.version('medseg')}",
    )
    sections |= describe_calibration(
        decided.quality,
        calibrated,
        compute_statistics(decided.results.cases),
        unknown,
    )
    findings: dict[str, Any] = {"quality": decided.quality}
    if state.decides_largest:
        findings["keep_largest"] = finding
    state = state.with_findings(**findings, calibrated=calibrated)
    metrics = {**state.metrics, **_list_metrics(decided, calibrated)}
    return replace(state, sections=sections, metrics=metrics)


STEPS: tuple[CalibrationStep, ...] = (
    begin_calibration,
    measure_cases,
    decide_on_speed,
    decide_by_scores,
)
"""What a calibration does, in this order."""


def run_calibration(state: CalibrationState) -> CalibrationState:
    """Take every step."""
    for step in STEPS:
        state = step(state)
    return state


def list_unknown_labels(cases: LabelledCases, spec: BundleSpec) -> list[str]:
    """Return the structures of which no case holds a voxel: nobody may have drawn them."""
    names = []
    for region in spec.label_set.regions:
        if cases.present.isdisjoint(region.labels):
            names.append(region.name)
    return names


def _score(state: CalibrationState) -> HeldOutResults:
    """Score the cases, from where an earlier call left it."""
    cases = state.cases
    bundle = state.bundle
    if not state.decides_largest:
        as_decided = Bundle(bundle.decided, bundle.folder)
        bundle = with_trained(as_decided, bundle.trained)
    copies = count_corrupted_copies(bundle.spec, len(cases.cases))
    task = state.journal.resume(_SCORING, _make_key(bundle, cases, copies))
    known = []
    for piece in task.done:
        known.append([results_from_json(content) for content in piece])
    return score_bundle(
        bundle,
        HeldOutCases(cases.cases, cases.ids, cases.spec),
        state.device,
        copies=copies,
        listeners=state.listeners,
        known=known,
        keep=partial(_note, task),
    )


def _make_key(bundle: Bundle, cases: LabelledCases, copies: int) -> str:
    """Return a hash of all that the scores follow from."""
    files = [make_entry_key(case, cases.spec) for case in cases.cases]
    postprocessings = repr(list_postprocessings(bundle.spec))
    version = importlib.metadata.version("medseg")
    texts = [hash_bundle(bundle), version, str(copies), postprocessings]
    return hash_texts([*texts, *cases.ids, *files])


def _note(task: JournalTask, results: ByPostprocessing) -> None:
    task.add([results_to_json(result) for result in results])


def _list_metrics(
    decided: HeldOutDecisions, calibrated: CalibratedSpec
) -> dict[str, Any]:
    quality = decided.quality
    assert quality is not None
    results = decided.results
    return {
        **calibrated.model_dump(mode="json", exclude={"cases"}),
        "coverage": quality.coverage,
        "review_below": quality.review_below,
        "scores": summarise(results.cases),
        **results_to_json(results),
    }
