"""The critic and its optimiser: the loss it gives to whoever makes masks, and its own.

The critic is a conditional PatchGAN (Isola et al., CVPR 2017) trained by least squares (Mao et
al., ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.losses import PatchAdversarialLoss
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.networks.critic import Critic
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.handlers import CRITIC


class ScoreLoss(PatchAdversarialLoss):  # type: ignore[misc]
    """Least squares of a critic's scores (Mao et al., ICCV 2017).

    MONAI fills a tensor of integers with its target, which makes 0 of 0.9; here it may be any.

    Args:
        real: What the scores of true masks should be.
    """

    def __init__(self, real: float = 1.0) -> None:
        super().__init__(criterion="least_squares", no_activation_leastsq=True)
        self.real_label = real

    def get_target_tensor(
        self,
        input: torch.Tensor,  # noqa: A002 - MONAI's name
        target_is_real: bool,
    ) -> torch.Tensor:
        """Return the scores to reach, of the input's shape."""
        target = self.real_label if target_is_real else self.fake_label
        return torch.full_like(input, target)


class CriticTrainer:
    """A critic with its optimiser.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
        steps: Steps of the whole training of the critic.
        device: Where to compute.
        group: The processes that train together.

    Attributes:
        network: The critic.
        learner: The critic, wrapped where several processes share a batch.
        optimizer: The critic's optimiser.
        parts: Losses and mean scores of the last step, for listeners.
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
        self._refinement = refinement
        self._steps = steps
        self._classes = spec.label_set.channels
        self._ignore_index = spec.label_set.ignore_index
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.training.seed)
            self.network = Critic(spec, refinement).to(device)
        self.learner: nn.Module = self.network
        if group.size > 1:
            self.learner = DistributedDataParallel(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=refinement.critic.learning_rate,
            betas=(0.5, 0.999),
        )
        self._generator_criterion = ScoreLoss()
        # One-sided label smoothing (Salimans et al., NeurIPS 2016): only the critic's own target.
        self._critic_criterion = ScoreLoss(refinement.critic.real_label)
        self.parts: dict[str, torch.Tensor] = {}

    def weight(self, step: int) -> float:
        """Return the weight of the generator loss at a 1-based step: 0, a ramp, then constant."""
        refinement = self._refinement
        share_since_start = (step - 1) / self._steps - refinement.start
        if share_since_start < 0:
            return 0.0
        if refinement.ramp == 0:
            return refinement.adversarial_weight
        return refinement.adversarial_weight * min(
            1.0, share_since_start / refinement.ramp
        )

    def generator_loss(
        self,
        image: torch.Tensor,
        made: torch.Tensor,
        label: torch.Tensor,
        step: int,
    ) -> torch.Tensor:
        """Score made masks for the network that made them: low where they look true.

        Args:
            image: ``(batch, channels, *patch)``.
            made: Probabilities, ``(batch, classes, *patch)``.
            label: Label indices, ``(batch, 1, *patch)``; where they are the ignore index the
                critic sees neither mask.
            step: The 1-based step.

        Returns:
            A scalar with a gradient to ``made`` alone; the critic learns nothing from it.
        """
        with self._frozen():
            maps = self.network(
                image, self._add_noise(self._hide_ignored(made, label), step)
            )
            loss: torch.Tensor = self._generator_criterion(
                maps[-1], target_is_real=True, for_discriminator=False
            )
            self.parts = {"adversarial": loss.detach()}
            if self._refinement.feature_matching:
                features = self._feature_distance(maps, image, label, step)
                self.parts["features"] = features.detach()
                loss = loss + self._refinement.feature_matching * features
        return loss

    def discriminator_loss(
        self,
        image: torch.Tensor,
        made: torch.Tensor,
        label: torch.Tensor,
        step: int,
    ) -> torch.Tensor:
        """Score true and made masks in one pass.

        Args:
            image: ``(batch, channels, *patch)``.
            made: Probabilities, ``(batch, classes, *patch)``; no gradient reaches them.
            label: Label indices, ``(batch, 1, *patch)``.
            step: The 1-based step.

        Returns:
            The critic's own loss, a scalar.
        """
        made = self._hide_ignored(made.detach(), label)
        true = self._true_masks(label)
        masks = self._add_noise(torch.cat([true, made]), step)
        scores = self.learner(torch.cat([image, image]), masks)[-1].float()
        real, fake = scores.chunk(2)
        real_loss = self._critic_criterion(
            real, target_is_real=True, for_discriminator=True
        )
        fake_loss = self._critic_criterion(
            fake, target_is_real=False, for_discriminator=True
        )
        loss: torch.Tensor = 0.5 * (real_loss + fake_loss)
        real_mean = real.detach().mean()
        fake_mean = fake.detach().mean()
        self.parts |= {
            CRITIC: loss.detach(),
            "critic_real": real_mean,
            "critic_fake": fake_mean,
            "critic_gap": real_mean - fake_mean,
        }
        return loss

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Keep gradients from the critic's weights."""
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        yield
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)

    def _feature_distance(
        self,
        maps: list[torch.Tensor],
        image: torch.Tensor,
        label: torch.Tensor,
        step: int,
    ) -> torch.Tensor:
        """Return how far the critic's feature maps of made and of true masks lie apart.

        The mean L1 distance over its layers (Wang et al., CVPR 2018).
        """
        with torch.no_grad():
            true_maps = self.network(
                image, self._add_noise(self._true_masks(label), step)
            )
        distances = []
        for made_map, true_map in zip(maps[:-1], true_maps[:-1], strict=True):
            distances.append(functional.l1_loss(made_map, true_map))
        return torch.stack(distances).mean()

    def _true_masks(self, label: torch.Tensor) -> torch.Tensor:
        """Return label maps as probabilities that are not quite certain."""
        smoothing = self._refinement.critic.mask_smoothing
        known = label
        if self._ignore_index is not None:
            is_ignored = label == self._ignore_index
            known = label.masked_fill(is_ignored, 0)
        one_hot = functional.one_hot(known[:, 0], self._classes)
        certain = one_hot.movedim(-1, 1).float()
        masks = certain * (1 - smoothing) + smoothing / self._classes
        return self._hide_ignored(masks, label)

    def _hide_ignored(
        self, masks: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Return masks that are 0 in every class where the label is the ignore index."""
        if self._ignore_index is None:
            return masks
        return masks * (label != self._ignore_index)

    def _add_noise(self, masks: torch.Tensor, step: int) -> torch.Tensor:
        """Add instance noise (Sønderby et al., ICLR 2017), which falls to 0 over the steps."""
        share_left = max(0.0, 1 - (step - 1) / self._steps)
        sd = self._refinement.critic.instance_noise * share_left
        if sd == 0:
            return masks
        # Torch is seeded anew for every step, so that a resumed run draws the same noise.
        return masks + sd * torch.randn_like(masks)

    def state(self) -> dict[str, Any]:
        """Return weights and optimiser."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
