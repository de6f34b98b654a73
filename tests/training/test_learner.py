"""A network learns step by step; shortened or resumed, it continues exactly.

A run may be shortened where a checkpoint is due, or at any other step, where one is made for it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case

from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError
from medseg.events import Event, StepDone
from medseg.training.learner import Callbacks, Learner, move_to_gpu

AT, SHORTER, STEPS = 4, 7, 12
BETWEEN = 5
"""A step at which no checkpoint is due."""


def made(steps: int = STEPS) -> BundleSpec:
    return made_spec(
        training={
            "steps": steps,
            "validate_every": 3,
            "checkpoint_every": AT,
            "patch": [8, 8, 8],
        }
    )


class Shortened:
    """A run of twelve steps that becomes one of seven after the fourth, or the fifth."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.events: list[Event] = []
        self.validated: list[int] = []
        self.saved: dict[int, dict[str, Any]] = {}
        self.learner = Learner(
            made(), self.cases(), torch.device("cpu"), [self.events.append]
        )
        self.stopped = self.learner.learn(
            Callbacks(self.validate, self.save, after_step=self.after_step)
        )

    @staticmethod
    def cases() -> list[Any]:
        return [made_case(balls(seed=seed)) for seed in range(3)]

    @property
    def steps(self) -> list[StepDone]:
        return [event for event in self.events if isinstance(event, StepDone)]

    def validate(self, step: int) -> bool:
        self.validated.append(step)
        return True

    def save(self, step: int) -> None:
        self.saved[step] = deepcopy(self.learner.state())
        if step == AT == self.at:
            self.learner.shorten(SHORTER)

    def after_step(self, step: int) -> None:
        if step == BETWEEN == self.at:
            self.save(step)
            self.learner.shorten(SHORTER)


@pytest.fixture(scope="module", params=[AT, BETWEEN])
def shortened(request: pytest.FixtureRequest) -> Shortened:
    return Shortened(request.param)


def test_every_step_is_taken_once_and_the_last_is_the_new_one(
    shortened: Shortened,
) -> None:
    assert [event.step for event in shortened.steps] == list(
        range(1, SHORTER + 1)
    )
    assert not shortened.stopped
    assert shortened.validated == [3, 6, SHORTER]
    assert sorted(shortened.saved) == sorted({AT, shortened.at, SHORTER})
    assert shortened.learner.spec.training.steps == SHORTER


def test_the_rate_goes_on_along_the_shorter_schedule(
    shortened: Shortened,
) -> None:
    rates = [event.learning_rate for event in shortened.steps]
    at = shortened.at
    assert rates[at - 1] == pytest.approx(0.01 * (1 - (at - 1) / STEPS) ** 0.9)
    assert rates[at] == pytest.approx(0.01 * (1 - at / SHORTER) ** 0.9)


def test_what_was_saved_then_goes_on_to_the_same_weights(
    shortened: Shortened,
) -> None:
    resumed = Learner(made(SHORTER), Shortened.cases(), torch.device("cpu"))
    resumed.restore(shortened.saved[shortened.at])
    resumed.learn(Callbacks(validate=lambda _: True, save=lambda _: None))
    unbroken = shortened.learner.network.state_dict()
    for name, value in resumed.network.state_dict().items():
        assert torch.equal(value, unbroken[name]), name


def test_a_run_with_clicks_is_resumed_bit_for_bit() -> None:
    training = {"steps": 6, "patch": [8, 8, 8], "clicks": {"share": 0.9}}
    spec = made_spec(training=training)
    saved: dict[int, dict[str, Any]] = {}

    def learn(state: dict[str, Any] | None = None) -> Learner:
        learner = Learner(spec, Shortened.cases(), torch.device("cpu"))
        if state is not None:
            learner.restore(state)

        def save(step: int) -> None:
            saved.setdefault(step, deepcopy(learner.state()))

        callbacks = Callbacks(lambda _: True, save, after_step=save)
        learner.learn(callbacks)
        return learner

    unbroken = learn()
    batch = unbroken.batches.batch(3)["image"]
    assert batch[:, 1:3].amax() == 1
    resumed = learn(saved[3]).network.state_dict()
    for name, value in unbroken.network.state_dict().items():
        assert torch.equal(value, resumed[name]), name
    # Validation asks what the network finds by itself.
    assert unbroken.validate(Shortened.cases()).scores["dice"]["mean"] >= 0


def trained_with_average() -> tuple[Learner, list[Any]]:
    averaging = made_spec(
        training={
            "steps": 4,
            "patch": [8, 8, 8],
            "ema": 0.9,
            "learning_rate": 0.1,
        }
    )
    cases = Shortened.cases()
    learner = Learner(averaging, cases, torch.device("cpu"))
    learner.learn(Callbacks(validate=lambda _: True, save=lambda _: None))
    return learner, cases


def test_validation_uses_the_moving_average_of_the_weights() -> None:
    learner, cases = trained_with_average()
    before = learner.validate(cases[:1], examples=1)
    with torch.no_grad():
        for weight in learner.network.parameters():
            weight.fill_(torch.nan)
    after = learner.validate(cases[:1], examples=1)
    assert repr(after.scores) == repr(before.scores)
    (prediction,) = before.examples.values()
    assert torch.equal(next(iter(after.examples.values())), prediction)


def test_the_moving_average_is_resumed_too() -> None:
    learner, cases = trained_with_average()
    other = Learner(learner.spec, cases, torch.device("cpu"))
    other.restore(deepcopy(learner.state()))
    averaged = learner.inference_network.state_dict()
    for name, value in other.inference_network.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    assert any(
        not torch.equal(value, averaged[name])
        for name, value in learner.network.state_dict().items()
    )


def test_a_checkpoint_of_another_network_is_refused() -> None:
    learner, cases = trained_with_average()
    other = made_spec(network={"channels": [4, 8, 8]}, training={"ema": 0.9})
    with pytest.raises(
        CheckpointError, match="does not fit this bundle"
    ) as caught:
        Learner(other, cases, torch.device("cpu")).restore(learner.state())
    assert caught.value.detail
    assert "weight" not in caught.value.message


def test_cases_stay_where_they_are_without_a_gpu() -> None:
    cases = Shortened.cases()
    assert move_to_gpu(cases, torch.device("cpu")) is cases
