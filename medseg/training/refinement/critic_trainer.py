"""The critic as an critic: judges masks for whoever makes them, and learns to tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.losses import PatchAdversarialLoss
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.networks.critic import Critic
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup


class ScoreLoss(PatchAdversarialLoss):  # type: ignore[misc]
    """Least squares of a critic's scores (Mao et al., ICCV 2017).

    MONAI fills a tensor of integers with its target, which makes 0 of 0.9; here it may be any.

    Args:
        real: What the scores of true masks should be.
    """

    def __init__(self, real: float = 1.0) -> None:
        super().__init__(criterion="least_squares", no_activation_leastsq=True)
        self.real_label = real

    def get_target_tensor(self, input: torch.Tensor, target_is_real: bool) -> torch.Tensor:  # noqa: A002 - MONAI's name
        """Return what the scores should be, of their shape."""
        return torch.full_like(input, self.real_label if target_is_real else self.fake_label)


class CriticTrainer:
    """A critic with its optimiser: judges masks for whoever makes them, and learns to.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
        steps: How many there will be.
        device: Where to compute.
        group: The processes that train together.

    Attributes:
        parts: What the last step said of itself, for listeners.
    """

    def __init__(
        self,
        spec: BundleSpec,
        refinement: RefinementSpec,
        *,
        steps: int,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._refinement, self._steps = refinement, steps
        self._classes, self._ignored = spec.label_set.channels, spec.label_set.ignore_index
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.training.seed)
            self.network = Critic(spec, refinement).to(device)
        self.learner: nn.Module = self.network
        if group.size > 1:
            self.learner = DistributedDataParallel(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=refinement.critic.learning_rate, betas=(0.5, 0.999)
        )
        self._loss = ScoreLoss()
        self._taught = ScoreLoss(refinement.critic.real_label)
        self.parts: dict[str, torch.Tensor] = {}

    def weight(self, step: int) -> float:
        """Return what its opinion weighs at a 1-based step."""
        refinement = self._refinement
        done = (step - 1) / self._steps - refinement.start
        if done < 0:
            return 0.0
        risen = min(1.0, done / refinement.ramp) if refinement.ramp else 1.0
        return refinement.adversarial_weight * risen

    def generator_loss(
        self, image: torch.Tensor, made: torch.Tensor, label: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Judge masks, for whoever made them: low where they look true. The critic learns nothing.

        Args:
            image: ``(batch, channels, *patch)``.
            made: Probabilities, ``(batch, classes, *patch)``.
            label: Label indices, ``(batch, 1, *patch)``; where nobody annotated it sees neither
                mask.
            step: The 1-based step.

        Returns:
            A scalar with a gradient to ``made`` alone.
        """
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        maps = self.network(image, self._noisy(self._shown(made, label), step))
        opinion: torch.Tensor = self._loss(maps[-1], target_is_real=True, for_discriminator=False)
        self.parts = {"adversarial": opinion.detach()}
        if self._refinement.feature_matching:
            with torch.no_grad():
                wanted = self.network(image, self._noisy(self._true(label), step))
            apart = [functional.l1_loss(a, b) for a, b in zip(maps[:-1], wanted[:-1], strict=True)]
            features = torch.stack(apart).mean()
            self.parts["features"] = features.detach()
            opinion = opinion + self._refinement.feature_matching * features
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        return opinion

    def discriminator_loss(
        self, image: torch.Tensor, made: torch.Tensor, label: torch.Tensor, step: int
    ) -> torch.Tensor:
        """Score true and made masks in one pass, and return the critic's own loss."""
        shown = self._shown(made.detach(), label)
        masks = self._noisy(torch.cat([self._true(label), shown]), step)
        scores = self.learner(torch.cat([image, image]), masks)[-1].float()
        real, fake = scores.chunk(2)
        loss: torch.Tensor = 0.5 * (
            self._taught(real, target_is_real=True, for_discriminator=True)
            + self._taught(fake, target_is_real=False, for_discriminator=True)
        )
        real_mean, fake_mean = real.detach().mean(), fake.detach().mean()
        self.parts |= {
            "critic": loss.detach(),
            "critic_real": real_mean,
            "critic_fake": fake_mean,
            "critic_gap": real_mean - fake_mean,
        }
        return loss

    def _true(self, label: torch.Tensor) -> torch.Tensor:
        smoothing = self._refinement.critic.mask_smoothing
        known = label if self._ignored is None else label.masked_fill(label == self._ignored, 0)
        certain = functional.one_hot(known[:, 0], self._classes).movedim(-1, 1).float()
        return self._shown(certain * (1 - smoothing) + smoothing / self._classes, label)

    def _shown(self, masks: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return masks if self._ignored is None else masks * (label != self._ignored)

    def _noisy(self, masks: torch.Tensor, step: int) -> torch.Tensor:
        # Torch is seeded anew for every step, so this noise has no memory.
        left = self._refinement.critic.instance_noise * max(0.0, 1 - (step - 1) / self._steps)
        return masks + left * torch.randn_like(masks) if left else masks

    def state(self) -> dict[str, Any]:
        """Return weights and optimiser."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
