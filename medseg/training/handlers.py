"""What happens around the steps of a training, as MONAI engine handlers.

One "epoch" of the engine is the whole training, so that each handler counts in steps and a run
resumed in the middle needs no special case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedTrainer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medseg.bundle.spec import TrainingSpec
from medseg.errors import TrainingError
from medseg.events import Event, Listener, StepDone, notify


class StepSeed:
    """Seed torch anew before every step, so that dropout depends on (seed, step) alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the step about to run."""
        # An odd multiplier keeps the streams of neighbouring seeds apart.
        torch.manual_seed((self._seed * 1_000_003 + engine.state.iteration) % 2**63)


class LearningRate:
    """Set the learning rate from the step alone: nothing to save, nothing to restore."""

    def __init__(self, training: TrainingSpec) -> None:
        self._training = training

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Set the rate of the step about to run."""
        for group in engine.optimizer.param_groups:
            group["lr"] = self.at(engine.state.iteration)

    def at(self, step: int) -> float:
        """Return the rate of a 1-based step."""
        training = self._training
        done = step - 1
        if done < training.warmup_steps:
            return training.learning_rate * step / training.warmup_steps
        progress = (done - training.warmup_steps) / (training.steps - training.warmup_steps)
        match training.schedule:
            case "poly":
                share = (1 - progress) ** 0.9
            case "cosine":
                share = 0.5 * (1 + math.cos(math.pi * progress))
            case "constant":
                share = 1.0
        return float(training.learning_rate * share)


class GradientClip:
    """Limit the norm of the gradient before the optimiser uses it."""

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip the gradients just computed."""
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        nn.utils.clip_grad_norm_(engine.network.parameters(), self._largest)


class StopOnNan:
    """End a training whose loss is no number any more, naming the step."""

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss just computed, before it spoils the weights."""
        loss = engine.state.output["loss"].item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} at step "
                f"{engine.state.iteration}; lower training.learning_rate, or set "
                "training.precision to fp32, and resume"
            )


class WeightAverage:
    """Keep an exponential moving average of the weights (Polyak and Juditsky, 1992).

    Args:
        network: The network in training.
        decay: Share of the old average that each step keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self.averaged = AveragedModel(
            network,
            multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Move the average towards the weights of the step just done."""
        # The first update copies, so that random weights are never part of the average.
        self.averaged.update_parameters(self._network)


class StepReport:
    """Tell listeners about each step.

    Args:
        parts: Gives the parts of the step's loss, before weighting.
        listeners: Who is told.
        before: Steps that an earlier stage of the run took.
    """

    def __init__(
        self,
        parts: Callable[[], Mapping[str, torch.Tensor]],
        listeners: Sequence[Listener],
        *,
        before: int = 0,
    ) -> None:
        self._parts, self._listeners, self._before = parts, listeners, before

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Send the step just done."""
        event: Event = StepDone(
            step=self._before + engine.state.iteration,
            loss=engine.state.output["loss"].item(),
            parts={name: float(value) for name, value in self._parts().items()},
            learning_rate=engine.optimizer.param_groups[0]["lr"],
        )
        notify(self._listeners, event)


class EverySteps:
    """Call something every so many steps, and after the last."""

    def __init__(self, steps: int, last: int, action: Callable[[int], None]) -> None:
        self._steps, self._last, self._action = steps, last, action

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Call the action, with the number of steps done, if it is time."""
        step = engine.state.iteration
        if step % self._steps == 0 or step == self._last:
            self._action(step)


class AtSteps:
    """Call something after certain steps."""

    def __init__(self, steps: Sequence[int], action: Callable[[int], None]) -> None:
        self._steps, self._action = frozenset(steps), action

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Call the action, with the number of steps done, if this is one of them."""
        if engine.state.iteration in self._steps:
            self._action(engine.state.iteration)
