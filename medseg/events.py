"""What happens during a training run or a batch, as small records.

A command sends these to the listeners it was given: the terminal, MLflow, files and MONAI Label
each are one listener. Nothing else in medseg prints or tracks.

A listener that records, or sends to other machines, takes only fields that name nobody. The text
of a ``Notice`` and the file names of ``pictures`` are for the person at the terminal alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """Base of every record."""


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Part ``done`` of ``total`` of a task (checking, preprocessing, segmenting).

    Attributes:
        note: What else a person may want to see of it.
    """

    task: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class BatchStarted(Event):
    """A batch begins, now that its scans are found.

    Attributes:
        total: How many scans there are to work on.
        skipped: How many are not asked for.
        title: What they are segmented with: the bundle's name and version.
    """

    total: int
    skipped: int
    title: str


@dataclass(frozen=True, slots=True)
class ScanDone(Event):
    """One scan of a batch, or one case of an evaluation or a review, is done with.

    Attributes:
        name: What results call it.
        state: ``done``, ``skipped``, ``failed`` or ``error``, as in the ledger.
        what: Why it has no result, or what a person should know of it. May be recorded, so it
            holds no path and no text of a header.
        seconds: How long it took; ``None`` where that was not measured.
    """

    name: str
    state: str
    what: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something a person should know, though the work goes on; may name files and cases."""

    message: str


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A training run begins, or continues after an interruption.

    Attributes:
        folder: The run folder.
        run_id: Identifies this training run for good, across resumes.
        name: The bundle's name.
        experiment: Under which tracked experiment the run belongs.
        parameters: The resolved bundle, flattened to ``section.field`` → text.
        provenance: Versions, git state, device, fingerprint of the data; no patient names.
        resumed_at: The step a resumed run continues from, ``None`` for a fresh run.
        total_steps: How many optimiser steps the run is set to take.
        description: What the bundle segments, for people; no paths and no patient names.
    """

    folder: Path
    run_id: str
    name: str
    experiment: str
    parameters: Mapping[str, str]
    provenance: Mapping[str, str]
    resumed_at: int | None
    total_steps: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class FineTuningStarted(Event):
    """A training run starts from the weights of a trained bundle.

    Attributes:
        name: That bundle's name.
        decisions: What was taken over and what starts afresh, one sentence each.
    """

    name: str
    decisions: Sequence[str]


@dataclass(frozen=True, slots=True)
class TimeBudgetFitted(Event):
    """The steps of a training run were fitted to its time budget.

    Attributes:
        minutes: The budget, in wall-clock time.
        steps: How many fit.
        step_seconds: How long one takes, as measured.
    """

    minutes: float
    steps: int
    step_seconds: float


@dataclass(frozen=True, slots=True)
class ScheduleShortened(Event):
    """The machine became slower, and the training run takes fewer steps to keep its budget.

    Attributes:
        steps: How many in all.
    """

    steps: int


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One optimiser step.

    Attributes:
        step: Steps done so far, 1-based.
        loss: The total loss of this step's batch.
        parts: Loss term (``dice``, ``ce``) → its value before weighting.
        learning_rate: The rate this step used.
    """

    step: int
    loss: float
    parts: Mapping[str, float]
    learning_rate: float


@dataclass(frozen=True, slots=True)
class ValidationDone(Event):
    """The validation cases were segmented and scored.

    Attributes:
        step: Steps done before this validation.
        scores: ``metric → label name → mean over cases``; metrics are ``dice``, ``iou``,
            ``hd95`` (mm) and ``nsd``. The label name ``mean`` is the mean over labels.
        is_best: Whether these are the best weights so far (highest mean Dice).
        pictures: Files written for people: curves, previews.
    """

    step: int
    scores: Mapping[str, Mapping[str, float]]
    is_best: bool
    pictures: Sequence[Path] = field(default=())


@dataclass(frozen=True, slots=True)
class HeldOutDecision(Event):
    """Held-out cases decided how results are made.

    Attributes:
        what: What was decided.
        decisions: What came of it and why, one sentence each.
    """

    what: str
    decisions: Sequence[str]


@dataclass(frozen=True, slots=True)
class CrossValidationDone(Event):
    """Every fold is trained.

    Attributes:
        rows: Dice per fold and label as a table of texts, its heading first.
    """

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class FoldEvent(Event):
    """Something happened in one of the folds that are trained side by side.

    Attributes:
        fold: Its number.
        event: What.
    """

    fold: int
    event: Event


@dataclass(frozen=True, slots=True)
class RunDone(Event):
    """A training run ended well and its trained bundle is complete.

    Attributes:
        folder: The trained bundle.
        scores: Final scores of the best weights, ``metric → label name → mean over cases``.
        stopped_early: Whether it ended before its last step because nothing improved.
    """

    folder: Path
    scores: Mapping[str, Mapping[str, float]]
    stopped_early: bool = False


@dataclass(frozen=True, slots=True)
class RunFailed(Event):
    """A training run ended by an error, or was interrupted by the user.

    Attributes:
        message: Why. May be recorded and sent to servers, so it holds no path, no name and no
            text of a foreign error: it is what ``errors.recordable_text`` returns.
        interrupted: Whether the user ended it.
    """

    message: str
    interrupted: bool = False


class Listener(Protocol):
    """Whoever wants to hear what happens; called in the thread that does the work."""

    def __call__(self, event: Event) -> None:
        """Handle one event."""


def notify(listeners: Iterable[Listener], event: Event) -> None:
    """Send ``event`` to each listener, in the order given."""
    for listener in listeners:
        listener(event)


class _Case(Protocol):
    """A case with a result."""

    @property
    def case(self) -> str:
        """Its name."""


class _Fault(Protocol):
    """A case without one."""

    @property
    def where(self) -> str:
        """Its name."""

    @property
    def what(self) -> str:
        """Why; holds no path and no text of a header."""


def notify_outcomes(
    listeners: Sequence[Listener],
    cases: Iterable[_Case],
    faults: Iterable[_Fault],
) -> None:
    """Tell what became of cases that were worked on together."""
    for case in cases:
        notify(listeners, ScanDone(case.case, "done"))
    for fault in faults:
        notify(listeners, ScanDone(fault.where, "failed", fault.what))
