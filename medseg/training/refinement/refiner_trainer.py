"""The second stage of a training: a refiner learns to correct the masks of a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.bundle.weights import Weights
from medseg.errors import CheckpointError
from medseg.events import Listener
from medseg.networks.devices import training_precision
from medseg.networks.refiner import build_refining, learned_part
from medseg.training.handlers import (
    EverySteps,
    GradientClip,
    LearningRate,
    StepReport,
    StepSeed,
    StopOnNan,
)
from medseg.training.learner import continue_after
from medseg.training.losses import SegmentationLoss
from medseg.training.refinement.adversarial import MaskTrainer
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_pool import MaskPool


class RefinerTrainer:
    """A refiner, its optimiser, its bank, and the critic it learns against if there is one.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
        bank: Imperfect masks.
        device: Where to compute.
        listeners: Told about every step.
    """

    def __init__(
        self,
        spec: BundleSpec,
        refinement: RefinementSpec,
        bank: MaskPool,
        device: torch.device,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._bank, self._device, self._listeners = bank, device, listeners
        self._precision = training_precision(spec, device)
        self._before = spec.training.steps
        self._stage = spec.training.model_copy(
            update={
                "steps": refinement.steps,
                "learning_rate": refinement.learning_rate,
                "schedule": "cosine",
                "warmup_steps": 0,
                "dice_weight": refinement.dice_weight,
                "ce_weight": 1.0,
            }
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.training.seed)
            self.refining = build_refining(spec).to(device)
        learned = learned_part(self.refining).parameters()
        self._optimizer = torch.optim.AdamW(learned, lr=refinement.learning_rate)
        self._loss = SegmentationLoss(self._stage, spec.label_set.ignore_index, spec.class_weights)
        self.critic = (
            CriticTrainer(spec, refinement, steps=refinement.steps, device=device)
            if refinement.has_critic
            else None
        )
        self._running: MaskTrainer | None = None
        self._scales: dict[str, Any] | None = None
        self.step = 0

    def learn(self, save: Callable[[], None]) -> None:
        """Take the steps that are left.

        Args:
            save: Called when a checkpoint is due.

        Raises:
            TrainingError: If a loss becomes no number.
        """
        stage = self._stage
        if self.step >= stage.steps:
            return

        def save_after(step: int) -> None:
            self.step = step
            save()

        handlers: list[Any] = [
            StepSeed(stage.seed),
            LearningRate(stage),
            StopOnNan(),
            *([GradientClip(stage.gradient_clip)] if stage.gradient_clip else []),
            StepReport(self._parts, self._listeners, before=self._before),
            EverySteps(stage.checkpoint_every, stage.steps, save_after),
        ]
        trainer = MaskTrainer(
            self._bank,
            network=self.refining,
            optimizer=self._optimizer,
            loss=self._loss,
            critic=self.critic,
            steps=stage.steps,
            device=self._device,
            precision=self._precision,
            handlers=handlers,
        )
        if self._scales is not None:
            trainer.restore_scales(self._scales)
        self._running = trainer
        self._bank.first = self.step + 1
        continue_after(trainer, self.step, stage.steps)
        trainer.run()

    def _parts(self) -> dict[str, torch.Tensor]:
        return self._loss.parts | (self.critic.parts if self.critic else {})

    @property
    def weights(self) -> Weights:
        """What was learned, for inference."""
        return learned_part(self.refining).state_dict()

    def state(self) -> dict[str, Any]:
        """Return all that going on needs: tensors and plain values only."""
        return {
            "step": self.step,
            "refiner": self.weights,
            "optimizer": self._optimizer.state_dict(),
            "opponent": self.critic.state() if self.critic else None,
            "scales": self._running.scales() if self._running else self._scales,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            CheckpointError: If it is of another refiner.
        """
        try:
            learned_part(self.refining).load_state_dict(state["refiner"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self.critic:
                self.critic.restore(state["opponent"])
            self._scales = state["scales"]
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this bundle: {error}") from error
