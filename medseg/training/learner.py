"""Supervised training of a network with MONAI's trainer, put together from the bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from monai.engines import SupervisedTrainer, Trainer
from monai.engines.workflow import Workflow
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medseg.bundle.spec import BundleSpec, TrainingSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import CheckpointError
from medseg.events import Listener
from medseg.networks.building import build_network
from medseg.networks.gpu_arithmetic import training_arithmetic
from medseg.networks.inferers import build_training_inferer
from medseg.networks.levels import SupervisedNetwork
from medseg.networks.training_precision import choose_training_precisions
from medseg.preprocessing.transforms import get_padding_value
from medseg.training.clicks import ClickSimulator
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.handlers import (
    AtSteps,
    EverySteps,
    GradientClip,
    LearningRate,
    StepReport,
    StepSeed,
    WeightAverage,
    list_loss_checks,
)
from medseg.training.losses import build_loss
from medseg.training.patches import AddInputs, PatchBatches
from medseg.training.validation import Validation, validate_network

GPU_MEMORY_SHARE = 0.5
"""Share of a GPU's free memory that training cases may take to be kept there."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What a learner calls between its steps, each with the number of steps done.

    Attributes:
        validate: Called when a validation is due; returns whether to continue.
        save: Called when a checkpoint is due; may shorten the training run.
        after_step: Called after every step, when all else is done; may shorten the training run.
        snapshot: Called after the steps in ``snapshot_steps``.
        snapshot_steps: After which steps.
    """

    validate: Callable[[int], bool]
    save: Callable[[int], None]
    after_step: Callable[[int], None] | None = None
    snapshot: Callable[[int], None] | None = None
    snapshot_steps: Sequence[int] = ()


class Learner:
    """A network, its optimiser and its data: one training run, step by step.

    Args:
        spec: The bundle.
        cases: Training cases.
        device: Where to compute.
        listeners: Notified of every step.
        group: The processes that train together.
        initial_weights: Weights to start from; random ones unless given.

    Attributes:
        network: The network, whose inference weights are among its own.
        batches: Where patches come from.
        step: The number of steps done.
    """

    def __init__(
        self,
        spec: BundleSpec,
        cases: Sequence[CachedCase],
        device: torch.device,
        listeners: Sequence[Listener] = (),
        group: ProcessGroup = SINGLE_PROCESS,
        initial_weights: InitialWeights | None = None,
    ) -> None:
        training = spec.training
        self._spec = spec
        self._device = device
        self._listeners = listeners
        self._precision = choose_training_precisions(spec, device).network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.network = build_network(spec).to(device)
        if initial_weights is not None:
            initial_weights.load_into(self.network)
        if device.type == "cuda":
            self.network.to(memory_format=_channels_last(spec))  # type: ignore[call-overload]
        self._supervised: nn.Module = SupervisedNetwork(self.network)
        if group.size > 1:
            self._supervised = DistributedDataParallel(self._supervised)
        self._optimizer = build_optimizer(self.network, training)
        self._average = None
        if training.ema:
            self._average = WeightAverage(self.network, training.ema)
        self._loss = build_loss(spec)
        self.batches = PatchBatches(
            move_to_gpu(cases, device),
            training,
            dims=spec.network.dims,
            padding=get_padding_value(spec),
            device=device,
            group=group,
            add_inputs=self._choose_inputs(),
        )
        self._report: StepReport | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._scale: dict[str, Any] | None = None
        self.step = 0

    @property
    def spec(self) -> BundleSpec:
        """The bundle, with the number of steps that the run is set to take by now."""
        return self._spec

    @property
    def inference_network(self) -> nn.Module:
        """The network to validate and save: the averaged one where the bundle uses an EMA."""
        if self._average is None:
            return self.network
        return self._average.averaged.module

    def shorten(self, steps: int) -> None:
        """Set the run to end after fewer steps, from within ``save`` or ``after_step``.

        The learning rate continues along the shorter schedule. A run restored from what was saved
        then, with the bundle as it is then, takes the same steps; so whoever shortens it saves a
        checkpoint at the same step.

        Args:
            steps: More than are done, and than the warm-up takes.
        """
        shorter = self._spec.training.model_copy(update={"steps": steps})
        self._spec = self._spec.model_copy(update={"training": shorter})

    def _choose_inputs(self) -> AddInputs | None:
        """Return what adds clicks to the patches, where the bundle is interactive."""
        if self._spec.training.clicks is None:
            return None
        forward = build_training_inferer(self._device, self._precision)
        return ClickSimulator(self.network, self._spec, forward)

    def learn(self, callbacks: Callbacks) -> bool:
        """Take the steps that are left.

        Returns:
            Whether ``callbacks.validate`` ended the training before its last step.

        Raises:
            TrainingError: If the loss is no longer finite.
        """
        stopped = False
        while self.step < self._spec.training.steps and not stopped:
            # Once more for each time that the run is shortened, as if it were resumed.
            stopped = self._learn_until_shortened(callbacks)
        return stopped

    def _learn_until_shortened(self, callbacks: Callbacks) -> bool:
        training = self._spec.training
        stopped = False

        def validate(step: int) -> None:
            nonlocal stopped
            self.step = step
            self._read_losses()
            if not callbacks.validate(step):
                stopped = step < training.steps
                trainer.terminate()

        def call(action: Callable[[int], None], step: int) -> None:
            self.step = step
            action(step)
            is_shortened = self._spec.training is not training
            if is_shortened:
                trainer.terminate()

        handlers = self._step_handlers(training)
        if callbacks.snapshot is not None:
            handlers.append(
                AtSteps(callbacks.snapshot_steps, callbacks.snapshot)
            )
        last = training.steps
        save = partial(call, callbacks.save)
        handlers.append(EverySteps(training.validate_every, last, validate))
        handlers.append(EverySteps(training.checkpoint_every, last, save))
        if callbacks.after_step is not None:
            after_step = partial(call, callbacks.after_step)
            handlers.append(EverySteps(1, last, after_step))
        self.batches.first = self.step + 1
        trainer = self._build_trainer(handlers)
        continue_after(trainer, self.step, training.steps)
        with training_arithmetic(self._device):
            trainer.run()
        self._read_losses()
        self._scale = self._get_scale()
        return stopped

    def _read_losses(self) -> None:
        """Read losses that still lie on the GPU, and notify listeners of their steps."""
        if self._report is not None:
            self._report.read()

    def _get_scale(self) -> dict[str, Any] | None:
        """Return the state of the scale of losses in fp16."""
        return (
            self._scale if self._scaler is None else self._scaler.state_dict()
        )

    def _step_handlers(self, training: TrainingSpec) -> list[Any]:
        """Return what is done around every step, in running order."""
        checks, steps_per_reading = list_loss_checks(self._device)
        handlers: list[Any] = [
            StepSeed(training.seed),
            LearningRate(training),
            *checks,
        ]
        if training.gradient_clip:
            handlers.append(GradientClip(training.gradient_clip))
        if self._average:
            handlers.append(self._average)
        self._report = StepReport(
            self.parts, self._listeners, every=steps_per_reading
        )
        handlers.append(self._report)
        return handlers

    def parts(self) -> Mapping[str, torch.Tensor]:
        """Return the parts of the last step's loss, before weighting."""
        return self._loss.parts

    def _build_trainer(self, handlers: Sequence[Any]) -> Trainer:
        uses_fp16 = self._precision == torch.float16
        trainer = _Trainer(
            device=self._device,
            max_epochs=1,
            epoch_length=self._spec.training.steps,
            train_data_loader=self.batches,
            network=self._supervised,
            optimizer=self._optimizer,
            loss_function=self._loss,
            inferer=build_training_inferer(self._device, self._precision),
            train_handlers=handlers,
            decollate=False,
            optim_set_to_none=True,
            amp=uses_fp16,
            amp_kwargs={"dtype": torch.float16} if uses_fp16 else {},
        )
        if uses_fp16:
            self._scaler = torch.amp.GradScaler(self._device.type)
            if self._scale is not None:
                self._scaler.load_state_dict(self._scale)
            trainer.scaler = self._scaler
        return trainer

    def validate(
        self, cases: Sequence[CachedCase], examples: int = 0
    ) -> Validation:
        """Segment and score cases with the inference network; see ``validate_network``."""
        return validate_network(
            self.inference_network,
            cases,
            self._spec,
            self._device,
            self._precision,
            examples=examples,
        )

    def state(self) -> dict[str, Any]:
        """Return all that a resume needs, as tensors and plain values."""
        # First, so that whoever listens knows of every step up to this one.
        self._read_losses()
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None
            if self._average is None
            else self._average.averaged.state_dict(),
            "scale": self._get_scale(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Return to a saved state.

        Raises:
            CheckpointError: If it belongs to another network.
        """
        try:
            self.network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._average:
                self._average.averaged.load_state_dict(state["average"])
            self._scale = state["scale"]
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                "the checkpoint does not fit this bundle; resume with the bundle it was made with",
                detail=str(error),
            ) from error


class _Trainer(SupervisedTrainer):  # type: ignore[misc]
    """MONAI's trainer, which goes on with the scale of losses that it is given."""

    def run(self) -> None:
        """Run; MONAI's own ``run`` would begin with another scale."""
        Workflow.run(self)


def continue_after(trainer: Trainer, step: int, steps: int) -> None:
    """Make a trainer continue after a step; its one epoch has as many steps as the run.

    Args:
        trainer: A trainer that has not run.
        step: The number of steps done.
        steps: The number of steps of the run.
    """
    # MONAI and ignite log to stderr; events say the same to those who listen.
    trainer.logger.setLevel(logging.CRITICAL)
    trainer.load_state_dict(
        {"iteration": step, "max_epochs": 1, "epoch_length": steps}
    )


def build_optimizer(
    network: nn.Module, training: TrainingSpec
) -> torch.optim.Optimizer:
    """Return the bundle's optimiser over a network's weights; on a GPU it is one kernel."""
    weights = list(network.parameters())
    is_fused = True if weights[0].device.type == "cuda" else None
    if training.optimizer == "adamw":
        return torch.optim.AdamW(
            weights,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=is_fused,
        )
    return torch.optim.SGD(
        weights,
        lr=training.learning_rate,
        momentum=0.99,
        nesterov=True,
        weight_decay=training.weight_decay,
        fused=is_fused,
    )


def move_to_gpu(
    cases: Sequence[CachedCase], device: torch.device
) -> Sequence[CachedCase]:
    """Move as many cases onto a GPU as fit with room to spare; the others stay on disk."""
    if device.type != "cuda":
        return cases
    free, _ = torch.cuda.mem_get_info(device)
    room = GPU_MEMORY_SHARE * free
    placed = []
    for case in cases:
        if case.nbytes <= room:
            room -= case.nbytes
            case = case.to(device)
        placed.append(case)
    return placed


def _channels_last(spec: BundleSpec) -> torch.memory_format:
    return (
        torch.channels_last
        if spec.network.dims == 2
        else torch.channels_last_3d
    )
