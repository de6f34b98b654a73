"""The refiner's training: it learns to correct, and a resumed one takes the same steps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case
from support.pretend_gpu import pretend_gpus
from support.trainings import same

from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError, TrainingError
from medseg.events import Event, StepDone
from medseg.networks.building import build_network
from medseg.training.learner import move_to_gpu
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer

CPU = torch.device("cpu")
STEPS = 4


def spec_of(**refinement: Any) -> BundleSpec:
    section = {
        "steps": STEPS,
        "channels": [4, 8],
        "critic": {"channels": 4},
    } | refinement
    return made_spec(training={"checkpoint_every": 2}, refinement=section)


def trainer_of(
    spec: BundleSpec,
    events: list[Event] | None = None,
    device: torch.device = CPU,
) -> RefinerTrainer:
    assert spec.refinement is not None
    made = [made_case(balls(seed=seed)) for seed in range(2)]
    cases = move_to_gpu(made, device)
    batches = PatchBatches(
        cases, spec.training, dims=3, padding=0.0, device=device
    )
    torch.manual_seed(0)
    network = build_network(spec, supervised=False)
    pool = MaskPool(
        spec,
        spec.refinement.bank,
        batches,
        [network],
        steps=spec.refinement.steps,
        device=device,
    )
    listeners = [] if events is None else [events.append]
    return RefinerTrainer(spec, spec.refinement, pool, device, listeners)


@pytest.mark.parametrize("weight", [0.05, 0.0])
def test_a_resumed_refiner_ends_with_the_same_weights(weight: float) -> None:
    spec = spec_of(adversarial_weight=weight)
    states: list[dict[str, Any]] = []
    unbroken = trainer_of(spec)
    unbroken.learn(lambda: states.append(deepcopy(unbroken.state())))
    assert [state["step"] for state in states] == [2, 4]
    resumed = trainer_of(spec)
    resumed.restore(states[0])
    resumed.learn(lambda: states.append(deepcopy(resumed.state())))
    assert same(states[2], states[1])


def test_steps_are_counted_behind_those_of_the_network() -> None:
    spec = spec_of(adversarial_weight=0)
    events: list[Event] = []
    trainer_of(spec, events).learn(lambda: None)
    steps = [event for event in events if isinstance(event, StepDone)]
    before = spec.training.steps
    assert [event.step for event in steps] == list(
        range(before + 1, before + STEPS + 1)
    )
    assert steps[0].parts.keys() == {"dice", "ce"}
    rates = [event.learning_rate for event in steps]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)


def test_a_refiner_that_has_taken_its_steps_takes_no_more() -> None:
    trainer = trainer_of(spec_of(adversarial_weight=0))
    trainer.learn(lambda: None)
    saves: list[int] = []
    trainer.learn(lambda: saves.append(trainer.step))
    assert saves == []


def test_only_the_refiner_learns_and_changes_nothing_before_it_has() -> None:
    trainer = trainer_of(spec_of(adversarial_weight=0))
    image_and_logits = torch.randn(1, 1 + 3, 16, 16, 16)
    with torch.no_grad():
        assert torch.allclose(
            trainer.refining(image_and_logits), image_and_logits[:, 1:]
        )
    trainer.learn(lambda: None)
    with torch.no_grad():
        assert not torch.allclose(
            trainer.refining(image_and_logits), image_and_logits[:, 1:]
        )


def test_the_state_of_another_refiner_is_refused() -> None:
    state = trainer_of(spec_of(channels=[4, 16])).state()
    with pytest.raises(
        CheckpointError, match="does not fit this bundle"
    ) as caught:
        trainer_of(spec_of()).restore(state)
    assert "size mismatch" in str(caught.value.detail)
    assert "size mismatch" not in caught.value.message


def test_a_gpu_is_not_waited_for_within_a_step() -> None:
    spec = spec_of(steps=10, start=0.0, ramp=0.0, bank={"faulty": 0.0})
    events: list[Event] = []
    with pretend_gpus() as gpus:
        trainer = trainer_of(spec, events, torch.device("cuda"))
        gpus.forget_counts()
        trainer.learn(lambda: None)
        assert sum(gpus.waits.values()) <= 1, gpus.waits
    told = [event for event in events if isinstance(event, StepDone)]
    assert len(told) == 10
    assert all(event.parts["critic"] > 0 for event in told)


def test_on_a_gpu_a_critic_that_breaks_is_found_before_anything_is_saved() -> (
    None
):
    critic = {"channels": 4, "learning_rate": 1e30}
    spec = spec_of(critic=critic, start=1.0)
    with pretend_gpus():
        trainer = trainer_of(spec, device=torch.device("cuda"))
        states: list[Any] = []

        def save() -> None:
            states.append(trainer.state())

        with pytest.raises(TrainingError, match="the critic's loss became"):
            trainer.learn(save)
    assert not states
