"""Validations, checkpoints, snapshots and the clock between the steps of a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support.bundles import made_spec
from support.sessions import made_session

from medseg.bundle.bundle import load_bundle
from medseg.bundle.weights import load_weights
from medseg.events import Event, ScheduleShortened, StepDone, ValidationDone
from medseg.networks.building import select_inference_weights
from medseg.training.history import TrainingHistory
from medseg.training.learner import Learner
from medseg.training.loop import TrainingLoop
from medseg.training.session import TrainingSession
from medseg.training.speed import TrainingSpeed
from medseg.training.time_budget import TimeBudget

SHORT = {
    "steps": 6,
    "validate_every": 3,
    "checkpoint_every": 4,
    "patch": [8, 8, 8],
}


class Trained:
    """A session after its training loop."""

    def __init__(self, session: TrainingSession) -> None:
        self.events: list[Event] = []
        self.saved_when_shortened: int | None = None
        self.session = replace(session, listeners=[self.listen])
        self.history = TrainingHistory("made_up")
        listeners = [self.history, self.listen]
        self.learner: Learner = self.session.build_learner(listeners, None)
        self.stopped = TrainingLoop(
            self.session, self.learner, self.history
        ).run()

    def listen(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ScheduleShortened):
            checkpoint = self.session.run.folder.load_checkpoint() or {
                "learner": {"step": None}
            }
            self.saved_when_shortened = checkpoint["learner"]["step"]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def saved(self) -> dict[str, torch.Tensor]:
        return load_weights(self.session.run.folder.weights)


def equal(one: dict[str, torch.Tensor], other: Any) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_saved_weights_are_those_of_the_moving_average(tmp_path: Path) -> None:
    spec = made_spec(training={**SHORT, "ema": 0.9, "optimizer": "adamw"})
    trained = Trained(made_session(tmp_path, spec, validation=0))
    averaged = select_inference_weights(trained.learner.inference_network, spec)
    raw = select_inference_weights(trained.learner.network, spec)
    assert equal(trained.saved, averaged)
    assert not equal(trained.saved, raw)


def test_the_best_weights_are_kept_and_each_validation_is_reported(
    tmp_path: Path,
) -> None:
    trained = Trained(
        made_session(tmp_path, made_spec(training=SHORT), validation=1)
    )
    validations = trained.of(ValidationDone)
    assert [event.step for event in validations] == [3, 6]
    assert [step for step, _ in trained.history.validations] == [3, 6]
    assert all(
        picture.is_file() for event in validations for picture in event.pictures
    )
    best = [event for event in validations if event.is_best][-1]
    assert best.step == trained.history.best_step
    assert not trained.stopped


def test_a_checkpoint_holds_the_learner_and_the_history(tmp_path: Path) -> None:
    trained = Trained(
        made_session(tmp_path, made_spec(training=SHORT), validation=0)
    )
    checkpoint = trained.session.run.folder.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint["learner"]["step"] == 6
    assert checkpoint["record"]["steps"][:, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_training_stops_when_validations_bring_nothing_better(
    tmp_path: Path,
) -> None:
    still = {
        **SHORT,
        "validate_every": 1,
        "patience": 1,
        "learning_rate": 1e-300,  # 0 in float32: no weight changes
    }
    trained = Trained(
        made_session(tmp_path, made_spec(training=still), validation=1)
    )
    assert len(trained.of(ValidationDone)) == 2
    assert trained.stopped
    again = TrainingLoop(trained.session, trained.learner, trained.history)
    assert again.run()  # a resumed run takes no further step
    assert len(trained.of(StepDone)) == 2


def test_snapshots_are_kept_for_the_stage_that_needs_them(
    tmp_path: Path,
) -> None:
    spec = made_spec(
        training=SHORT,
        refinement={"adversarial_weight": 0, "bank": {"snapshots": 2}},
    )
    trained = Trained(made_session(tmp_path, spec, validation=0))
    folder = trained.session.run.folder
    kept = sorted(
        file.name for file in folder.checkpoint.parent.glob("snapshot_*")
    )
    assert kept == [folder.snapshot(1).name, folder.snapshot(3).name]


def test_a_run_that_is_late_is_shortened_at_a_checkpoint_of_its_own(
    tmp_path: Path,
) -> None:
    long = {
        **SHORT,
        "steps": 400,
        "validate_every": 400,
        "checkpoint_every": 400,
    }
    session = made_session(tmp_path, made_spec(training=long), validation=0)
    # All must have been done long ago.
    budget = TimeBudget(
        session.spec, TrainingSpeed(step=0.0, validation=0.0), ends=0.0
    )
    trained = Trained(replace(session, time_budget=budget))
    (event,) = trained.of(ScheduleShortened)
    assert event.steps < 400
    # The step at which it was shortened; at least one more follows.
    assert trained.saved_when_shortened is not None
    assert trained.saved_when_shortened < event.steps
    assert [step.step for step in trained.of(StepDone)] == list(
        range(1, event.steps + 1)
    )
    folder = trained.session.run.folder
    assert load_bundle(folder.bundle).spec.training.steps == event.steps
    assert trained.learner.spec.training.steps == event.steps
    rates = [step.learning_rate for step in trained.of(StepDone)]
    assert rates[-1] < rates[-2]


def test_without_held_out_cases_the_last_weights_are_kept(
    tmp_path: Path,
) -> None:
    spec = made_spec(training=SHORT)
    trained = Trained(made_session(tmp_path, spec, validation=0))
    assert equal(
        trained.saved, select_inference_weights(trained.learner.network, spec)
    )
    assert trained.of(ValidationDone) == []
