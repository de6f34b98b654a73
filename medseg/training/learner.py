"""Supervised training: MONAI's trainer and evaluator, put together from the bundle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator, SupervisedTrainer, Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medseg.bundle.spec import BundleSpec, TrainingSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import CheckpointError
from medseg.events import Listener
from medseg.labels import LabelSet
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import summarise
from medseg.networks.decoding import painting_of
from medseg.networks.inferers import Autocast, training_inferer, window_inferer
from medseg.networks.training_precision import choose_training_precisions
from medseg.networks.unet import Supervised, build_network
from medseg.preprocessing.transforms import IMAGE, LABEL, get_padding_value
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.handlers import (
    AtSteps,
    EverySteps,
    GradientClip,
    LearningRate,
    StepReport,
    StepSeed,
    StopOnNan,
    WeightAverage,
)
from medseg.training.losses import build_loss
from medseg.training.patches import PatchBatches

Scores = Mapping[str, Mapping[str, float]]

DEVICE_SHARE = 0.5
"""Share of a GPU's free memory that training cases may take to live there."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found.

    Attributes:
        scores: ``metric → label → mean over cases``.
        cases: The scores of each case.
        examples: Case id → predicted label indices ``(x, y, z)``, for the first few cases.
    """

    scores: Scores
    cases: Sequence[CaseScores]
    examples: Mapping[str, torch.Tensor]


class Learner:
    """A network, its optimiser and its data: one training, step by step.

    Args:
        spec: The bundle.
        cases: Training cases.
        device: Where to compute.
        listeners: Told about every step.
        group: The processes that train together.
        initial_weights: Weights to start from, where not from chance alone.
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
        self._spec, self._device, self._listeners = spec, device, listeners
        self._precision = choose_training_precisions(spec, device).network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            self.network = build_network(spec).to(device)
        if initial_weights is not None:
            initial_weights.load_into(self.network)
        if device.type == "cuda":
            self.network.to(memory_format=_channels_last(spec))  # type: ignore[call-overload]
        self._supervised: nn.Module = Supervised(self.network)
        if group.size > 1:
            self._supervised = DistributedDataParallel(self._supervised)
        self._optimizer = build_optimizer(self.network, training)
        self._average = WeightAverage(self.network, training.ema) if training.ema else None
        self._loss = build_loss(spec)
        self.batches = PatchBatches(
            on_device(cases, device),
            training,
            dims=spec.network.dims,
            padding=get_padding_value(spec),
            device=device,
            group=group,
        )
        self._scaler: torch.amp.GradScaler | None = None
        self._scale: dict[str, Any] | None = None
        self.step = 0

    @property
    def spec(self) -> BundleSpec:
        """The bundle, with the steps that the training is set to take by now."""
        return self._spec

    def shorten(self, steps: int) -> None:
        """Set the training to end after fewer steps, from within ``save`` or ``look``.

        The learning rate goes on along the shorter schedule. A training restored from what was
        saved then, with the bundle as it is then, takes the same steps; so whoever shortens it
        saves it at the same step.

        Args:
            steps: More than are done, and than the warm-up takes.
        """
        shorter = self._spec.training.model_copy(update={"steps": steps})
        self._spec = self._spec.model_copy(update={"training": shorter})

    @property
    def best_guess(self) -> nn.Module:
        """The network to validate and keep: the averaged one where the bundle wants it."""
        return self._average.averaged.module if self._average else self.network

    def learn(
        self,
        *,
        validate: Callable[[int], bool],
        save: Callable[[int], None],
        look: Callable[[int], None] | None = None,
        keep: Callable[[int], None] | None = None,
        keep_after: Sequence[int] = (),
    ) -> bool:
        """Take the steps that are left.

        Args:
            validate: Called with the steps done when a validation is due; returns whether to
                go on.
            save: Called with the steps done when a checkpoint is due; may shorten the training.
            look: Called with the steps done after every step, when all else is done; may shorten
                the training.
            keep: Called with the steps done where their number is in ``keep_after``.
            keep_after: After which steps.

        Returns:
            Whether ``validate`` ended the training before its last step.

        Raises:
            TrainingError: If the loss becomes no number.
        """
        stopped = False
        while self.step < self._spec.training.steps and not stopped:
            # Once more for each time that the training is shortened, as if it were resumed.
            stopped = self._learn(validate, save, look, keep, keep_after)
        return stopped

    def _learn(
        self,
        validate: Callable[[int], bool],
        save: Callable[[int], None],
        look: Callable[[int], None] | None,
        keep: Callable[[int], None] | None,
        keep_after: Sequence[int],
    ) -> bool:
        training = self._spec.training
        stopped = False

        def validate_or_stop(step: int) -> None:
            nonlocal stopped
            self.step = step
            if not validate(step):
                stopped = step < training.steps
                trainer.terminate()

        def save_or_look(act: Callable[[int], None], step: int) -> None:
            self.step = step
            act(step)
            if self._spec.training is not training:
                trainer.terminate()

        handlers: list[Any] = [
            StepSeed(training.seed),
            LearningRate(training),
            StopOnNan(),
            *([GradientClip(training.gradient_clip)] if training.gradient_clip else []),
            *([self._average] if self._average else []),
            StepReport(self.parts, self._listeners),
            *([AtSteps(keep_after, keep)] if keep else []),
            EverySteps(training.validate_every, training.steps, validate_or_stop),
            EverySteps(training.checkpoint_every, training.steps, partial(save_or_look, save)),
            *([EverySteps(1, training.steps, partial(save_or_look, look))] if look else []),
        ]
        self.batches.first = self.step + 1
        trainer = self._trainer(handlers)
        continue_after(trainer, self.step, training.steps)
        trainer.run()
        self._scale = self._scaler.state_dict() if self._scaler else None
        return stopped

    def parts(self) -> Mapping[str, torch.Tensor]:
        """Return the parts of the last step's loss, before weighting."""
        return self._loss.parts

    def _trainer(self, handlers: Sequence[Any]) -> Trainer:
        half = self._precision == torch.float16
        trainer = SupervisedTrainer(
            device=self._device,
            max_epochs=1,
            epoch_length=self._spec.training.steps,
            train_data_loader=self.batches,
            network=self._supervised,
            optimizer=self._optimizer,
            loss_function=self._loss,
            inferer=training_inferer(self._device, self._precision),
            train_handlers=handlers,
            decollate=False,
            optim_set_to_none=True,
            amp=half,
            amp_kwargs={"dtype": torch.float16} if half else {},
        )
        if half:
            self._scaler = trainer.scaler
            if self._scale is not None:
                trainer.scaler.load_state_dict(self._scale)
        return trainer

    def validate(self, cases: Sequence[CachedCase], examples: int = 0) -> Validation:
        """Segment cases by sliding window and score them, on the network's grid.

        Args:
            cases: Validation cases.
            examples: Of how many to keep the prediction.
        """
        metric = CaseMetric(self._spec.label_set, cases, examples)
        evaluator = SupervisedEvaluator(
            device=self._device,
            val_data_loader=_Whole(cases),
            network=self.best_guess,
            inferer=Autocast(window_inferer(self._spec), self._device, self._precision),
            key_val_metric={"dice": metric},
            decollate=False,
        )
        evaluator.logger.setLevel(logging.CRITICAL)
        evaluator.run()
        return Validation(summarise(metric.scores), tuple(metric.scores), dict(metric.examples))

    def state(self) -> dict[str, Any]:
        """Return all that going on needs: tensors and plain values only."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.averaged.state_dict() if self._average else None,
            "scale": self._scaler.state_dict() if self._scaler else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            CheckpointError: If it is of another network.
        """
        try:
            self.network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._average:
                self._average.averaged.load_state_dict(state["average"])
            self._scale = state["scale"]
            self.step = int(state["step"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this bundle: {error}") from error


def continue_after(trainer: Trainer, step: int, steps: int) -> None:
    """Let a trainer whose one epoch has so many steps go on after a step."""
    # MONAI and ignite log to stderr on their own; events say the same to whoever listens.
    trainer.logger.setLevel(logging.CRITICAL)
    trainer.load_state_dict({"iteration": step, "max_epochs": 1, "epoch_length": steps})


class CaseMetric(Metric):  # type: ignore[misc]
    """Scores whole cases as the evaluator segments them; its value is the mean Dice."""

    def __init__(self, labels: LabelSet, cases: Sequence[CachedCase], examples: int = 0) -> None:
        self._labels, self._cases, self._wanted = labels, cases, examples
        self._painting = painting_of(labels)
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]))

    def reset(self) -> None:
        """Forget every case."""
        self.scores: list[CaseScores] = []
        self.examples: dict[str, torch.Tensor] = {}

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Score one case: logits and label, each with a batch axis of 1."""
        case = self._cases[len(self.scores)]
        winners = self._painting.compare(output[0][0]).winners.to(torch.int32).cpu()
        prediction = self._painting.labels(winners.numpy())
        reference = output[1][0, 0].to(torch.int32).cpu()
        self.scores.append(
            score_case(
                prediction,
                reference.numpy(),
                self._labels,
                case.spacing,
                case=case.case_id,
            )
        )
        if len(self.examples) < self._wanted:
            self.examples[case.case_id] = torch.from_numpy(prediction)

    def compute(self) -> float:
        """Return the mean Dice over labels and cases."""
        return summarise(self.scores)["dice"]["mean"]


class _Whole:
    """Whole cases as batches of one, opened when their turn comes."""

    def __init__(self, cases: Sequence[CachedCase]) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for case in self._cases:
            yield {IMAGE: case.image[None].float(), LABEL: case.label[None].long()}


def build_optimizer(network: nn.Module, training: TrainingSpec) -> torch.optim.Optimizer:
    """Return the bundle's optimiser over a network's weights."""
    if training.optimizer == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        lr=training.learning_rate,
        momentum=0.99,
        nesterov=True,
        weight_decay=training.weight_decay,
    )


def on_device(cases: Sequence[CachedCase], device: torch.device) -> Sequence[CachedCase]:
    """Move the cases onto a GPU if they fit there with room to spare; else leave them on disk."""
    if device.type != "cuda":
        return cases
    free, _ = torch.cuda.mem_get_info(device)
    if sum(case.nbytes for case in cases) > DEVICE_SHARE * free:
        return cases
    return [case.to(device) for case in cases]


def _channels_last(spec: BundleSpec) -> torch.memory_format:
    return torch.channels_last if spec.network.dims == 2 else torch.channels_last_3d
