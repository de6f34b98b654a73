"""Handlers around training steps, on real engines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from support.bundles import made_spec
from torch import nn

from medseg.errors import TrainingError
from medseg.training.handlers import (
    EverySteps,
    GradientClip,
    LearningRate,
    StepSeed,
    StopOnNan,
    WeightAverage,
)


def rates(**training: Any) -> list[float]:
    spec = made_spec(training={"learning_rate": 0.1, **training}).training
    return [
        LearningRate(spec).rate_at(step) for step in range(1, spec.steps + 1)
    ]


def test_poly() -> None:
    expected = [0.1 * (1 - done / 10) ** 0.9 for done in range(10)]
    assert rates(steps=10, schedule="poly") == pytest.approx(expected)


def test_cosine() -> None:
    expected = [
        0.05 * (1 + math.cos(math.pi * done / 10)) for done in range(10)
    ]
    assert rates(steps=10, schedule="cosine") == pytest.approx(expected)


def test_constant() -> None:
    assert rates(steps=5, schedule="constant") == [0.1] * 5


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_the_rate_rises_to_its_top_and_never_after(schedule: str) -> None:
    found = rates(steps=30, schedule=schedule, warmup_steps=10)
    assert found[:10] == pytest.approx([0.01 * n for n in range(1, 11)])
    assert found[10] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(found[9:]))
    assert all(rate > 0 for rate in found)


def trainer_of(
    network: nn.Module, handlers: list[Any], rate: float = 1.0
) -> SupervisedTrainer:
    """Return a trainer of three steps that pulls a network's output towards large numbers."""
    data = [{"image": torch.ones(1, 2), "label": torch.ones(1, 1)}] * 3
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=data,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=rate),
        loss_function=lambda output, label: -1000 * (output * label).sum(),
        train_handlers=handlers,
        decollate=False,
    )
    trainer.logger.setLevel("CRITICAL")
    return trainer


def test_the_rate_of_a_step_is_set_before_it() -> None:
    seen: list[float] = []
    network = nn.Linear(2, 1)
    schedule = LearningRate(
        made_spec(training={"steps": 10, "learning_rate": 0.1}).training
    )
    trainer = trainer_of(network, [schedule])
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: seen.append(e.optimizer.param_groups[0]["lr"]),
    )
    trainer.run()
    assert seen == pytest.approx([schedule.rate_at(step) for step in (1, 2, 3)])


@pytest.mark.parametrize("largest", [0.5, 1e9])
def test_a_gradients_norm_is_limited(largest: float) -> None:
    network = nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    trainer_of(network, [GradientClip(largest)]).run()
    moved = float((network.weight - before).norm())
    assert moved == pytest.approx(
        min(3 * largest, 3 * 1000 * math.sqrt(2)), rel=1e-3
    )


def test_a_loss_that_is_not_finite_ends_training_and_names_its_step() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.calls = 0

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.weight * (math.nan if self.calls == 2 else 1.0)

    network = Breaks()
    with pytest.raises(TrainingError, match=r"became nan at step 2; lower"):
        trainer_of(network, [StopOnNan()], rate=1e-6).run()
    assert network.weight.isfinite().all()


def test_every_so_many_steps_and_after_the_last() -> None:
    called: list[int] = []
    engine = Engine(lambda engine, batch: None)
    EverySteps(3, 7, called.append).attach(engine)
    engine.run([0] * 7, max_epochs=1)
    assert called == [3, 6, 7]


def test_a_steps_seed_depends_on_seed_and_step_alone() -> None:
    def drawn(seed: int, steps: int) -> list[float]:
        found: list[float] = []
        engine = Engine(
            lambda engine, batch: found.append(float(torch.rand(())))
        )
        StepSeed(seed).attach(engine)
        engine.run([0] * steps, max_epochs=1)
        return found

    assert drawn(1, 5)[:3] == drawn(1, 3)
    assert len(set(drawn(1, 50) + drawn(2, 50))) == 100
    assert drawn(2**32 - 1, 1)


def test_the_average_starts_at_the_first_trained_weights_and_follows() -> None:
    network = nn.Linear(2, 1, bias=False)
    average = WeightAverage(network, decay=0.9)
    weights: list[torch.Tensor] = []
    trainer = trainer_of(network, [average])
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda e: weights.append(network.weight.detach().clone()),
    )
    trainer.run()
    expected = weights[0]
    for done, weight in enumerate(weights[1:], start=1):
        kept = (1 + done) / (8 + done)
        expected = kept * expected + (1 - kept) * weight
    assert torch.allclose(average.averaged.module.weight, expected)


def test_the_average_looks_back_on_a_seventh_of_the_steps_up_to_its_decay() -> (
    None
):
    average = WeightAverage(nn.Linear(1, 1), decay=0.9975)
    for done in (7, 70, 700, 2000):
        horizon = 1 / (1 - average.decay_at(done))
        assert horizon == pytest.approx(done / 7, abs=1.2)
    assert average.decay_at(2791) < 0.9975
    assert average.decay_at(2793) == average.decay_at(10**6) == 0.9975


def learn(steps: int, decay: float, schedule: str, seed: int) -> list[float]:
    """Learn a noisy parabola; return the losses of the last weights and of their average.

    Its 40 directions are steep to flat, so that some are learned at once and some never.
    """
    torch.manual_seed(seed)
    slopes = torch.logspace(0, -3, 40)
    network = nn.Linear(40, 1, bias=False)
    nn.init.ones_(network.weight)
    average = WeightAverage(network, decay)
    rate = LearningRate(
        made_spec(
            training={
                "steps": steps,
                "learning_rate": 0.5,
                "schedule": schedule,
            }
        ).training
    )
    for step in range(1, steps + 1):
        with torch.no_grad():
            noise = 0.05 * torch.randn(1, 40)
            gradient = slopes * (network.weight + noise)
            network.weight -= rate.rate_at(step) * gradient
        average(Engine(lambda *_: None))
    return [
        float((slopes * weight.detach() ** 2).sum())
        for weight in (network.weight, average.averaged.module.weight)
    ]


@given(
    steps=st.sampled_from([20, 50, 150, 500, 2000, 5000]),
    decay=st.sampled_from([0.9, 0.99, 0.9975, 0.999]),
    schedule=st.sampled_from(["poly", "cosine"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=8, deadline=None)
def test_averaged_weights_are_never_worse_than_the_last(
    steps: int, decay: float, schedule: str, seed: int
) -> None:
    last, averaged = learn(steps, decay, schedule, seed)
    assert averaged <= 1.1 * last


def test_a_run_shorter_than_its_warm_up_still_rises_and_falls() -> None:
    found = rates(steps=20, schedule="poly", warmup_steps=20)
    assert found[:10] == pytest.approx([0.01 * n for n in range(1, 11)])
    assert found[10] == pytest.approx(0.1)
    assert found[-1] < 0.02
    assert rates(steps=1, warmup_steps=5) == [0.1]
