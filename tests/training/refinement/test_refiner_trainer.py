"""The refiner's training: it learns to correct, and a resumed one takes the same steps."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case
from support.trainings import same

from medseg.bundle.spec import BundleSpec
from medseg.errors import CheckpointError
from medseg.events import Event, StepDone
from medseg.networks.building import build_network
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
    spec: BundleSpec, events: list[Event] | None = None
) -> RefinerTrainer:
    assert spec.refinement is not None
    cases = [made_case(balls(seed=seed)) for seed in range(2)]
    batches = PatchBatches(
        cases, spec.training, dims=3, padding=0.0, device=CPU
    )
    torch.manual_seed(0)
    network = build_network(spec, supervised=False)
    pool = MaskPool(
        spec, spec.refinement.bank, batches, [network], steps=STEPS, device=CPU
    )
    listeners = [] if events is None else [events.append]
    return RefinerTrainer(spec, spec.refinement, pool, CPU, listeners)


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
