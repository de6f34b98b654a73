"""The training report: everything a finished training run found.

``metrics.json`` is written from it, for programs, and the model card reads it, for people.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medseg._support.json_values import nan_to_none
from medseg.bundle.spec import (
    KeepLargestFinding,
    QualityFinding,
    SpeedFinding,
    ValidatedRange,
)
from medseg.errors import CheckpointError
from medseg.metrics.metrics import CaseScores, LabelScores
from medseg.metrics.statistics import Statistic, compute_statistics, summarise
from medseg.quality.calibration import CalibrationSample
from medseg.training.history import Scores
from medseg.training.keep_largest import (
    NOTHING_HELD_OUT,
    CaseResults,
    HeldOutResults,
)
from medseg.training.lineage import Lineage
from medseg.training.run_folder import RunFolder
from medseg.training.runs import Fold
from medseg.training.stages import StageResult

LEARNED_FROM = "learned_from"
"""The key of ``metrics.json`` for the ids of cases that a bundle learned from."""
LEARNED_DATA_SETS = "learned_data_sets"
"""The key for hashes of the ``dataset.json`` of data sets that imported weights learned from."""
KNOWN_TO_PARENT = "held_out_known_to_parent"
"""The key for how many held-out cases the weights that a run began with had learned from."""
UNKNOWN_CASES = "unknown"
"""Stands among these ids where the bundle began with weights that have no record of theirs."""

Statistics = Mapping[str, Mapping[str, Statistic]]
"""``metric → label → statistic over cases``."""


@dataclass(frozen=True, slots=True)
class FoldSummary:
    """What the run of one fold of a cross-validation found, in short.

    Attributes:
        fold: Its number.
        cases: How many cases were held out.
        best_step: The step whose weights were kept.
        dice: Label → Dice over its held-out cases, ``mean`` among the labels.
    """

    fold: Fold
    cases: int
    best_step: int
    dice: Mapping[str, Statistic]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a finished training run found.

    Attributes:
        fold: The held-out fold, ``all``, or ``None``.
        training_cases: How many cases the network learned from.
        validation_cases: How many were held out.
        best_step: The step whose weights were kept.
        content_hash: Hash of the data's content.
        provenance: Versions, git state and device.
        held_out: Results of the held-out cases, on the scans' own grids.
        validations: Step and scores of each validation, on the network's grid.
        keep_largest: Of which labels results keep only the largest connected component, where
            held-out cases decided it.
        quality: What was learned about estimating the quality of results, if anything.
        lineage: The trained bundle it was fine-tuned from, if any.
        stages: What the run's further stages found.
        folds: The folds of a cross-validation.
        stopped_early: Whether training ended before its last step, as nothing improved.
        validated: What the training cases were like, where there were enough.
        made_up: Whether the data say of themselves that they are made up.
        speed: Which faster settings keep the Dice on a CPU, where held-out cases decided it.
        speed_unknown: Why they did not.
        learned_from: Ids of the cases that the network learned from, by which it is recognised
            where one of them is given to measure it on.
        learned_data_sets: Hashes of the ``dataset.json`` of data sets that the weights it began
            with had learned from, where other software trained them.
        known_to_parent: How many of the held-out cases these weights had learned from.
    """

    fold: Fold
    training_cases: int
    validation_cases: int
    best_step: int
    content_hash: str
    provenance: Mapping[str, str]
    held_out: HeldOutResults = NOTHING_HELD_OUT
    validations: Sequence[tuple[int, Scores]] = ()
    keep_largest: KeepLargestFinding | None = None
    quality: QualityFinding | None = None
    lineage: Lineage | None = None
    stages: Sequence[StageResult] = ()
    folds: Sequence[FoldSummary] = ()
    stopped_early: bool = False
    validated: ValidatedRange | None = None
    made_up: bool = False
    speed: SpeedFinding | None = None
    speed_unknown: str = ""
    learned_from: tuple[str, ...] = ()
    learned_data_sets: tuple[str, ...] = ()
    known_to_parent: int = 0

    @property
    def results(self) -> CaseResults:
        """Results of the held-out cases with the postprocessing that was decided."""
        return self.held_out.postprocessed(self.keep_largest)

    @property
    def scores(self) -> Scores:
        """Mean scores of the held-out cases; empty if there are none."""
        cases = self.results.cases
        return summarise(cases) if cases else {}

    @property
    def statistics(self) -> Statistics:
        """Statistics of the scores of the held-out cases."""
        return compute_statistics(self.results.cases)


