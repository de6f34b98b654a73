"""Handlers around training steps, on real engines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
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
    for weight in weights[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert torch.allclose(average.averaged.module.weight, expected)
