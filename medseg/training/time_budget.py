"""Time budgets: how fast training is, and how many steps fit into the time.

The number of steps is set before the first of them. A machine that becomes slower makes them
fewer, at a checkpoint of its own and on record: a schedule that followed the clock at every step
could not be resumed exactly. When the clock is checked depends on the steps done alone, so that
all processes of a group check it at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from medseg.bundle.spec import BundleSpec
from medseg.errors import BundleError, Fault
from medseg.quality.calibration import MIN_CLEAN_RESULTS
from medseg.training.speed import WARM_UP, TrainingSpeed

LEAST_STEPS = 20
"""With fewer steps a training run is refused."""

_PLANNED_SHARE = 0.93
"""Share of the time that is planned for; machines get slower as often as faster."""
_MAX_VALIDATIONS = 8
_VALIDATION_SHARE = 0.2
"""Largest share of the time for validations."""
_COPIES_SHARE = 0.2
"""Largest share of the time for scoring corrupted copies."""
_RELIABLE_STEPS = 50
"""Steps after which the speed is known well; the first ones of a run are slower."""
_CHECKS = 20
"""How often a run of few steps checks the clock."""
_FEWEST_STEPS = 5
"""Fewest steps between two checks: a single one may have waited for another program."""


def count_corrupted_copies(spec: BundleSpec, calibrating: int) -> int:
    """Return how many corrupted copies are scored at the end.

    Args:
        spec: The bundle.
        calibrating: How many cases quality is calibrated on, those of all folds if there are more.
    """
    # Fewer cases than a calibration needs make copies of them useless.
    if calibrating < MIN_CLEAN_RESULTS:
        return 0
    return spec.quality.corrupted_copies


def fit_to_budget(
    spec: BundleSpec, speed: TrainingSpeed, seconds_left: float
) -> BundleSpec:
    """Set the number of steps that fit into what is left of the time, and when to validate.

    Corrupted copies become fewer where scoring them would take more than a fifth of it.

    Raises:
        BundleError: If fewer than ``LEAST_STEPS`` fit.
    """
    copies = _fit_copies(spec, speed, seconds_left)
    useful_copies = count_corrupted_copies(spec, speed.calibrating)
    scoring = speed.scoring_seconds(min(copies, useful_copies))
    usable = _PLANNED_SHARE * seconds_left - scoring
    validations = _fit_validations(speed, usable)
    validating = validations * speed.validation
    steps = int((usable - validating) / speed.step)
    if steps < LEAST_STEPS:
        message = (
            f"a budget of {spec.training.budget_minutes:g} min leaves {max(steps, 0)} steps of "
            f"{speed.step:.2f} s beside {validations} validations of {speed.validation:.0f} s "
            f"and {scoring:.0f} s of scoring at the end; {LEAST_STEPS} are needed. Give more "
            "time, or use a smaller patch or batch"
        )
        fault = Fault("training.budget_minutes", message)
        raise BundleError("the bundle's time budget is too short", [fault])
    schedule = {
        "steps": steps,
        "validate_every": _divide_up(steps, validations),
        "warmup_steps": min(spec.training.warmup_steps, steps // 10),
    }
    training = spec.training.model_copy(update=schedule)
    quality = spec.quality.model_copy(update={"corrupted_copies": copies})
    return spec.model_copy(update={"training": training, "quality": quality})


def _fit_validations(speed: TrainingSpeed, seconds: float) -> int:
    """Return how many validations can be made in their share of the time, at least one."""
    if speed.validation <= 0:
        return _MAX_VALIDATIONS
    allowed = _VALIDATION_SHARE * seconds
    affordable = int(allowed / speed.validation)
    affordable = max(affordable, 1)
    return min(affordable, _MAX_VALIDATIONS)


def _fit_copies(
    spec: BundleSpec, speed: TrainingSpeed, seconds_left: float
) -> int:
    """Return how many corrupted copies can be scored in their share of the time."""
    requested = spec.quality.corrupted_copies
    copies = count_corrupted_copies(spec, speed.calibrating)
    without_copies = speed.scoring_seconds(0)
    seconds = speed.scoring_seconds(copies) - without_copies
    allowed = _COPIES_SHARE * max(seconds_left, 0.0)
    if seconds <= allowed:
        return requested
    return int(requested * allowed / seconds)


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A reading of the clock.

    Attributes:
        done: Steps done by then.
        stepping: Seconds of the clock, less the time that validations had taken.
    """

    done: int
    stepping: float

    def step_seconds_since(self, earlier: _Reading) -> float:
        """Return the seconds per step since an earlier reading."""
        seconds = self.stepping - earlier.stepping
        steps = self.done - earlier.done
        return max(seconds, 0.0) / steps


