"""How fast a network trains here: steps that are timed, and whose result is discarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import torch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.networks.building import build_network
from medseg.networks.inferers import build_training_inferer
from medseg.networks.levels import SupervisedNetwork
from medseg.networks.training_precision import choose_training_precisions
from medseg.training.learner import Callbacks, Learner, build_optimizer
from medseg.training.losses import build_loss

WARM_UP = 3
"""First steps, which are slower and do not count."""

_MEASURING_SHARE = 0.02
"""Share of a time budget that measuring may take."""
_LONGEST_MEASURING, _SHORTEST_MEASURING = 30.0, 2.0
"""Bounds of the time for measuring, in seconds."""
_SCORING_COST = 2.0
"""Cost of scoring a scan at the end, on its own grid and in fp32, in validations of it."""


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """How fast training is.

    Attributes:
        step: Seconds per step.
        validation: Seconds per validation of all held-out cases.
        cases: How many cases are held out.
        calibrating: How many cases quality is calibrated on: the same, or those of all folds.
    """

    step: float
    validation: float
    cases: int = 1
    calibrating: int = 1

    def scoring_seconds(self, copies: int) -> float:
        """Return the seconds for scoring the cases and corrupted copies of them at the end."""
        copies_per_case = copies / max(self.cases, 1)
        scans_per_case = 1 + copies_per_case
        return _SCORING_COST * self.validation * scans_per_case


def measure_speed(
    spec: BundleSpec,
    build_learner: Callable[[BundleSpec], Learner],
    validation: Sequence[CachedCase],
    calibrating: int,
) -> TrainingSpeed:
    """Take some steps whose result is discarded, and validate one case.

    Args:
        spec: The bundle, with a time budget.
        build_learner: Builds a new learner for a bundle.
        validation: The validation cases.
        calibrating: How many cases quality will be calibrated on.
    """
    minutes = spec.training.budget_minutes or 0
    seconds = 60 * minutes * _MEASURING_SHARE
    seconds = max(seconds, _SHORTEST_MEASURING)
    seconds = min(seconds, _LONGEST_MEASURING)
    learner = build_learner(make_endless(spec))
    step_times = time_steps(learner, seconds, least=WARM_UP + 2)
    return TrainingSpeed(
        step=fmean(step_times),
        validation=_measure_validation(learner, validation),
        cases=len(validation),
        calibrating=calibrating,
    )


def time_steps(
    learner: Learner,
    seconds: float,
    *,
    least: int = 2,
    timed: int = 2,
    most: int = 10**6,
) -> list[float]:
    """Take steps, and return how long each took, in seconds.

    The first three do not count, as far as others are left.

    Args:
        learner: Of a bundle from ``make_endless``.
        seconds: After so many, no further step is begun.
        least: So many steps are taken whatever they cost, 2 or more.
        timed: Of so few steps, none but the first is left out.
        most: More are not taken.
    """
    ends: list[float] = []

    def note_step(_: int) -> bool:
        now = time.perf_counter()
        ends.append(now)
        if len(ends) >= most:
            return False
        return len(ends) < least or now - ends[0] < seconds

    learner.learn(Callbacks(validate=note_step, save=lambda _: None))
    first = max(1, min(WARM_UP, len(ends) - timed))
    counted = ends[first - 1 :]
    return [end - begin for begin, end in pairwise(counted)]


def make_endless(spec: BundleSpec) -> BundleSpec:
    """Return a bundle whose training calls for a validation after every step, and never ends."""
    never = 10**6
    schedule = {
        "steps": never,
        "validate_every": 1,
        "checkpoint_every": never,
        "warmup_steps": 0,
    }
    training = spec.training.model_copy(update=schedule)
    return spec.model_copy(update={"training": training})


def _measure_validation(learner: Learner, cases: Sequence[CachedCase]) -> float:
    if not cases:
        return 0.0
    by_size = sorted(cases, key=lambda case: case.nbytes)
    median = by_size[len(cases) // 2]
    learner.validate([median])  # the first is slower and does not count
    started = time.perf_counter()
    learner.validate([median])
    seconds = time.perf_counter() - started
    return seconds * len(cases)


def voxels_per_second(
    spec: BundleSpec, device: torch.device, seconds: float = 6.0
) -> float:
    """Train a bundle's network on noise for some seconds; return voxels per second.

    Args:
        spec: Its network, patch and batch.
        device: Where to compute.
        seconds: How long at least.
    """
    network = SupervisedNetwork(build_network(spec).to(device))
    loss = build_loss(spec)
    optimizer = build_optimizer(network, spec.training)
    precision = choose_training_precisions(spec, device).network
    forward = build_training_inferer(device, precision)
    batch = spec.training.batch_size
    patch = spec.training.patch
    channels = spec.input_channels
    image = torch.randn(batch, channels, *patch, device=device)
    label = torch.zeros(batch, 1, *patch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        output = forward(image, network)
        loss(output, label).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    voxels_per_step = batch * image[0, 0].numel()
    steps_per_second = _measure_rate(step, seconds)
    return steps_per_second * voxels_per_step


def _measure_rate(action: Callable[[], None], seconds: float) -> float:
    """Return how often per second an action can be done."""
    action()  # the first is slower and does not count
    started = time.perf_counter()
    elapsed, done = 0.0, 0
    while done < 2 or elapsed < seconds:
        action()
        done += 1
        elapsed = time.perf_counter() - started
    return done / elapsed