def report_to_json(report: TrainingReport) -> str:
    """Return the text of ``metrics.json``."""
    validations = []
    for step, scores in report.validations:
        validations.append({"step": step, "scores": scores})
    content: dict[str, Any] = {
        "fold": report.fold,
        "training_cases": report.training_cases,
        "validation_cases": report.validation_cases,
        "best_step": report.best_step,
        "data_fingerprint": report.content_hash,
        LEARNED_FROM: list(report.learned_from),
        "from": None if report.lineage is None else report.lineage.published,
        "scores": report.scores,
        **results_to_json(report.results),
        "validations": validations,
        "provenance": dict(report.provenance),
    }
    if report.learned_data_sets:
        content[LEARNED_DATA_SETS] = list(report.learned_data_sets)
    if report.known_to_parent:
        content[KNOWN_TO_PARENT] = report.known_to_parent
    if report.folds:
        content["folds"] = [asdict(fold) for fold in report.folds]
    if report.held_out.largest is not None:
        # All folds of a cross-validation decide together, so each keeps both results.
        content["undecided"] = {
            "every_piece": results_to_json(report.held_out.requested),
            "largest_piece": results_to_json(report.held_out.largest),
        }
    return json.dumps(nan_to_none(content), indent=2) + "\n"


def results_to_json(results: CaseResults) -> dict[str, Any]:
    """Return scores and samples of cases as JSON knows them, NaN left as it is."""
    cases = []
    for case in results.cases:
        labels = {}
        for name, scores in case.labels.items():
            labels[name] = asdict(scores)
        cases.append({"case": case.case, "labels": labels})
    samples = [asdict(sample) for sample in results.samples]
    return {"cases": cases, "confidence": samples}


def read_report(folder: RunFolder) -> TrainingReport:
    """Read what a finished run found, as far as ``metrics.json`` holds it.

    Its held-out results are undecided: ``keep_largest`` is ``None``.

    Raises:
        CheckpointError: If ``metrics.json`` is damaged.
    """
    try:
        text = folder.metrics.read_text(encoding="utf-8")
        return _report_from_json(json.loads(text))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "metrics.json is damaged; remove the run's folder and resume, which trains this fold "
            "again",
            source=folder.metrics,
            detail=str(error),
        ) from error


def _report_from_json(content: Mapping[str, Any]) -> TrainingReport:
    return TrainingReport(
        fold=content["fold"],
        training_cases=int(content["training_cases"]),
        validation_cases=int(content["validation_cases"]),
        best_step=int(content["best_step"]),
        content_hash=content["data_fingerprint"],
        provenance=content["provenance"],
        held_out=_held_out_from_json(content),
        learned_from=tuple(content.get(LEARNED_FROM, ())),
        learned_data_sets=tuple(content.get(LEARNED_DATA_SETS, ())),
        known_to_parent=int(content.get(KNOWN_TO_PARENT, 0)),
    )


def _held_out_from_json(content: Mapping[str, Any]) -> HeldOutResults:
    undecided = content.get("undecided")
    if undecided is None:
        return HeldOutResults(results_from_json(content))
    return HeldOutResults(
        results_from_json(undecided["every_piece"]),
        results_from_json(undecided["largest_piece"]),
    )


def results_from_json(content: Mapping[str, Any]) -> CaseResults:
    """Return what ``results_to_json`` was given.

    Raises:
        KeyError: If a field is missing.
        TypeError: If one is of another kind.
        ValueError: If one is no number.
    """
    cases = [_case_from_json(case) for case in content["cases"]]
    samples = [_sample_from_json(sample) for sample in content["confidence"]]
    return CaseResults(cases, samples)


def _case_from_json(content: Mapping[str, Any]) -> CaseScores:
    labels = {}
    for name, fields in content["labels"].items():
        labels[name] = _label_from_json(fields)
    return CaseScores(labels, str(content["case"]))


def _label_from_json(content: Mapping[str, Any]) -> LabelScores:
    fields: dict[str, Any] = {}
    for name, value in content.items():
        fields[name] = _nan_if_null(value)
    return LabelScores(**fields)


def _sample_from_json(content: Mapping[str, Any]) -> CalibrationSample:
    scores_at = {}
    # Absent in results of versions that tried no other temperature.
    at_temperatures = content.get("scores_at", {})
    for temperature, scores in at_temperatures.items():
        scores_at[float(temperature)] = _floats(scores)
    return CalibrationSample(
        case=str(content["case"]),
        scores=_floats(content["scores"]),
        dice=_floats(content["dice"]),
        is_clean=bool(content["is_clean"]),
        scores_at=scores_at,
    )


def _floats(content: Mapping[str, Any]) -> dict[str, float]:
    values = {}
    for name, value in content.items():
        values[name] = float(_nan_if_null(value))
    return values


def _nan_if_null(value: Any) -> Any:
    return math.nan if value is None else value
