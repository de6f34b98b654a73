"""The training loop: a network's steps, and the validations and checkpoints between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medseg.bundle.spec_files import write_bundle
from medseg.datasets.cache import CachedCase
from medseg.events import ScheduleShortened, ValidationDone, notify
from medseg.metrics.metrics import CaseScores
from medseg.metrics.statistics import summarise
from medseg.networks.building import select_inference_weights
from medseg.plots.previews import PreviewCase, draw_cases, draw_curves
from medseg.preprocessing.grid import make_affine
from medseg.training.history import TrainingHistory
from medseg.training.interruption import Interruption
from medseg.training.learner import Callbacks, Learner
from medseg.training.session import TrainingSession
from medseg.training.stages import list_snapshot_steps
from medseg.training.validation import Validation
from medseg.volume import Affine, Array

MAX_PREVIEWS = 4
"""Validation cases drawn after each validation."""


@dataclass(frozen=True, slots=True)
class TrainingLoop:
    """Trains the network of a session to its end; only the main process writes and notifies.

    Attributes:
        session: The run, its cases and its processes.
        learner: The network and its optimiser.
        history: What happened so far.
        interruption: Whether the run was asked to stop.
    """

    session: TrainingSession
    learner: Learner
    history: TrainingHistory
    interruption: Interruption = field(default_factory=Interruption)

    def run(self) -> bool:
        """Take the steps that are left; return whether training stopped early."""
        session = self.session
        if self.history.has_stalled(session.spec.training.patience):
            return True
        if session.time_budget is not None:
            session.time_budget.start(time.monotonic())
        callbacks = Callbacks(
            validate=self._validate_and_agree,
            save=self._save_checkpoint,
            after_step=self._finish_step,
            snapshot=self._save_snapshot,
            snapshot_steps=list_snapshot_steps(session.stages),
        )
        return self.learner.learn(callbacks)

    def _validate_and_agree(self, step: int) -> bool:
        """Validate in the main process; return, in every process, whether to continue."""
        session = self.session
        began = time.monotonic()
        continues = True
        if session.group.is_main:
            continues = self._validate(step)
        if session.time_budget is not None:
            seconds = time.monotonic() - began
            session.time_budget.add_validation(seconds)
        return session.group.broadcast(continues)

    def _validate(self, step: int) -> bool:
        session = self.session
        cases = session.dataset.validation
        if not cases:
            self._save_weights()
            return True
        validation = self.learner.validate(cases, MAX_PREVIEWS)
        is_best = self.history.add_validation(step, validation.scores)
        if is_best:
            self._save_weights()
        pictures = self._draw(validation)
        event = ValidationDone(step, validation.scores, is_best, pictures)
        notify(session.listeners, event)
        return not self.history.has_stalled(session.spec.training.patience)

    def _save_weights(self, file: Path | None = None) -> None:
        network = self.learner.inference_network
        weights = select_inference_weights(network, self.session.spec)
        self.session.run.folder.save_weights(weights, file)

    def _save_checkpoint(self, step: int) -> None:
        if self.session.group.is_main:
            state = {
                "learner": self.learner.state(),
                "record": self.history.state(),
            }
            self.session.run.folder.save_checkpoint(state)

    def _save_snapshot(self, step: int) -> None:
        if self.session.group.is_main:
            file = self.session.run.folder.snapshot(step)
            self._save_weights(file)

    def _finish_step(self, done: int) -> None:
        self._check_clock(done)
        self.interruption.stop_if_requested(
            partial(self._save_checkpoint, done),
            self.session.run.folder.path,
            done,
        )

    def _check_clock(self, done: int) -> None:
        """Check the clock where it is due, and take fewer steps if the machine is slower."""
        session = self.session
        budget = session.time_budget
        if budget is None or not budget.is_due(done):
            return
        fitted = budget.fit_steps(done, time.monotonic())
        steps = session.group.broadcast(fitted)
        training = self.learner.spec.training
        if steps == training.steps:
            return
        # Saved first, if it is not: a resumed run must take the same steps at the same rates.
        if done % training.checkpoint_every:
            self._save_checkpoint(done)
        self.learner.shorten(steps)
        if session.group.is_main:
            write_bundle(self.learner.spec, session.run.folder.bundle)
        notify(session.listeners, ScheduleShortened(steps))

    def _draw(self, validation: Validation) -> list[Path]:
        folder, spec = self.session.run.folder, self.session.spec
        preview = folder.previews / "validation.png"
        draw_curves(folder.curves, self.history.curves)
        scores = {of_case.case: of_case for of_case in validation.cases}
        previews = []
        for case in self.session.dataset.validation:
            prediction = validation.examples.get(case.case_id)
            if prediction is not None:
                of_case = scores[case.case_id]
                affine = make_affine(case.spacing, spec.preprocessing)
                drawn = _preview(case, prediction.numpy(), of_case, affine)
                previews.append(drawn)
        draw_cases(preview, previews, spec.label_set)
        return [folder.curves, preview]


def _preview(
    case: CachedCase, prediction: Array, scores: CaseScores, affine: Affine
) -> PreviewCase:
    mean_scores = summarise([scores])
    return PreviewCase(
        case=case.case_id,
        image=case.image.float().numpy(),
        reference=case.label[0].numpy(),
        prediction=prediction,
        affine=affine,
        dice=mean_scores["dice"]["mean"],
    )
