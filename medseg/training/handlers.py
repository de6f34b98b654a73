"""MONAI engine handlers for what happens around every optimiser step.

One "epoch" of the engine is the whole training run, so that each handler counts in steps and a
resumed run needs no special case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
        if not math.isfinite(loss):
            step = engine.state.iteration
            raise TrainingError(
                f"the loss became {loss} at step {step}; lower training.learning_rate, or set "
                "training.precision to fp32, and resume"
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
        self._kept = 0.0
        self.averaged = AveragedModel(
            network, multi_avg_fn=self._move, use_buffers=True
        )

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Move the average towards the weights after this step."""
        done = int(self.averaged.n_averaged)
        self._kept = self.decay_at(done)
        # The first update copies, so that random weights are never part of the average.
        self.averaged.update_parameters(self._network)

    def decay_at(self, done: int) -> float:
        """Return how much of the average is kept in the step that follows so many."""
        growing = (1 + done) / (_HORIZONS_PER_RUN + 1 + done)
        return min(self._decay, growing)

    def _move(
        self,
        average: Sequence[Tensor],
        current: Sequence[Tensor],
        done: Tensor | int,
    ) -> None:
        # The count lies on the weights' device, where looking at it would keep the host waiting.
        move = get_ema_multi_avg_fn(self._kept)  # type: ignore[no-untyped-call]
        move(average, current, done)


class StepReport:
    """Notify listeners of each step.

    Args:
        parts: Returns the terms of the step's loss by name, before weighting.
        listeners: Who is notified.
        before: Steps that earlier stages of the run took.
    """

    def __init__(
        self,
        parts: Callable[[], Mapping[str, torch.Tensor]],
        listeners: Sequence[Listener],
        *,
        before: int = 0,
    ) -> None:
        self._parts = parts
        self._listeners = listeners
        self._before = before

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Send the step that was done."""
        state = engine.state
        parts = {}
        for name, value in self._parts().items():
            parts[name] = float(value)
        event = StepDone(
            step=self._before + state.iteration,
            loss=state.output["loss"].item(),
            parts=parts,
            learning_rate=engine.optimizer.param_groups[0]["lr"],
        )
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
