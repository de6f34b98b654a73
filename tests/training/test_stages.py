"""What a run knows about its stages: their steps, their checkpoints, their learner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.bundles import made_spec
from support.sessions import CPU, made_cases

from medseg.training.learner import Learner
from medseg.training.refinement.joint_learner import JointLearner
from medseg.training.session import build_stages
from medseg.training.stages import (
    LearnerFactory,
    StageContext,
    StageResult,
    count_steps,
    count_steps_done,
    list_snapshot_steps,
    select_learner_factory,
)


class Stage:
    """A stage that does nothing."""

    learner_factory: LearnerFactory | None = None

    def __init__(
        self, key: str, steps: int, snapshot_steps: Sequence[int] = ()
    ) -> None:
        self.name = self.checkpoint_key = key
        self.steps, self.snapshot_steps = steps, snapshot_steps

    def check_cross_validation(self) -> None:
        """Allow it."""

    def run(self, context: StageContext) -> StageResult:
        return StageResult()


STAGES = [Stage("first", 10, [8, 2]), Stage("second", 5, [2, 4])]
SPEC = made_spec(training={"steps": 100})


def checkpoint(learner: int, **stages: int) -> dict[str, Any]:
    return {"learner": {"step": learner}} | {
        key: {"step": n} for key, n in stages.items()
    }


def test_the_steps_of_stages_follow_those_of_the_network() -> None:
    assert count_steps(SPEC, STAGES) == 115
    assert count_steps(SPEC, []) == 100


@pytest.mark.parametrize(
    ("state", "done"),
    [
        (checkpoint(40), 40),
        (checkpoint(100, first=3), 103),
        (checkpoint(60, first=3), 103),  # the network stopped early
        (checkpoint(100, first=10, second=2), 112),
    ],
)
def test_steps_done_count_every_stage(state: dict[str, Any], done: int) -> None:
    assert count_steps_done(SPEC, STAGES, state) == done


def test_snapshots_are_kept_for_every_stage() -> None:
    assert list_snapshot_steps(STAGES) == [2, 4, 8]


def test_the_network_has_the_learner_of_the_stage_that_brings_one() -> None:
    assert select_learner_factory(STAGES) is Learner
    joint = made_spec(refinement={"kind": "joint", "critic": {"channels": 4}})
    build_learner = select_learner_factory([*STAGES, *build_stages(joint)])
    assert isinstance(build_learner(joint, made_cases(1), CPU), JointLearner)


@pytest.mark.parametrize("kind", ["corrector", "joint"])
def test_a_bundle_with_refinement_has_one_stage(kind: str) -> None:
    (stage,) = build_stages(made_spec(refinement={"kind": kind, "steps": 7}))
    assert stage.steps == (7 if kind == "corrector" else 0)
    assert build_stages(made_spec()) == ()
