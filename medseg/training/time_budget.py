"""How fast a training is, and how many steps fit into its time.

The steps are set before the first of them. A machine that becomes slower makes them fewer, at a
checkpoint of its own and on record: a schedule that followed the clock at every step could not be
resumed exactly. When the clock is looked at depends on the steps done alone, so that all processes
of a group look at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import BundleError, Fault
from medseg.networks.inferers import training_inferer
from medseg.networks.training_precision import choose_training_precisions
from medseg.networks.unet import Supervised, build_network
from medseg.quality.calibration import MIN_CLEAN_RESULTS
from medseg.training.learner import Learner, build_optimizer
from medseg.training.losses import build_loss
from medseg.training.refinement.stage import make_learner

WARM_UP = 3
"""First steps, which are slower and do not count."""

_MEASURED = 0.02
"""Share of the budget that measuring may take."""
_LONGEST, _SHORTEST = 30.0, 2.0
"""Seconds to measure for."""
_SAFETY = 0.93
"""Share of the time that is planned for; machines get slower as often as faster."""
_VALIDATIONS = 8
_MOST_FOR_VALIDATION = 0.2
"""Share of the time at most that validations take."""
_SCORING = 2.0
"""How many validations' work it is to score a scan at the end, on its own grid and in fp32."""
_MOST_FOR_COPIES = 0.2
"""Share of the time at most that the scoring of corrupted copies takes."""
_TELLING = 50
"""Steps after which the speed is known well; the first ones of a training are slower."""
_LOOKS = 20
"""How often a short training, whose steps are fewer, looks at the clock all the same."""
_FEWEST_TELLING = 5
"""Steps that say something about the speed: one alone may have waited for another program."""
LEAST_STEPS = 20


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """How fast a training is.

    Attributes:
        step: Seconds per step.
        validation: Seconds per validation of all held-back cases.
        cases: How many cases are held back.
        calibrating: How many quality is calibrated on: the same, or those of all folds.
    """

    step: float
    validation: float
    cases: int = 1
    calibrating: int = 1

    def scoring(self, copies: int) -> float:
        """Return the seconds that it takes at the end to score the cases and corrupted copies."""
        return _SCORING * self.validation * (1 + copies / max(self.cases, 1))


def measure_speed(
    spec: BundleSpec,
    training: Sequence[CachedCase],
    validation: Sequence[CachedCase],
    device: torch.device,
    calibrating: int,
) -> TrainingSpeed:
    """Take some steps that count for nothing, and validate one case.

    Args:
        spec: The bundle, with a time budget.
        training: Its training cases.
        validation: Its validation cases.
        device: Where to compute.
        calibrating: How many cases quality will be calibrated on.
    """
    lasts = min(max(60 * (spec.training.budget_minutes or 0) * _MEASURED, _SHORTEST), _LONGEST)
    endless = {"steps": 10**6, "validate_every": 1, "checkpoint_every": 10**6, "warmup_steps": 0}
    trial = spec.model_copy(update={"training": spec.training.model_copy(update=endless)})
    learner = make_learner(trial, training, device)
    ends: list[float] = []

    def goes_on(_: int) -> bool:
        ends.append(time.perf_counter())
        return len(ends) < WARM_UP + 2 or ends[-1] - ends[0] < lasts

    learner.learn(validate=goes_on, save=lambda _: None)
    counted = ends[WARM_UP - 1 :]
    step = (counted[-1] - counted[0]) / (len(counted) - 1)
    return TrainingSpeed(
        step, _validation_seconds(learner, validation), len(validation), calibrating
    )


def count_corrupted_copies(spec: BundleSpec, calibrating: int) -> int:
    """Return how many corrupted copies are scored at the end.

    Args:
        spec: The bundle.
        calibrating: How many cases quality is calibrated on, those of all folds if there are more.
    """
    # Fewer cases than a calibration needs make copies of them useless.
    return spec.quality.corrupted_copies if calibrating >= MIN_CLEAN_RESULTS else 0


