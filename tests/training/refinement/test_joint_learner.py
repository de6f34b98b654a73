"""Joint training: a network and its critic learn, are saved and restored together."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case
from support.trainings import same

from medseg.errors import CheckpointError
from medseg.training.learner import Callbacks
from medseg.training.refinement.joint_learner import JointLearner

CPU = torch.device("cpu")
SPEC = made_spec(
    training={"steps": 4, "checkpoint_every": 2, "validate_every": 4},
    refinement={"kind": "joint", "start": 0.0, "critic": {"channels": 4}},
)


def learner_of(spec: Any = SPEC) -> JointLearner:
    cases = [made_case(balls(seed=seed)) for seed in range(2)]
    return JointLearner(spec, spec.refinement, cases, CPU)


def learn(learner: JointLearner) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = []

    def save(_: int) -> None:
        states.append(deepcopy(learner.state()))

    learner.learn(Callbacks(validate=lambda step: True, save=save))
    return states


def test_a_resumed_learner_ends_with_the_same_weights() -> None:
    unbroken = learner_of()
    states = learn(unbroken)
    assert [state["step"] for state in states] == [2, 4]
    assert {
        "dice",
        "ce",
        "adversarial",
        "critic_gap",
    } <= unbroken.parts().keys()
    resumed = learner_of()
    resumed.restore(states[0])
    assert same(learn(resumed)[-1], states[1])


def test_a_checkpoint_without_a_critic_is_refused() -> None:
    state = learner_of().state()
    del state["opponent"]
    with pytest.raises(CheckpointError, match="critic does not fit"):
        learner_of().restore(state)