class TimeBudget:
    """Shortens a training run that became slower than was measured, so that it ends in time.

    Args:
        spec: The bundle as it was fitted.
        speed: As measured before.
        ends: When all must be done, in seconds of some clock.
    """

    def __init__(
        self, spec: BundleSpec, speed: TrainingSpeed, ends: float
    ) -> None:
        self._training = spec.training
        self._speed = speed
        self._ends = ends
        self._copies = count_corrupted_copies(spec, speed.calibrating)
        interval = max(_FEWEST_STEPS, spec.training.steps // _CHECKS)
        self._interval = min(_RELIABLE_STEPS, interval)
        self._readings = deque([_Reading(0, 0.0)])
        self._validation_seconds = 0.0

    def start(self, now: float) -> None:
        """Note that the first step begins.

        Args:
            now: Seconds of the clock.
        """
        self._readings = deque([_Reading(0, now)])

    def is_due(self, done: int) -> bool:
        """Return whether the clock must be checked after so many steps."""
        if done == WARM_UP:
            return True
        last = self._readings[-1]
        return done - last.done >= self._interval

    def count_seconds_to_spare(self, now: float) -> float:
        """Return what of the time is left once held-out cases are scored."""
        scoring = self._speed.scoring_seconds(self._copies)
        return max(0.0, self._ends - now - scoring)

    def add_validation(self, seconds: float) -> None:
        """Note how long a validation took: the next will take as long, and it was no step."""
        longest = max(seconds, self._speed.validation)
        self._speed = replace(self._speed, validation=longest)
        self._validation_seconds += seconds

    def fit_steps(self, done: int, now: float) -> int:
        """Return how many steps the run should have, at the speed of the last ones.

        Args:
            done: Steps done, more than at the last call.
            now: Seconds of the clock.
        """
        training = self._training
        if not self.is_due(done):
            return training.steps
        stepping = now - self._validation_seconds
        self._readings.append(_Reading(done, stepping))
        if done == WARM_UP:
            self._readings.popleft()
            return training.steps
        step_seconds = self._step_seconds()
        scoring = self._speed.scoring_seconds(self._copies)
        seconds_left = self._ends - now - scoring
        if done >= training.steps:
            return training.steps
        if self._seconds_needed(done, step_seconds) <= seconds_left:
            return training.steps
        steps = self._affordable_steps(done, step_seconds, seconds_left)
        self._training = training.model_copy(update={"steps": steps})
        return steps

    def _affordable_steps(
        self, done: int, step_seconds: float, seconds_left: float
    ) -> int:
        """Return how many steps, those done among them, end in time with their validations."""
        training = self._training
        validation = self._speed.validation
        with_validation = step_seconds + validation / training.validate_every
        usable = _PLANNED_SHARE * seconds_left - validation
        affordable = 0
        if (
            with_validation > 0
        ):  # else nothing is known yet, and it is late already
            affordable = int(usable / with_validation)
        # At least one more, because validation comes after the last step.
        least = max(done, training.rising_steps) + 1
        steps = max(done + affordable, least)
        return min(steps, training.steps)

    def _seconds_needed(self, done: int, step_seconds: float) -> float:
        """Return how long the steps and validations that are left will take."""
        training = self._training
        steps_left = training.steps - done
        validations = _divide_up(steps_left, training.validate_every)
        validating = validations * self._speed.validation
        return steps_left * step_seconds + validating

    def _step_seconds(self) -> float:
        """Return how long a step takes by now, at least: over fifty steps, or in two intervals.

        So one wait for another program is spread over fifty steps, and a machine that became
        slower for good is known by the second interval. Before that nothing is known.
        """
        readings = self._readings
        last = readings[-1]
        while len(readings) > 2:
            steps = last.done - readings[1].done
            if steps < _RELIABLE_STEPS:
                break
            readings.popleft()
        seconds = 0.0
        if len(readings) > 2:
            middle = readings[-2]
            former_interval = middle.step_seconds_since(readings[-3])
            last_interval = last.step_seconds_since(middle)
            seconds = min(former_interval, last_interval)
        first = readings[0]
        if last.done - first.done >= _RELIABLE_STEPS:
            since_first = last.step_seconds_since(first)
            seconds = max(seconds, since_first)
        return seconds