def _validation_seconds(learner: Learner, cases: Sequence[CachedCase]) -> float:
    if not cases:
        return 0.0
    typical = sorted(cases, key=lambda case: case.nbytes)[len(cases) // 2]
    learner.validate([typical])  # the first is slower and does not count
    started = time.perf_counter()
    learner.validate([typical])
    return (time.perf_counter() - started) * len(cases)


def fit_to_budget(spec: BundleSpec, pace: TrainingSpeed, seconds_left: float) -> BundleSpec:
    """Set the steps that fit into what is left of the time, and when to validate.

    Corrupted copies become fewer where scoring them would take more than a fifth of it.

    Raises:
        BundleError: If hardly any step fits.
    """
    copies = _copies_that_fit(spec, pace, seconds_left)
    scoring = pace.scoring(min(copies, count_corrupted_copies(spec, pace.calibrating)))
    usable = _SAFETY * seconds_left - scoring
    validations = _VALIDATIONS
    if pace.validation > 0:
        validations = int(_MOST_FOR_VALIDATION * usable / pace.validation)
        validations = min(max(validations, 1), _VALIDATIONS)
    steps = int((usable - validations * pace.validation) / pace.step)
    if steps < LEAST_STEPS:
        raise BundleError(
            "the bundle's time budget is too short",
            [
                Fault(
                    "training.budget_minutes",
                    f"{spec.training.budget_minutes:g} minutes leave {max(steps, 0)} steps of "
                    f"{pace.step:.2f} s beside {validations} validations of "
                    f"{pace.validation:.0f} s and {scoring:.0f} s of scoring at the end; "
                    f"{LEAST_STEPS} are needed. Give more time, or a smaller patch or batch",
                )
            ],
        )
    fitted = {
        "steps": steps,
        "validate_every": -(-steps // validations),
        "warmup_steps": min(spec.training.warmup_steps, steps // 10),
    }
    training = spec.training.model_copy(update=fitted)
    quality = spec.quality.model_copy(update={"corrupted_copies": copies})
    return spec.model_copy(update={"training": training, "quality": quality})


def _copies_that_fit(spec: BundleSpec, pace: TrainingSpeed, seconds_left: float) -> int:
    wanted = spec.quality.corrupted_copies
    seconds = pace.scoring(count_corrupted_copies(spec, pace.calibrating)) - pace.scoring(0)
    most = _MOST_FOR_COPIES * max(seconds_left, 0.0)
    return wanted if seconds <= most else int(wanted * most / seconds)


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at the clock.

    Attributes:
        done: Steps done by then.
        stepping: What it showed, less the time that validations had taken.
    """

    done: int
    stepping: float

    def seconds_since(self, other: _Look) -> float:
        """Return the seconds per step since another look."""
        return max(self.stepping - other.stepping, 0.0) / (self.done - other.done)


class TimeBudget:
    """Tells when a training that became slower than was measured must end, to end in time.

    Args:
        spec: The bundle as it was fitted.
        pace: As measured before.
        ends: When all must be done, in seconds of some clock.
    """

    def __init__(self, spec: BundleSpec, pace: TrainingSpeed, ends: float) -> None:
        self._training, self._pace, self._ends = spec.training, pace, ends
        self._copies = count_corrupted_copies(spec, pace.calibrating)
        self._every = min(_TELLING, max(_FEWEST_TELLING, spec.training.steps // _LOOKS))
        self._looks: deque[_Look] = deque([_Look(0, 0.0)])
        self._validated = 0.0

    def start(self, now: float) -> None:
        """Take note that the first step begins, by the clock."""
        self._looks = deque([_Look(0, now)])

    def is_due(self, done: int) -> bool:
        """Tell whether it is time to look at the clock, after so many steps."""
        return done == WARM_UP or done - self._looks[-1].done >= self._every

    def validated(self, seconds: float) -> None:
        """Take note of a validation: it was no step, and the next will take as long."""
        self._pace = replace(self._pace, validation=max(seconds, self._pace.validation))
        self._validated += seconds

    def steps(self, done: int, now: float) -> int:
        """Return how many steps the training should have, at the speed of the last ones.

        Args:
            done: Steps done, more than when it was last asked.
            now: What the clock shows.
        """
        training = self._training
        if not self.is_due(done):
            return training.steps
        self._looks.append(_Look(done, now - self._validated))
        if done == WARM_UP:
            self._looks.popleft()
            return training.steps
        step = self._step_seconds()
        left = self._ends - now - self._pace.scoring(self._copies)
        validations = -(-(training.steps - done) // training.validate_every)
        need = (training.steps - done) * step + validations * self._pace.validation
        if done >= training.steps or need <= left:
            return training.steps
        per_step = step + self._pace.validation / training.validate_every
        fit = int((_SAFETY * left - self._pace.validation) / per_step)
        # At least one more, because the last step is the one after which is validated.
        steps = min(max(done + fit, done + 1, training.warmup_steps + 1), training.steps)
        self._training = training.model_copy(update={"steps": steps})
        return steps

    def _step_seconds(self) -> float:
        """Return how long a step takes by now, at least: over fifty, or by two looks alike.

        So one wait for another program is spread over fifty steps, and a machine that became slower
        for good is known by the second look. Sooner nothing is.
        """
        looks = self._looks
        while len(looks) > 2 and looks[-1].done - looks[1].done >= _TELLING:
            looks.popleft()
        lately = [later.seconds_since(one) for one, later in pairwise([*looks][-3:])]
        known = [min(lately)] if len(lately) > 1 else []
        if looks[-1].done - looks[0].done >= _TELLING:
            known.append(looks[-1].seconds_since(looks[0]))
        return max(known, default=0.0)


def voxels_per_second(spec: BundleSpec, device: torch.device, seconds: float = 6.0) -> float:
    """Train a bundle's network on noise for some seconds; return voxels per second.

    Args:
        spec: Its network, patch and batch.
        device: Where to compute.
        seconds: How long at least.
    """
    network = Supervised(build_network(spec).to(device))
    loss, optimizer = build_loss(spec), build_optimizer(network, spec.training)
    forward = training_inferer(device, choose_training_precisions(spec, device).network)
    batch, patch = spec.training.batch_size, spec.training.patch
    image = torch.randn(batch, len(spec.channels), *patch, device=device)
    label = torch.zeros(batch, 1, *patch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(forward(image, network), label).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return _timed(step, seconds) * image[0, 0].numel() * batch


def _timed(act: Callable[[], None], seconds: float) -> float:
    """Return how often a second ``act`` can be done."""
    act()
    started, done = time.perf_counter(), 0
    while done < 2 or time.perf_counter() - started < seconds:
        act()
        done += 1
    return done / (time.perf_counter() - started)
