"""Training of the refiner, which learns to correct the masks of a network that is frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from medseg.bundle.spec import BundleSpec, RefinementSpec, TrainingSpec
from medseg.bundle.weights import Weights
from medseg.errors import CheckpointError
from medseg.events import Listener
from medseg.networks.gpu_arithmetic import training_arithmetic
from medseg.networks.refiner import build_refiner, get_trainable_part
from medseg.networks.training_precision import choose_training_precisions
from medseg.training.handlers import (
    EverySteps,
    GradientClip,
    LearningRate,
    StepReport,
    StepSeed,
    list_loss_checks,
)
from medseg.training.learner import continue_after
from medseg.training.losses import DeepSupervisionLoss, DiceCELoss, LossContext
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.mask_trainer import MaskTrainer


class RefinerTrainer:
    """A refiner, its optimiser, its pool of masks, and the critic it learns against, if any.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
        pool: Imperfect masks.
        device: Where to compute.
        listeners: Told about every step.

    Attributes:
        refining: The network that corrects: image and coarse logits → refined logits.
        critic: The critic and its optimiser; ``None`` where refinement is not adversarial.
        step: Steps taken so far.
    """

    def __init__(
        self,
        spec: BundleSpec,
        refinement: RefinementSpec,
        pool: MaskPool,
        device: torch.device,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._pool = pool
        self._device = device
        self._listeners = listeners
        self._precisions = choose_training_precisions(spec, device)
        self._steps_before = spec.training.steps
        self._schedule = _refiner_schedule(spec, refinement)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.training.seed)
            self.refining = build_refiner(spec).to(device)
        learned = get_trainable_part(self.refining).parameters()
        self._optimizer = torch.optim.AdamW(
            learned, lr=refinement.learning_rate
        )
        self._loss = _refiner_loss(spec, refinement)
        self.critic: CriticTrainer | None = None
        if refinement.has_critic:
            self.critic = CriticTrainer(
                spec, refinement, steps=refinement.steps, device=device
            )
        self._running: MaskTrainer | None = None
        self._report: StepReport | None = None
        self._scaler_states: dict[str, Any] | None = None
        self.step = 0

    def learn(
        self,
        save: Callable[[], None],
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the steps that are left.

        Args:
            save: Called when a checkpoint is due.
            after_step: Called after every step, when all else is done.

        Raises:
            TrainingError: If a loss is no longer finite.
        """
        steps = self._schedule.steps
        if self.step >= steps:
            return
        trainer = MaskTrainer(
            self._pool,
            network=self.refining,
            optimizer=self._optimizer,
            loss=self._loss,
            critic=self.critic,
            steps=steps,
            device=self._device,
            precision=self._precisions.refiner,
            critic_precision=self._precisions.critic,
            handlers=self._handlers(save, after_step),
        )
        if self._scaler_states is not None:
            trainer.restore_scalers(self._scaler_states)
        self._running = trainer
        self._pool.first = self.step + 1
        continue_after(trainer, self.step, steps)
        with training_arithmetic(self._device):
            trainer.run()
        self._read_losses()

    def _read_losses(self) -> None:
        """Read losses that still lie on the GPU, and notify listeners of their steps."""
        if self._report is not None:
            self._report.read()

    def _handlers(
        self, save: Callable[[], None], after_step: Callable[[], None]
    ) -> list[Any]:
        """Return the trainer's handlers, in running order."""
        schedule = self._schedule

        def call(action: Callable[[], None], step: int) -> None:
            self.step = step
            action()

        checks, steps_per_reading = list_loss_checks(self._device)
        self._report = StepReport(
            self._parts,
            self._listeners,
            before=self._steps_before,
            every=steps_per_reading,
        )
        handlers: list[Any] = [
            StepSeed(schedule.seed),
            LearningRate(schedule),
            *checks,
        ]
        if schedule.gradient_clip:
            handlers.append(GradientClip(schedule.gradient_clip))
        handlers += [
            self._report,
            EverySteps(
                schedule.checkpoint_every, schedule.steps, partial(call, save)
            ),
            EverySteps(1, schedule.steps, partial(call, after_step)),
        ]
        return handlers

    def _parts(self) -> dict[str, torch.Tensor]:
        if self.critic is None:
            return self._loss.parts
        return self._loss.parts | self.critic.parts

    @property
    def weights(self) -> Weights:
        """The weights that inference needs: those of the refiner and its scale."""
        return get_trainable_part(self.refining).state_dict()

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs: tensors and plain values only."""
        # First, so that whoever listens knows of every step up to this one.
        self._read_losses()
        scaler_states = self._scaler_states
        if self._running is not None:
            scaler_states = self._running.scaler_states()
        return {
            "step": self.step,
            "refiner": self.weights,
            "optimizer": self._optimizer.state_dict(),
            # Checkpoints have called it so since the first release.
            "opponent": self.critic.state() if self.critic else None,
            "scales": scaler_states,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            CheckpointError: If it belongs to another refiner.
        """
        try:
            get_trainable_part(self.refining).load_state_dict(state["refiner"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self.critic is not None:
                self.critic.restore(state["opponent"])
            self._scaler_states = state["scales"]
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                "the checkpoint's refiner does not fit this bundle; restore the bundle.json that "
                "the run began with, or start a new run",
                detail=str(error),
            ) from error


def _refiner_schedule(
    spec: BundleSpec, refinement: RefinementSpec
) -> TrainingSpec:
    """Return the training section as the refiner's steps follow it."""
    return spec.training.model_copy(
        update={
            "steps": refinement.steps,
            "learning_rate": refinement.learning_rate,
            "schedule": "cosine",
            "warmup_steps": 0,
        }
    )


def _refiner_loss(
    spec: BundleSpec, refinement: RefinementSpec
) -> DeepSupervisionLoss:
    context = LossContext(
        spec.label_set,
        spec.class_weights,
        dice_weight=refinement.dice_weight,
        ce_weight=1.0,
    )
    return DeepSupervisionLoss(DiceCELoss(context))
