"""Refinement as a stage: which one a bundle gets, its steps, and what it says of its critic."""

from __future__ import annotations

from typing import Any

import pytest
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.errors import BundleError
from medseg.events import Event, Notice, StepDone
from medseg.training.history import TrainingHistory
from medseg.training.refinement.stage import (
    JointStage,
    RefinerStage,
    build_refinement_stages,
    measure_critic_gap,
)


def spec_of(**refinement: Any) -> BundleSpec:
    return made_spec(refinement=refinement)


def test_a_bundle_gets_the_stage_of_its_kind() -> None:
    assert build_refinement_stages(made_spec()) == ()
    (refiner,) = build_refinement_stages(spec_of(steps=40))
    assert isinstance(refiner, RefinerStage)
    assert (refiner.steps, refiner.learner_factory) == (40, None)
    (joint,) = build_refinement_stages(spec_of(kind="joint", steps=40))
    assert isinstance(joint, JointStage)
    assert joint.steps == 0


def test_checkpoints_keep_the_key_they_had() -> None:
    (refiner,) = build_refinement_stages(spec_of())
    assert refiner.checkpoint_key == "corrector"


@pytest.mark.parametrize(
    ("steps", "snapshots", "expected"),
    [(100, 3, [12, 25, 50]), (100, 0, []), (100, 1, [50]), (5, 4, [1, 2])],
)
def test_snapshots_are_taken_at_halves_of_halves(
    steps: int, snapshots: int, expected: list[int]
) -> None:
    spec = made_spec(
        training={"steps": steps}, refinement={"bank": {"snapshots": snapshots}}
    )
    (stage,) = build_refinement_stages(spec)
    assert list(stage.snapshot_steps) == expected


def test_joint_training_needs_no_snapshots() -> None:
    (stage,) = build_refinement_stages(spec_of(kind="joint"))
    assert list(stage.snapshot_steps) == []


def test_a_refiner_is_refused_in_a_cross_validation_and_joint_training_is_not() -> (
    None
):
    (refiner,) = build_refinement_stages(spec_of())
    with pytest.raises(BundleError, match="one refiner") as caught:
        refiner.check_cross_validation()
    assert [fault.where for fault in caught.value.faults] == ["refinement"]
    (joint,) = build_refinement_stages(spec_of(kind="joint"))
    joint.check_cross_validation()


def history_of(gaps: list[float]) -> TrainingHistory:
    history = TrainingHistory("made_up")
    for step, gap in enumerate(gaps, start=1):
        history(StepDone(step, 1.0, {"critic_gap": gap}, 0.1))
    return history


@pytest.mark.parametrize(
    ("gap", "is_told"), [(0.1, True), (0.29, True), (0.5, False)]
)
def test_a_critic_that_never_separates_is_told(
    gap: float, is_told: bool
) -> None:
    events: list[Event] = []
    refinement = spec_of().refinement
    assert refinement is not None
    # Of 40 steps after the network's 4, the last ten count.
    history = history_of([0.9] * 34 + [gap] * 10)
    measured = measure_critic_gap(
        refinement, history, [events.append], steps=40, end=44
    )
    assert measured == pytest.approx(gap)
    assert [type(event) for event in events] == ([Notice] if is_told else [])


def test_of_very_few_steps_the_last_one_counts() -> None:
    refinement = spec_of().refinement
    assert refinement is not None
    assert (
        measure_critic_gap(
            refinement, history_of([0.9, 0.9, 0.4]), (), steps=3, end=3
        )
        == 0.4
    )


def test_without_a_critic_there_is_no_gap() -> None:
    refinement = spec_of(adversarial_weight=0).refinement
    assert refinement is not None
    assert (
        measure_critic_gap(
            refinement, history_of([0.1] * 4), (), steps=4, end=4
        )
        is None
    )
    critic = spec_of().refinement
    assert critic is not None
    assert (
        measure_critic_gap(
            critic, TrainingHistory("made_up"), (), steps=4, end=4
        )
        is None
    )
