"""From a session to trained weights: what holds the network, its optimiser and its cases.

All of that is gone when ``learn`` returns, so that the memory is there for what comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from medseg.events import FineTuningStarted, Notice, notify
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import CLICKS_TOLERANCE, TrainingHistory
from medseg.training.interruption import Interruption, catch_interruption
from medseg.training.leakage import (
    count_known_to_parent,
    explain_known_to_parent,
)
from medseg.training.learner import Learner
from medseg.training.loop import TrainingLoop
from medseg.training.run_record import run_started
from medseg.training.session import TrainingSession
from medseg.training.stages import StageResult, count_steps


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a training once its learner is gone; the weights are in the run's folder.

    Attributes:
        session: The session, with as many steps as were taken.
        history: What happened.
        stages: Results of the stages after the network's training.
        stopped_early: Whether the training ended before its last step.
        known_to_parent: How many held-out cases the weights that it started from knew already.
    """

    session: TrainingSession
    history: TrainingHistory
    stages: Sequence[StageResult]
    stopped_early: bool
    known_to_parent: int


def learn(
    session: TrainingSession,
    initial_weights: InitialWeights | None,
    provenance: Mapping[str, str],
) -> Learned:
    """Train the network in the main process, and run the further stages.

    Args:
        session: The session.
        initial_weights: Weights to start from; random ones unless given.
        provenance: What computes, and with which data.

    Raises:
        TrainingError: If the loss is no longer finite.
    """
    run = session.run
    learner, history, resumed_at = start_learner(session, initial_weights)
    total_steps = count_steps(session.spec, session.stages)
    started = run_started(run, provenance, total_steps, resumed_at)
    notify(session.listeners, started)
    if run.lineage is not None and resumed_at is None:
        started_from = FineTuningStarted(
            run.lineage.name, run.lineage.decisions
        )
        notify(session.listeners, started_from)
    known_to_parent = count_known_to_parent(
        session.dataset, run.lineage, run.data
    )
    if known_to_parent:
        notify(
            session.listeners, Notice(explain_known_to_parent(known_to_parent))
        )
    with _catch_interruption(session) as interruption:
        loop = TrainingLoop(session, learner, history, interruption)
        stopped_early = loop.run()
        session = session.with_spec(learner.spec)
        stages = session.run_stages(learner, history, interruption)
    return Learned(session, history, stages, stopped_early, known_to_parent)


def start_learner(
    session: TrainingSession, initial_weights: InitialWeights | None
) -> tuple[Learner, TrainingHistory, int | None]:
    """Build the learner, and return to the last checkpoint if there is one.

    Returns:
        The learner, the history, and the number of steps done if the run is resumed.
    """
    is_interactive = session.spec.training.clicks is not None
    tolerance = CLICKS_TOLERANCE if is_interactive else 0.0
    history = TrainingHistory(session.spec.name, tolerance)
    learner = session.build_learner(
        [history, *session.listeners], initial_weights
    )
    session.group.barrier()
    resumed_at = session.restore(learner, history)
    return learner, history, resumed_at


def _catch_interruption(
    session: TrainingSession,
) -> AbstractContextManager[Interruption]:
    """Let a run that is asked to stop save its last step first."""
    if session.group.size > 1:
        # Processes that stop after different steps would wait for each other.
        return nullcontext(Interruption())

    def announce() -> None:
        message = "stopping after this step; once more stops it at once"
        notify(session.listeners, Notice(message))

    return catch_interruption(announce)
