"""One step of a network and its critic: which losses add up, and when a step is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.utils import AdversarialKeys, CommonKeys
from support.bundles import made_spec
from torch import nn

from medseg.errors import TrainingError
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_trainer import MaskTrainer

CPU = torch.device("cpu")


class Scores(nn.Module):
    """A network of three scores, the same for every voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scores[None, :, None, None, None] + 0 * image[:, :1]


def trainer_of(steps: int = 10, **refinement: Any) -> MaskTrainer:
    spec = made_spec(refinement={"critic": {"channels": 4}} | refinement)
    assert spec.refinement is not None
    critic = CriticTrainer(spec, spec.refinement, steps=steps, device=CPU)
    network = Scores()
    trainer = MaskTrainer(
        [batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss=lambda levels, label: levels[0].square().mean(),
        critic=critic if spec.refinement.has_critic else None,
        steps=steps,
        device=CPU,
        precision=torch.float32,
        critic_precision=torch.float32,
        handlers=[],
    )
    trainer.state.iteration = 1
    return trainer


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 16, 16, 16, generator=generator)
    return {"image": image, "label": (image > 0).long()}


def output_of(trainer: MaskTrainer, step: int) -> dict[str, Any]:
    trainer.state.iteration = step
    torch.manual_seed(step)
    return trainer._iteration(trainer, batch())


def test_the_generator_loss_is_added_with_its_weight() -> None:
    trainer = trainer_of(adversarial_weight=0.5, start=0.0, ramp=0.0)
    output = output_of(trainer, 1)
    supervised = output[CommonKeys.PRED].detach().square().mean()
    generator_loss = output[AdversarialKeys.GENERATOR_LOSS].detach()
    total = output[CommonKeys.LOSS].item()
    assert total == pytest.approx((supervised + 0.5 * generator_loss).item())


def test_before_its_start_the_critic_learns_and_the_network_hears_nothing() -> (
    None
):
    trainer = trainer_of(adversarial_weight=0.5, start=0.5)
    output = output_of(trainer, 1)
    assert AdversarialKeys.GENERATOR_LOSS not in output
    assert output[AdversarialKeys.DISCRIMINATOR_LOSS].isfinite()


def test_both_networks_take_a_step() -> None:
    trainer = trainer_of(adversarial_weight=0.5, start=0.0)
    before = [
        weight.detach().clone() for weight in trainer.network.parameters()
    ]
    critic = trainer.state.d_network
    critic_before = [weight.detach().clone() for weight in critic.parameters()]
    output_of(trainer, 1)
    after = list(trainer.network.parameters())
    assert not torch.equal(after[0], before[0])
    pairs = zip(critic.parameters(), critic_before, strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_without_a_critic_the_step_is_supervised() -> None:
    output = output_of(trainer_of(adversarial_weight=0.0), 1)
    assert AdversarialKeys.DISCRIMINATOR_LOSS not in output
    supervised = output[CommonKeys.PRED].detach().square().mean()
    assert output[CommonKeys.LOSS].item() == pytest.approx(supervised.item())


def test_a_critic_whose_loss_is_not_finite_ends_the_run() -> None:
    trainer = trainer_of(adversarial_weight=0.5, start=0.5)
    with torch.no_grad():
        next(trainer.state.d_network.parameters()).fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=r"nan at step 3; lower refinement\.critic"
    ):
        output_of(trainer, 3)


def test_the_trainer_keeps_modules_out_of_its_state() -> None:
    assert "g_network" not in trainer_of().state_dict()
