"""The critic: what it learns, and what its loss for the network changes and does not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.training.refinement.critic_trainer import CriticTrainer, ScoreLoss

FLAT: dict[str, Any] = {"network": {"dims": 2}, "training": {"patch": [24, 24]}}


def spec_of(dims: int = 3, **refinement: Any) -> BundleSpec:
    return made_spec(**(FLAT if dims == 2 else {}), refinement=refinement)


def critic_of(spec: BundleSpec, steps: int = 100) -> CriticTrainer:
    assert spec.refinement is not None
    return CriticTrainer(
        spec, spec.refinement, steps=steps, device=torch.device("cpu")
    )


def masks_of(
    spec: BundleSpec,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, label maps that follow them, and made masks that do not."""
    torch.manual_seed(0)
    image = torch.randn(2, 1, *spec.training.patch)
    return (
        image,
        (image > 0).long(),
        torch.rand(2, 3, *spec.training.patch).softmax(dim=1),
    )


def test_a_target_between_0_and_1_is_reached_at_that_score() -> None:
    scores = torch.full((2, 1, 3, 3), 0.9)
    criterion = ScoreLoss(0.9)
    assert (
        criterion(scores, target_is_real=True, for_discriminator=True).item()
        < 1e-12
    )
    assert (
        criterion(scores, target_is_real=False, for_discriminator=True).item()
        > 0.8
    )


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
def test_the_generator_loss_has_a_gradient_to_the_mask_and_none_to_the_critic(
    matching: float,
) -> None:
    spec = spec_of(feature_matching=matching)
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    made.requires_grad_(True)
    critic.generator_loss(image, made, label, 1).backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in critic.network.parameters())
    assert all(weight.requires_grad for weight in critic.network.parameters())
    assert ("features" in critic.parts) is (matching > 0)


def test_feature_matching_is_added_with_its_weight() -> None:
    losses = []
    for matching in (0.0, 0.5):
        critic = critic_of(
            spec_of(feature_matching=matching, critic={"instance_noise": 0})
        )
        image, label, made = masks_of(spec_of())
        losses.append(critic.generator_loss(image, made, label, 1).item())
    features = critic.parts["features"].item()
    assert features > 0
    assert losses[1] - losses[0] == pytest.approx(0.5 * features, rel=1e-4)
    assert critic.parts["adversarial"].item() == pytest.approx(
        losses[0], rel=1e-5
    )


def test_the_network_is_rewarded_for_masks_that_the_critic_scores_as_true() -> (
    None
):
    critic = critic_of(
        spec_of(feature_matching=0.0, critic={"instance_noise": 0})
    )
    image, label, made = masks_of(spec_of())
    with torch.no_grad():
        scores = critic.network(image, made)[-1]
    wanted = ((scores - 1) ** 2).mean().item()
    assert critic.generator_loss(image, made, label, 1).item() == pytest.approx(
        wanted, rel=1e-5
    )


def test_the_critic_is_taught_its_real_label_for_true_masks_and_0_for_made_ones() -> (
    None
):
    spec = spec_of(
        critic={"instance_noise": 0, "mask_smoothing": 0, "real_label": 0.8}
    )
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    true = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    with torch.no_grad():
        scores = critic.network(
            torch.cat([image, image]), torch.cat([true, made])
        )[-1]
    real, fake = scores.chunk(2)
    wanted = 0.5 * (((real - 0.8) ** 2).mean() + (fake**2).mean())
    found = critic.discriminator_loss(image, made, label, 1).item()
    assert found == pytest.approx(wanted.item(), rel=1e-4)


def test_true_masks_are_smoothed_over_the_classes() -> None:
    critic = critic_of(spec_of(critic={"mask_smoothing": 0.3}))
    _, label, _ = masks_of(spec_of())
    masks = critic._true_masks(label)
    assert masks.sum(dim=1).flatten().tolist() == pytest.approx(
        [1.0] * label.numel()
    )
    assert masks.max().item() == pytest.approx(0.7 + 0.1)
    assert masks.min().item() == pytest.approx(0.1)
    assert torch.equal(masks.argmax(dim=1), label[:, 0])


def test_the_weight_waits_and_then_rises() -> None:
    critic = critic_of(spec_of(adversarial_weight=0.2, start=0.25, ramp=0.5))
    weights = [critic.weight(step) for step in (1, 25, 26, 51, 76, 100)]
    assert weights == pytest.approx([0, 0, 0, 0.1, 0.2, 0.2])


def test_without_a_ramp_the_weight_is_whole_from_the_start() -> None:
    critic = critic_of(spec_of(adversarial_weight=0.2, start=0.25, ramp=0))
    assert [critic.weight(step) for step in (25, 26)] == [0, 0.2]


def test_the_noise_on_masks_falls_to_nothing() -> None:
    critic = critic_of(spec_of(critic={"instance_noise": 0.5}), steps=10)
    masks = torch.zeros(1, 3, 16, 16, 16)
    noise = [float(critic._add_noise(masks, step).std()) for step in (1, 6, 11)]
    assert noise == pytest.approx([0.5, 0.25, 0.0], abs=0.02)


def test_the_critic_sees_nothing_where_the_label_is_ignored() -> None:
    spec = made_spec(
        data={"ignore": 9},
        refinement={
            "feature_matching": 0.5,
            "critic": {"spectral_norm": False},
        },
    )
    critic = critic_of(spec)
    image, label, made = masks_of(spec)
    label[..., :8] = spec.label_set.ignore_index
    made.requires_grad_(True)
    torch.manual_seed(0)
    loss = critic.generator_loss(image, made, label, 1)
    loss.backward()
    assert not made.grad[..., :8].any()
    assert made.grad[..., 8:].any()
    other = made.detach().clone()
    other[..., :8] = 1 / other.shape[1]
    torch.manual_seed(0)
    assert critic.generator_loss(image, other, label, 1).item() == loss.item()
    losses = []
    for masks in (made, other):
        torch.manual_seed(0)
        losses.append(critic.discriminator_loss(image, masks, label, 1).item())
    assert losses[0] == losses[1]


def learn(critic: CriticTrainer, step: int) -> None:
    image, label, made = masks_of(spec_of())
    torch.manual_seed(step)
    critic.optimizer.zero_grad()
    critic.discriminator_loss(image, made, label, step).backward()
    critic.optimizer.step()


def test_a_restored_critic_goes_on_as_the_saved_one() -> None:
    saved, restored = critic_of(spec_of()), critic_of(spec_of())
    learn(saved, 1)
    restored.restore(deepcopy(saved.state()))
    learn(saved, 2)
    learn(restored, 2)
    pairs = zip(
        saved.network.parameters(), restored.network.parameters(), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)
