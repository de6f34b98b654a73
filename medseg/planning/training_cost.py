"""What training a planned bundle takes here: a few real steps are timed, the rest follows.

Measured are the steps, on patches of one of the cases, with all that a step does; the memory that
they take; reading and preprocessing that case; and its validation where that is quick. How often
each occurs in a run is known. What follows from one case for all of them is an estimate.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch

from medseg._support.platform.processes import watch_memory
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.datasets.cases import Case, CaseList, find_cases
from medseg.datasets.dataset import open_dataset
from medseg.datasets.folds import split_cases
from medseg.errors import BundleError, DatasetError
from medseg.training.learner import Learner
from medseg.training.speed import TrainingSpeed, make_endless, time_steps
from medseg.training.time_budget import count_corrupted_copies, fit_to_budget

SECONDS = 8.0
"""After so many seconds no further step is timed; a step that has begun is ended."""
_MOST_STEPS = 24
_QUICK = 8.0
"""Seconds that a validation may take by its estimate to be measured."""
_PREPARING_TOGETHER = 2
"""Cases that are prepared side by side, at least."""
_FORWARD_SHARE = 0.4
"""Share of a step that a pass without learning takes, about."""


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What a training run takes, by a measurement of seconds.

    Attributes:
        device: Where it was measured.
        step_seconds: How long each timed step took.
        steps: How many steps the run takes; with a time budget, how many fit.
        validations: How many validations the run makes.
        held_out: How many cases each of them segments.
        validation_seconds: How long each takes: an estimate.
        preparation_seconds: How long reading and preprocessing all cases takes, once: an estimate.
        scoring_seconds: How long scoring the held-out cases at the end takes: an estimate.
        memory_bytes: The most that the steps took: on a GPU of its memory, by its allocator; else
            how much this process grew.
        measured_seconds: How long measuring took.
        too_short: Why the time budget does not allow a run, if it does not.

    Examples:
        >>> from medseg import TrainingCost
        >>> cost = TrainingCost(
        ...     device="cpu",
        ...     step_seconds=(1.0, 2.0, 3.0),
        ...     steps=600,
        ...     validations=0,
        ...     held_out=0,
        ...     validation_seconds=0.0,
        ...     preparation_seconds=60.0,
        ...     scoring_seconds=0.0,
        ...     memory_bytes=2_000_000_000,
        ...     measured_seconds=9.0,
        ... )
        >>> cost.seconds, cost.seconds_range
        (1260.0, (660.0, 1860.0))
    """

    device: str
    step_seconds: tuple[float, ...]
    steps: int
    validations: int
    held_out: int
    validation_seconds: float
    preparation_seconds: float
    scoring_seconds: float
    memory_bytes: int
    measured_seconds: float
    too_short: str = ""

    @property
    def seconds(self) -> float:
        """Of a whole run, at the mean of the timed steps."""
        return self._total(fmean(self.step_seconds))

    @property
    def seconds_range(self) -> tuple[float, float]:
        """The same, at the fastest and at the slowest of the timed steps."""
        fastest, slowest = min(self.step_seconds), max(self.step_seconds)
        return self._total(fastest), self._total(slowest)

    def _total(self, step_seconds: float) -> float:
        stepping = self.steps * step_seconds
        validating = self.validations * self.validation_seconds
        around = self.preparation_seconds + self.scoring_seconds
        return stepping + validating + around


@dataclass(slots=True)
class _Clock:
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


def measure_training(
    root: Path, spec: BundleSpec, device: torch.device
) -> TrainingCost:
    """Time a few steps of a planned bundle on one of its cases; random numbers of others stay.

    Args:
        root: The data set.
        spec: The bundle.
        device: Where it will be trained.

    Raises:
        DatasetError: If no case can be used by this bundle.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        return _measure(root, spec, device)


def _measure(
    root: Path, spec: BundleSpec, device: torch.device
) -> TrainingCost:
    clock = _Clock()
    found = find_cases(root, spec)
    if not found.cases:
        raise DatasetError("no case can be used", found.faults)
    # In the order of their names, the middle one: any would do, and it is always the same.
    case = found.cases[len(found.cases) // 2]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        one = CaseList((case,))
        preparing = _Clock()
        dataset = open_dataset(one, spec, None, Path(folder))
        preparation = preparing.seconds
        with _watch_device(device) as growth:
            learner = Learner(make_endless(spec), dataset.training, device)
            steps = time_steps(learner, SECONDS, timed=3, most=_MOST_STEPS)
        (cached,) = dataset.training
        one_validation = _find_validation_seconds(
            learner, cached, spec, fmean(steps)
        )
        # Windows keeps a file that is mapped; a trainer and its handlers know each other, so that
        # counting references does not free them.
        del learner, dataset, cached
        gc.collect()
    held_out = _count_held_out(found.cases, spec)
    speed = TrainingSpeed(
        step=fmean(steps),
        validation=one_validation * held_out,
        cases=held_out,
        calibrating=held_out,
    )
    all_cases = preparation * len(found.cases) / _PREPARING_TOGETHER
    fitted, too_short = _fit(spec, speed, all_cases)
    copies = count_corrupted_copies(fitted, held_out)
    training = fitted.training
    return TrainingCost(
        device=str(device),
        step_seconds=tuple(steps),
        steps=training.steps,
        validations=-(-training.steps // training.validate_every),
        held_out=held_out,
        validation_seconds=speed.validation,
        preparation_seconds=all_cases,
        scoring_seconds=speed.scoring_seconds(copies),
        memory_bytes=growth(),
        measured_seconds=clock.seconds,
        too_short=too_short,
    )


def _fit(
    spec: BundleSpec, speed: TrainingSpeed, preparation: float
) -> tuple[BundleSpec, str]:
    """Return the bundle as its time budget will fit it, and why that is not possible."""
    minutes = spec.training.budget_minutes
    if minutes is None:
        return spec, ""
    try:
        return fit_to_budget(spec, speed, 60 * minutes - preparation), ""
    except BundleError as error:
        return spec, "; ".join(fault.what for fault in error.faults)


def _count_held_out(cases: Sequence[Case], spec: BundleSpec) -> int:
    try:
        _, held_out = split_cases(cases, spec.data, 0)
    except DatasetError:  # too few to hold one out
        return 0
    return len(held_out)


def _find_validation_seconds(
    learner: Learner, case: CachedCase, spec: BundleSpec, step: float
) -> float:
    """Return how long a case's validation takes: measured where that is quick."""
    windows = 1
    size = case.label.shape[1:]
    for length, patch in zip(size, spec.training.patch, strict=False):
        windows *= max(1, math.ceil(2 * length / patch) - 1)
    if spec.network.dims == 2:
        windows *= size[2]
    each = _FORWARD_SHARE * step / spec.training.batch_size
    if windows * each > _QUICK:
        return windows * each
    learner.validate([case])  # the first is slower and does not count
    clock = _Clock()
    learner.validate([case])
    return clock.seconds


@contextmanager
def _watch_device(device: torch.device) -> Iterator[Callable[[], int]]:
    """Give what returns the most memory that was taken meanwhile, in bytes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        peak = before
        yield lambda: peak - before
        peak = torch.cuda.max_memory_reserved(device)
        return
    with watch_memory() as growth:
        yield lambda: growth.bytes
