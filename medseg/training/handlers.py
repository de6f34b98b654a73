"""MONAI engine handlers for what happens around every optimiser step.

One "epoch" of the engine is the whole training run, so that each handler counts in steps and a
resumed run needs no special case.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedTrainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medseg.bundle.spec import TrainingSpec
from medseg.errors import TrainingError
from medseg.events import Listener, StepDone, notify

_HORIZONS_PER_RUN = 7
"""An average looks back on about this part of the steps done, until its decay limits it."""


CRITIC = "critic"
"""The part of a loss that is the critic's own."""

STEPS_PER_READING = 32
"""On a GPU the losses of so many steps are read at a time: each reading waits for all of them."""


class StepSeed:
    """Seed torch before every step, so that dropout depends on the seed and the step alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the step that is about to run."""
        # An odd multiplier keeps the streams of neighbouring seeds apart.
        seed = self._seed * 1_000_003 + engine.state.iteration
        torch.manual_seed(seed % 2**63)


class LearningRate:
    """Set the learning rate from the step alone, so that no scheduler state need be saved."""

    def __init__(self, training: TrainingSpec) -> None:
        self._training = training

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Set the rate of the step that is about to run."""
        for group in engine.optimizer.param_groups:
            group["lr"] = self.rate_at(engine.state.iteration)

    def rate_at(self, step: int) -> float:
        """Return the rate of a 1-based step.

        It rises linearly over the warm-up and then follows the schedule; ``poly`` is nnU-Net's,
        with the exponent 0.9 (Isensee et al. 2021, Nat Methods 18:203).
        """
        training = self._training
        warmup = training.rising_steps
        done = step - 1
        if done < warmup:
            return training.learning_rate * step / warmup
        after_warmup = training.steps - warmup
        progress = (done - warmup) / after_warmup
        match training.schedule:
            case "poly":
                factor = (1 - progress) ** 0.9
            case "cosine":
                angle = math.pi * progress
                factor = 0.5 * (1 + math.cos(angle))
            case "constant":
                factor = 1.0
        return float(training.learning_rate * factor)


class GradientClip:
    """Clip the norm of the gradient before the optimiser uses it."""

    def __init__(self, max_norm: float) -> None:
        self._max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip the gradients of this step, unscaled first where the loss was scaled."""
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        weights = engine.network.parameters()
        nn.utils.clip_grad_norm_(weights, self._max_norm)


class StopOnNan:
    """End a training run whose loss is no longer finite, naming the step."""

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of this step before it reaches the weights."""
        loss = engine.state.output["loss"].item()
        require_finite(loss, engine.state.iteration)


def require_finite(loss: float, step: int) -> None:
    """Refuse to go on with a loss that is no number any more.

    Raises:
        TrainingError: If it is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} at step {step}; lower training.learning_rate, or set "
            "training.precision to fp32, and resume"
        )


def require_finite_critic(critic_loss: float, step: int) -> None:
    """Refuse to go on with a critic whose loss is no number any more.

    Raises:
        TrainingError: If it is not finite.
    """
    if not math.isfinite(critic_loss):
        raise TrainingError(
            f"the critic's loss became {critic_loss} at step {step}; lower "
            "refinement.critic.learning_rate"
        )


class WeightAverage:
    """Keep an exponential moving average of the weights (Polyak and Juditsky, 1992).

    With a decay fixed from the start, a run that is shorter than the decay's horizon would be
    judged by its first weights. So the horizon grows with the steps done, up to the decay's.

    Args:
        network: The network in training.
        decay: How much of the former average each step keeps in the end, below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.averaged = AveragedModel(network)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Move the average towards the weights after this step."""
        # The count lies in the host's memory: looking at it keeps nobody waiting.
        done = int(self.averaged.n_averaged)
        averages = _list_tensors(self.averaged.module)
        current = _list_tensors(self._network)
        if done:
            _move_towards(averages, current, self.decay_at(done))
        else:
            # Copied, so that random weights are never part of the average.
            for average, weight in zip(averages, current, strict=True):
                average.copy_(weight)
        self.averaged.n_averaged += 1

    def decay_at(self, done: int) -> float:
        """Return how much of the average is kept in the step that follows so many."""
        growing = (1 + done) / (_HORIZONS_PER_RUN + 1 + done)
        return min(self._decay, growing)


