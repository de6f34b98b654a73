"""MONAI's adversarial trainer, made to judge masks by a critic that sees the image, too.

MONAI's ``AdversarialTrainer`` takes the input image for "real" and the network's output for
"fake", scores every feature map of a patch discriminator, sets a loss and fires MODEL_COMPLETED
only where it trains with a gradient scaler, and puts whole modules into checkpoints. What it does
in a step is therefore written anew here; its state, its events and its place among MONAI's
trainers stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import AdversarialTrainer, IterationEvents
from monai.engines.workflow import Workflow
from monai.utils import AdversarialIterationEvents, AdversarialKeys, CommonKeys
from torch import nn

from medseg.networks.inferers import build_training_inferer
from medseg.networks.levels import list_levels
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.handlers import require_finite_critic
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_pool import NETWORK_INPUT


class MaskTrainer(AdversarialTrainer):  # type: ignore[misc]
    """Takes the steps of a network that makes masks, and of the critic it learns against.

    A batch holds ``image`` and ``label``, and ``network_input`` where the network gets more than
    the image. One epoch of the engine is the whole training.

    Args:
        batches: Endless batches.
        network: Makes logits, or a list of them from fine to coarse.
        optimizer: The network's optimiser.
        loss: Computes the supervised loss of logits, fine to coarse, and label.
        critic: The critic and its optimiser; without one the training is supervised.
        steps: Steps of the whole training.
        device: Where to compute.
        precision: Arithmetic of the network's forward passes.
        critic_precision: Arithmetic of the critic's.
        handlers: In running order.
    """

    def __init__(
        self,
        batches: Any,
        *,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor],
        critic: CriticTrainer | None,
        steps: int,
        device: torch.device,
        precision: torch.dtype,
        critic_precision: torch.dtype,
        handlers: Sequence[Any],
    ) -> None:
        self._critic = critic
        super().__init__(
            device=device,
            max_epochs=1,
            epoch_length=steps,
            train_data_loader=batches,
            g_network=network,
            g_optimizer=optimizer,
            g_loss_function=critic.generator_loss if critic else None,
            recon_loss_function=loss,
            d_network=critic.network if critic else None,
            d_optimizer=critic.optimizer if critic else None,
            d_loss_function=critic.discriminator_loss if critic else None,
            g_inferer=build_training_inferer(device, precision),
            train_handlers=handlers,
            decollate=False,
            optim_set_to_none=True,
        )
        half = precision == torch.float16
        self.state.g_scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.state.d_scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.scaler = self.state.g_scaler if half else None
        self._critic_precision = critic_precision

    @property
    def network(self) -> nn.Module:
        """The network that makes masks, under the name that handlers know."""
        network: nn.Module = self.state.g_network
        return network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The network's optimiser, under the name that handlers know."""
        optimizer: torch.optim.Optimizer = self.state.g_optimizer
        return optimizer

    def _complete_state_dict_user_keys(self) -> None:
        """Keep modules out of the engine's state; learners save weights themselves."""

    def run(self) -> None:
        """Run; MONAI's own ``run`` would replace the gradient scalers by ones for CUDA."""
        Workflow.run(self)

    def _iteration(
        self, engine: Any, batchdata: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        image = batchdata[IMAGE]
        label = batchdata[LABEL]
        network_input = batchdata.get(NETWORK_INPUT, image)
        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
        made = self._train_network(image, label, network_input)
        if self._critic is not None:
            self._train_critic(self._critic, image, label, made)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = self.state.output
        return output

    def _train_network(
        self,
        image: torch.Tensor,
        label: torch.Tensor,
        network_input: torch.Tensor,
    ) -> torch.Tensor:
        """Take the network's step and return the probabilities it made."""
        state = self.state
        state.g_network.train()
        state.g_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        levels = list_levels(self.g_inferer(network_input, state.g_network))
        made = levels[0].float().softmax(dim=1)
        state.output[CommonKeys.PRED] = levels[0]
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = state.recon_loss_function(levels, label)
        loss = self._add_generator_loss(loss, image, made, label)
        state.output[CommonKeys.LOSS] = loss
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        state.g_scaler.scale(loss).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        state.g_scaler.step(state.g_optimizer)
        state.g_scaler.update()
        self.fire_event(AdversarialIterationEvents.GENERATOR_MODEL_COMPLETED)
        return made.detach()

    def _add_generator_loss(
        self,
        loss: torch.Tensor,
        image: torch.Tensor,
        made: torch.Tensor,
        label: torch.Tensor,
    ) -> torch.Tensor:
        if self._critic is None:
            return loss
        step = self.state.iteration
        weight = self._critic.weight(step)
        if weight == 0:
            # Not even computed: the critic's own noise would use up random numbers.
            return loss
        with self._autocast():
            generator_loss = self._critic.generator_loss(
                image, made, label, step
            )
        self.state.output[AdversarialKeys.GENERATOR_LOSS] = generator_loss
        return loss + weight * generator_loss

    def _train_critic(
        self,
        critic: CriticTrainer,
        image: torch.Tensor,
        label: torch.Tensor,
        made: torch.Tensor,
    ) -> None:
        """Take the critic's step.

        Raises:
            TrainingError: If its loss is no longer finite.
        """
        state = self.state
        critic.learner.train()
        critic.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._autocast():
            loss = critic.discriminator_loss(
                image, made, label, state.iteration
            )
        if loss.device.type != "cuda":
            # A GPU would be waited for; there it is found when losses are read.
            require_finite_critic(loss.item(), state.iteration)
        state.output[AdversarialKeys.DISCRIMINATOR_LOSS] = loss.detach()
        state.d_scaler.scale(loss).backward()
        state.d_scaler.step(critic.optimizer)
        state.d_scaler.update()
        self.fire_event(
            AdversarialIterationEvents.DISCRIMINATOR_MODEL_COMPLETED
        )

    def _autocast(self) -> torch.autocast:
        device = self.state.device.type
        if self._critic_precision == torch.float32:
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, dtype=self._critic_precision)

    def scaler_states(self) -> dict[str, Any]:
        """Return the states of the gradient scalers."""
        return {
            "g": self.state.g_scaler.state_dict(),
            "d": self.state.d_scaler.state_dict(),
        }

    def restore_scalers(self, states: Mapping[str, Any]) -> None:
        """Restore saved states of the gradient scalers."""
        self.state.g_scaler.load_state_dict(states["g"])
        self.state.d_scaler.load_state_dict(states["d"])
