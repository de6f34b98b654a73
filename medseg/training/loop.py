"""The steps of a training, and what happens between them: validations, checkpoints, the clock."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.bundle.bundle import write_bundle
from medseg.datasets.dataset import Dataset
from medseg.events import Listener, ScheduleShortened, ValidationDone, notify
from medseg.metrics.statistics import summarise
from medseg.networks.unet import inference_weights
from medseg.plots.previews import PreviewCase, draw_cases, draw_curves
from medseg.training.distributed import ProcessGroup
from medseg.training.history import TrainingHistory
from medseg.training.learner import Learner, Validation
from medseg.training.refinement.stage import snapshot_steps
from medseg.training.runs import TrainingRun
from medseg.training.time_budget import TimeBudget

PREVIEWS = 4
"""Validation cases drawn after each validation."""


@dataclass(frozen=True, slots=True)
class TrainingLoop:
    """The steps of a training that are left; only the first process of a group writes and speaks.

    Attributes:
        training_run: The training run.
        learner: What learns.
        record: What is remembered of every step.
        dataset: Its cases.
        group: The processes that train together.
        listeners: Told of validations and of the clock.
        deadline: When it must end, where it has a time budget and was not resumed.
    """

    training_run: TrainingRun
    learner: Learner
    record: TrainingHistory
    dataset: Dataset
    group: ProcessGroup
    listeners: Sequence[Listener]
    deadline: TimeBudget | None

    def run(self) -> bool:
        """Take the steps; return whether training stopped early."""
        if self.record.has_stalled(self.training_run.spec.training.patience):
            return True
        if self.deadline is not None:
            self.deadline.start(time.monotonic())
        return self.learner.learn(
            validate=self._validate_and_agree,
            save=self._save,
            look=self._look,
            keep=self._keep,
            keep_after=snapshot_steps(self.training_run.spec),
        )

    def _validate_and_agree(self, step: int) -> bool:
        began = time.monotonic()
        goes_on = self._validate(step) if self.group.is_main else True
        if self.deadline is not None:
            self.deadline.validated(time.monotonic() - began)
        return self.group.broadcast("go on" if goes_on else "stop") == "go on"

    def _validate(self, step: int) -> bool:
        run, learner = self.training_run, self.learner
        if not self.dataset.validation:
            run.folder.save_weights(inference_weights(learner.best_guess, run.spec))
            return True
        found = learner.validate(self.dataset.validation, PREVIEWS)
        is_best = self.record.add_validation(step, found.scores)
        if is_best:
            run.folder.save_weights(inference_weights(learner.best_guess, run.spec))
        pictures = self._draw(found)
        notify(self.listeners, ValidationDone(step, found.scores, is_best, pictures))
        return not self.record.has_stalled(run.spec.training.patience)

    def _save(self, step: int) -> None:
        if self.group.is_main:
            state = {"learner": self.learner.state(), "record": self.record.state()}
            self.training_run.folder.save_checkpoint(state)

    def _look(self, done: int) -> None:
        """Look at the clock where it is time to, and take fewer steps if the machine is slower."""
        if self.deadline is None or not self.deadline.is_due(done):
            return
        steps = int(self.group.broadcast(str(self.deadline.steps(done, time.monotonic()))))
        training = self.learner.spec.training
        if steps == training.steps:
            return
        # Saved first, if it is not: what is resumed has taken the same steps at the same rates.
        if done % training.checkpoint_every:
            self._save(done)
        self.learner.shorten(steps)
        if self.group.is_main:
            write_bundle(self.learner.spec, self.training_run.folder.bundle)
        notify(self.listeners, ScheduleShortened(steps))

    def _keep(self, step: int) -> None:
        if self.group.is_main:
            weights = inference_weights(self.learner.best_guess, self.training_run.spec)
            self.training_run.folder.save_weights(weights, self.training_run.folder.snapshot(step))

    def _draw(self, found: Validation) -> list[Path]:
        folder = self.training_run.folder
        preview = folder.previews / "validation.png"
        draw_curves(folder.curves, self.record.curves)
        cases = {case.case_id: case for case in self.dataset.validation}
        scores = {scores.case: scores for scores in found.cases}
        shown = [
            PreviewCase(
                case=name,
                image=cases[name].image.float().numpy(),
                reference=cases[name].label[0].numpy(),
                prediction=prediction.numpy(),
                affine=np.diag([*cases[name].spacing, 1.0]),
                dice=summarise([scores[name]])["dice"]["mean"],
            )
            for name, prediction in found.examples.items()
        ]
        draw_cases(preview, shown, self.training_run.spec.label_set)
        return [folder.curves, preview]