def _list_tensors(network: nn.Module) -> list[Tensor]:
    """Return weights and buffers, without their gradients."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return [tensor.detach() for tensor in tensors]


def _move_towards(
    averages: Sequence[Tensor], current: Sequence[Tensor], kept: float
) -> None:
    """Keep a share of averages, and take the rest from what is current.

    As ``AveragedModel`` does, which for this copies a number to the device in each step and waits
    for that.
    """
    move = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for average, weight in zip(averages, current, strict=True):
        alike = by_type.setdefault(average.dtype, ([], []))
        alike[0].append(average)
        alike[1].append(weight)
    for alike in by_type.values():
        move(*alike, 0)


class _Step(NamedTuple):
    """A step that was done, whose losses were not read yet."""

    number: int
    learning_rate: float
    loss: Tensor
    parts: Mapping[str, Tensor]


def list_loss_checks(device: torch.device) -> tuple[list[Any], int]:
    """Return what checks each step's loss, and the number of steps whose losses are read at a time.

    On a GPU that is done when they are read: a check of each would keep it waiting.
    """
    if device.type == "cuda":
        return [], STEPS_PER_READING
    return [StopOnNan()], 1


class StepReport:
    """Notify listeners of each step, and end a training run whose loss is no longer finite.

    To read a loss from a GPU keeps the host waiting until the step is done, and then the GPU until
    the host has prepared the next one. So the losses of several steps can be read at a time.

    Args:
        parts: Returns the terms of the step's loss by name, before weighting.
        listeners: Who is notified.
        before: Steps that earlier stages of the run took.
        every: After so many steps losses are read, and listeners notified of each.
    """

    def __init__(
        self,
        parts: Callable[[], Mapping[str, torch.Tensor]],
        listeners: Sequence[Listener],
        *,
        before: int = 0,
        every: int = 1,
    ) -> None:
        self._parts = parts
        self._listeners = listeners
        self._before = before
        self._every = every
        self._unread: list[_Step] = []

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Note the step that was done, and read the last ones if it is time."""
        state = engine.state
        loss = state.output["loss"].detach()
        parts = {}
        for name, value in self._parts().items():
            part = torch.as_tensor(value, device=loss.device)
            parts[name] = part.detach().reshape(())
        done = _Step(
            self._before + state.iteration,
            engine.optimizer.param_groups[0]["lr"],
            loss.reshape(()),
            parts,
        )
        self._unread.append(done)
        if len(self._unread) >= self._every:
            self.read()

    def read(self) -> None:
        """Read the losses of the steps since the last time, and notify listeners of them.

        Raises:
            TrainingError: If a loss is no longer finite.
        """
        steps, self._unread = self._unread, []
        tensors = []
        for step in steps:
            tensors += [step.loss, *step.parts.values()]
        if not tensors:
            return
        # All in one piece: each by itself would be waited for.
        values = iter(torch.stack(tensors).tolist())
        for step in steps:
            loss = next(values)
            parts = {name: next(values) for name in step.parts}
            own_step = step.number - self._before
            require_finite_critic(parts.get(CRITIC, 0.0), own_step)
            require_finite(loss, own_step)
            event = StepDone(step.number, loss, parts, step.learning_rate)
            notify(self._listeners, event)


class EverySteps:
    """Call an action after every n-th step, and after the last.

    Args:
        interval: Steps between two calls.
        last: The last step.
        action: Called with the number of steps done.
    """

    def __init__(
        self, interval: int, last: int, action: Callable[[int], None]
    ) -> None:
        self._interval = interval
        self._last = last
        self._action = action

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Call the action if it is due."""
        step = engine.state.iteration
        is_due = step % self._interval == 0
        if is_due or step == self._last:
            self._action(step)


class AtSteps:
    """Call an action after certain steps.

    Args:
        steps: Which.
        action: Called with the number of steps done.
    """

    def __init__(
        self, steps: Sequence[int], action: Callable[[int], None]
    ) -> None:
        self._steps = frozenset(steps)
        self._action = action

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Call the action if this is one of the steps."""
        step = engine.state.iteration
        if step in self._steps:
            self._action(step)
