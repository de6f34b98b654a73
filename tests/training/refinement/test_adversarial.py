"""Adversarial training: what the critic learns, what its opinion changes, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.errors import BundleError
from medseg.events import Event, Notice, StepDone
from medseg.training.history import TrainingHistory
from medseg.training.refinement.critic_trainer import CriticTrainer, ScoreLoss
from medseg.training.refinement.stage import critic_gap, snapshot_steps, total_steps

FLAT: dict[str, Any] = {"network": {"dims": 2}, "training": {"patch": [24, 24]}}


def spec_of(dims: int = 3, **refinement: Any) -> BundleSpec:
    return made_spec(**(FLAT if dims == 2 else {}), refinement=refinement)


def critic_of(spec: BundleSpec, steps: int = 100) -> CriticTrainer:
    assert spec.refinement is not None
    return CriticTrainer(spec, spec.refinement, steps=steps, device=torch.device("cpu"))


def masks_of(spec: BundleSpec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, label maps that follow them, and made masks that do not."""
    torch.manual_seed(0)
    image = torch.randn(2, 1, *spec.training.patch)
    return image, (image > 0).long(), torch.rand(2, 3, *spec.training.patch).softmax(dim=1)


def test_targets_between_labels_are_kept() -> None:
    scores = torch.full((2, 1, 3, 3), 0.9)
    taught = ScoreLoss(0.9)
    assert taught(scores, target_is_real=True, for_discriminator=True).item() < 1e-12
    assert taught(scores, target_is_real=False, for_discriminator=True).item() > 0.8


@pytest.mark.parametrize("dims", [2, 3])
def test_a_critic_learns_to_tell_true_masks_from_made_ones(dims: int) -> None:
    spec = spec_of(dims, critic={"learning_rate": 0.003})
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    for step in range(1, 41):
        critic.optimizer.zero_grad()
        critic.discriminator_loss(image, made, label, step).backward()
        critic.optimizer.step()
    assert critic.parts["critic_gap"] > 0.5
    gap = critic.parts["critic_real"] - critic.parts["critic_fake"]
    assert critic.parts["critic_gap"].item() == pytest.approx(gap.item())


@pytest.mark.parametrize("matching", [0.0, 0.5])
def test_its_opinion_moves_the_mask_and_not_the_critic(matching: float) -> None:
    spec = spec_of(feature_matching=matching)
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    made.requires_grad_(True)
    critic.generator_loss(image, made, label, 1).backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(one.grad is None for one in critic.network.parameters())
    assert all(one.requires_grad for one in critic.network.parameters() if one.ndim > 1)
    assert ("features" in critic.parts) is (matching > 0)


def test_the_weight_waits_and_then_rises() -> None:
    critic = critic_of(spec_of(adversarial_weight=0.2, start=0.25, ramp=0.5))
    weights = [critic.weight(step) for step in (1, 25, 26, 51, 76, 100)]
    assert weights == pytest.approx([0, 0, 0, 0.1, 0.2, 0.2])


def test_the_noise_on_masks_falls_to_nothing() -> None:
    spec = spec_of(critic={"instance_noise": 0.5})
    critic = critic_of(spec, steps=10)
    masks = torch.zeros(1, 3, 16, 16, 16)
    noise = [float(critic._noisy(masks, step).std()) for step in (1, 6, 11)]
    assert noise == pytest.approx([0.5, 0.25, 0.0], abs=0.02)


@pytest.mark.parametrize(("gap", "told"), [(0.1, True), (0.5, False)])
@pytest.mark.parametrize("kind", ["corrector", "joint"])
def test_a_critic_that_never_separates_is_told(kind: str, gap: float, told: bool) -> None:
    spec = spec_of(kind=kind, steps=40)
    record, heard = TrainingHistory("made_up"), list[Event]()
    for step in range(1, total_steps(spec) + 1):
        last_quarter = step > total_steps(spec) - 10
        record(StepDone(step, 1.0, {"critic_gap": gap if last_quarter else 0.9}, 0.1))
    if kind == "joint":
        record = TrainingHistory("made_up")
        for step in range(1, 5):
            record(StepDone(step, 1.0, {"critic_gap": gap if step == 4 else 0.9}, 0.1))
    assert critic_gap(spec, record, [heard.append]) == pytest.approx(gap)
    assert [type(event) for event in heard] == ([Notice] if told else [])


def test_without_a_critic_there_is_no_gap() -> None:
    assert critic_gap(made_spec(), TrainingHistory("made_up"), []) is None
    assert critic_gap(spec_of(adversarial_weight=0), TrainingHistory("made_up"), []) is None


def test_snapshots_are_taken_at_halves_of_halves() -> None:
    spec = made_spec(training={"steps": 100}, refinement={"bank": {"snapshots": 3}})
    assert snapshot_steps(spec) == [12, 25, 50]
    assert snapshot_steps(made_spec()) == []
    assert snapshot_steps(spec_of(kind="joint")) == []


@pytest.mark.parametrize(
    ("sections", "where", "what"),
    [
        ({"refinement": {"kind": "joint", "adversarial_weight": 0}}, "refinement", "joint"),
        ({"refinement": {"critic": {"layers": 3}}}, "refinement.critic.layers", "24 voxels"),
        ({"refinement": {"steps": 0}}, "refinement.steps", "greater"),
        ({"refinement": {"discriminator": {}}}, "refinement.discriminator", "no field"),
    ],
)
def test_faults_of_the_section_are_named(sections: Any, where: str, what: str) -> None:
    with pytest.raises(BundleError) as caught:
        made_spec(**sections)
    faults = {fault.where: fault.what for fault in caught.value.faults}
    assert what in faults[where]


def test_the_critic_sees_nothing_where_nobody_annotated() -> None:
    spec = spec_of(feature_matching=0.5, critic={"spectral_norm": False})
    spec = spec.model_copy(update={"data": DataSpec(ignore=9)})
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    label[..., :8] = spec.label_set.ignore_index
    made.requires_grad_(True)
    torch.manual_seed(0)
    opinion = critic.generator_loss(image, made, label, 1)
    opinion.backward()
    assert not made.grad[..., :8].any()
    assert made.grad[..., 8:].any()
    other = made.detach().clone()
    other[..., :8] = 1 / other.shape[1]
    torch.manual_seed(0)
    assert critic.generator_loss(image, other, label, 1).item() == opinion.item()
    lessons = []
    for masks in (made, other):
        torch.manual_seed(0)
        lessons.append(critic.discriminator_loss(image, masks, label, 1).item())
    assert lessons[0] == lessons[1]
