"""How many steps fit into a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import BundleError, TrainingError
from medseg.training.learner import Learner
from medseg.training.session import build_stages
from medseg.training.speed import (
    TrainingSpeed,
    measure_speed,
    voxels_per_second,
)
from medseg.training.stages import select_learner_factory
from medseg.training.time_budget import (
    TimeBudget,
    count_corrupted_copies,
    fit_to_budget,
)


def builder(cases: Sequence[CachedCase]) -> Callable[[BundleSpec], Learner]:
    def build(spec: BundleSpec) -> Learner:
        factory = select_learner_factory(build_stages(spec))
        return factory(spec, cases, torch.device("cpu"))

    return build


def timed(minutes: float = 10) -> BundleSpec:
    return made_spec(training={"budget_minutes": minutes, "warmup_steps": 3})


def test_the_steps_fill_the_time_and_leave_some() -> None:
    spec = fit_to_budget(timed(), TrainingSpeed(step=0.5, validation=3), 600)
    training = spec.training
    validations = -(-training.steps // training.validate_every)
    used = 0.5 * training.steps + 3 * (validations + 2)
    assert 0.85 * 600 < used < 0.95 * 600
    assert validations == 8
    assert training.warmup_steps == 3


def test_slow_validations_become_few() -> None:
    training = fit_to_budget(
        timed(), TrainingSpeed(step=0.5, validation=60), 600
    ).training
    assert -(-training.steps // training.validate_every) == 1
    none = fit_to_budget(
        timed(), TrainingSpeed(step=0.5, validation=0), 600
    ).training
    assert none.steps == int(0.93 * 600 / 0.5)


def test_a_warm_up_never_outlasts_a_tenth() -> None:
    assert (
        fit_to_budget(timed(), TrainingSpeed(1, 0), 25).training.warmup_steps
        == 2
    )


def test_the_scoring_of_corrupted_copies_is_part_of_the_time() -> None:
    plain = fit_to_budget(
        timed(), TrainingSpeed(step=0.5, validation=10), 600
    ).training.steps
    copied = fit_to_budget(
        timed(),
        TrainingSpeed(step=0.5, validation=10, cases=15, calibrating=15),
        6000,
    )
    spared = fit_to_budget(
        timed(),
        TrainingSpeed(step=0.5, validation=10, cases=15, calibrating=15),
        300,
    )
    assert (
        plain
        == fit_to_budget(
            timed(),
            TrainingSpeed(step=0.5, validation=10, cases=7, calibrating=7),
            600,
        ).training.steps
    )
    used = 0.5 * copied.training.steps + 10 * 8 + 2 * 10 * (1 + 60 / 15)
    assert used == pytest.approx(0.93 * 6000, abs=1)
    assert copied.quality.corrupted_copies == 60
    # 60 of them would take 80 s, and a fifth of the time is 60.
    assert spared.quality.corrupted_copies == 45
    assert count_corrupted_copies(timed(), 8) == 60
    assert count_corrupted_copies(timed(), 7) == 0


@pytest.mark.parametrize("left", [-5.0, 0.0, 15.0])
def test_a_time_budget_that_is_too_short_is_refused_with_what_is_needed(
    left: float,
) -> None:
    with pytest.raises(BundleError, match=r"steps of 1\.00 s") as caught:
        fit_to_budget(timed(), TrainingSpeed(step=1, validation=0), left)
    assert caught.value.faults[0].where == "training.budget_minutes"


def test_measuring_takes_steps_and_validates() -> None:
    cases = [made_case(balls(seed=seed)) for seed in range(3)]
    pace = measure_speed(timed(0.001), builder(cases), cases[:2], 2)
    assert 0 < pace.step < 5
    assert 0 < pace.validation < 20
    assert measure_speed(timed(0.001), builder(cases), [], 0).validation == 0


def test_speed_is_measured_with_the_critic_of_the_bundle() -> None:
    spec = made_spec(
        training={"budget_minutes": 0.001},
        refinement={
            "kind": "joint",
            "critic": {"learning_rate": 1e30, "channels": 4},
        },
    )
    cases = [made_case(balls(seed=seed)) for seed in range(3)]
    with pytest.raises(TrainingError, match="critic"):
        measure_speed(spec, builder(cases), [], 0)


def test_the_speed_of_a_network_is_positive() -> None:
    assert voxels_per_second(made_spec(), torch.device("cpu"), seconds=0.1) > 0


def fitted(**training: int) -> TimeBudget:
    """Return the deadline, at second 1000, of 1000 steps that validate after every 500."""
    made = made_spec(training={"steps": 1000, "validate_every": 500} | training)
    deadline = TimeBudget(
        made, TrainingSpeed(step=0.9, validation=20.0), ends=1000.0
    )
    deadline.start(0.0)
    return deadline


def test_a_run_that_is_fast_enough_keeps_its_steps() -> None:
    deadline = fitted()
    assert deadline.fit_steps(100, 90.0) == 1000
    assert deadline.fit_steps(200, 170.0) == 1000


def test_a_slower_machine_takes_fewer_steps_that_end_in_time() -> None:
    # 2 s each, and 900 more would take 1800 s
    steps = fitted().fit_steps(100, 200.0)
    assert 300 < steps < 600
    rest = 2 * (steps - 100) + 20 * -(-(steps - 100) // 500)
    assert 900 < 200 + rest + 2 * 20 < 1000


def test_only_the_speed_since_the_last_check_counts() -> None:
    deadline = fitted()
    assert deadline.fit_steps(100, 90.0) == 1000
    shorter = deadline.fit_steps(200, 290.0)
    assert shorter < 600
    # Faster again: it never becomes longer.
    assert deadline.fit_steps(300, 370.0) == shorter


def test_a_few_steps_do_not_shorten_a_run() -> None:
    deadline = fitted()
    assert deadline.fit_steps(40, 500.0) == 1000
    assert deadline.fit_steps(100, 510.0) < 1000


def test_a_validation_is_no_step() -> None:
    deadline = fitted()
    deadline.add_validation(50.0)
    # 1 s a step, 450 s left for them, of which 0.93 are used: (418.5 - 50) / (1 + 50 / 500)
    assert deadline.fit_steps(400, 450.0) == 400 + 335


def taken(
    slower: dict[int, float],
    *,
    minutes: float = 1.0,
    hiccups: frozenset[int] = frozenset(),
) -> tuple[int, int, float]:
    """Take a training's steps on a clock of its own, as the training loop does.

    Args:
        slower: From which step on a step takes how many times as long.
        minutes: The time budget.
        hiccups: Steps that wait five seconds for another program.

    Returns:
        The steps that were fitted, those taken, and the seconds until all is scored.
    """
    pace = TrainingSpeed(step=0.3, validation=1.0)
    spec = fit_to_budget(timed(minutes), pace, 60 * minutes)
    training = spec.training
    deadline = TimeBudget(spec, pace, ends=60 * minutes)
    deadline.start(0.0)
    now, done, steps, factor = 0.0, 0, training.steps, 1.0
    while done < steps:
        done += 1
        factor = slower.get(done, factor)
        now += 0.3 * factor + 5.0 * (done in hiccups)
        if done % training.validate_every == 0 or done == steps:
            now += factor
            deadline.add_validation(factor)
        if deadline.is_due(done):
            steps = deadline.fit_steps(done, now)
    return training.steps, done, now + factor * pace.scoring_seconds(0)


@pytest.mark.parametrize("since", [1, 20, 60, 100, 130])
@pytest.mark.parametrize(
    ("factor", "most"), [(1.5, 1.0), (3.0, 1.1), (6.0, 1.5)]
)
def test_a_minute_is_kept_whenever_the_machine_becomes_slower(
    since: int, factor: float, most: float
) -> None:
    planned, done, ended = taken({since: factor})
    assert done < planned
    assert ended < most * 60


def test_a_machine_that_keeps_its_speed_takes_every_step() -> None:
    planned, done, ended = taken({})
    assert done == planned
    assert ended < 60


@pytest.mark.parametrize("at", [5, 30, 100])
def test_one_wait_for_another_program_costs_little_more_than_it_lasts(
    at: int,
) -> None:
    planned, done, ended = taken({}, hiccups=frozenset({at}))
    assert ended < 60
    assert 0.3 * (planned - done) < 2 * 5


@pytest.mark.parametrize(
    ("steps", "every"), [(20, 5), (150, 7), (1000, 50), (10**5, 50)]
)
def test_the_clock_is_checked_twenty_times_or_after_fifty_steps(
    steps: int, every: int
) -> None:
    deadline = fitted(steps=steps, validate_every=steps, warmup_steps=0)
    assert deadline.is_due(3)
    deadline.fit_steps(3, 1.0)
    due = next(done for done in range(4, steps) if deadline.is_due(done))
    assert due == 3 + every


@pytest.mark.parametrize(("warm_up", "least"), [(0, 101), (300, 301)])
def test_one_more_step_is_taken_however_late_it_is(
    warm_up: int, least: int
) -> None:
    assert fitted(warmup_steps=warm_up).fit_steps(100, 2000.0) == least
