"""Adversarial training: MONAI's trainer, made to judge masks by a critic that sees the image, too.

MONAI's ``AdversarialTrainer`` takes the input image for "real" and the answer for "fake", scores
every feature map of a patch discriminator, sets a loss and fires MODEL_COMPLETED in no case that
matters here, and puts whole modules into checkpoints. What it does in a step is therefore said
anew; its state, events and place in MONAI's world stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import AdversarialTrainer, IterationEvents
from monai.engines.workflow import Workflow
from monai.utils import AdversarialIterationEvents, AdversarialKeys, CommonKeys
from torch import nn

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import CheckpointError, TrainingError
from medseg.events import Listener
from medseg.networks.inferers import training_inferer
from medseg.networks.unet import levels_of
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.learner import Learner
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_pool import NETWORK_INPUT


class MaskTrainer(AdversarialTrainer):  # type: ignore[misc]
    """Takes the steps of a network that makes masks, and of the critic it learns against.

    A batch holds ``image`` and ``label``, and under ``given`` what the network sees if that is
    more than the image. One of the engine's epochs is the whole training.

    Args:
        batches: Endless batches.
        network: Makes logits, or a list of them from fine to coarse.
        optimizer: The network's.
        loss: Logits and label → the supervised loss.
        critic: The critic; without one the training is supervised.
        steps: How many there will be.
        device: Where to compute.
        precision: Arithmetic of the forward passes.
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
        handlers: Sequence[Any],
    ) -> None:
        self._critic = critic
        inferer = training_inferer(device, precision)
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
            g_inferer=inferer,
            train_handlers=handlers,
            decollate=False,
            optim_set_to_none=True,
        )
        half = precision == torch.float16
        self.state.g_scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.state.d_scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.scaler = self.state.g_scaler if half else None
        self._precision = precision

    @property
    def network(self) -> nn.Module:
        """The network that makes masks, under the name that handlers know."""
        network: nn.Module = self.state.g_network
        return network

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimiser, under the name that handlers know."""
        optimizer: torch.optim.Optimizer = self.state.g_optimizer
        return optimizer

    def _complete_state_dict_user_keys(self) -> None:
        """Keep modules out of the engine's state; learners save weights themselves."""

    def run(self) -> None:
        """Run; MONAI's own way would replace the scalers by ones for CUDA."""
        Workflow.run(self)

    def _iteration(self, engine: Any, batchdata: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        image, label = batchdata[IMAGE], batchdata[LABEL]
        self.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
        made = self._learn(image, label, batchdata.get(NETWORK_INPUT, image))
        if self._critic is not None:
            self._teach(self._critic, image, label, made)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = self.state.output
        return output

    def _learn(self, image: torch.Tensor, label: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Take the network's step; return the probabilities it made."""
        state = self.state
        state.g_network.train()
        state.g_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        levels = levels_of(self.g_inferer(given, state.g_network))
        made = levels[0].float().softmax(dim=1)
        state.output[CommonKeys.PRED] = levels[0]
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = state.recon_loss_function(levels, label)
        weight = self._critic.weight(state.iteration) if self._critic else 0.0
        if self._critic is not None and weight > 0:
            with self._autocast():
                opinion = self._critic.generator_loss(image, made, label, state.iteration)
            state.output[AdversarialKeys.GENERATOR_LOSS] = opinion
            loss = loss + weight * opinion
        state.output[CommonKeys.LOSS] = loss
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        state.g_scaler.scale(loss).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        state.g_scaler.step(state.g_optimizer)
        state.g_scaler.update()
        self.fire_event(AdversarialIterationEvents.GENERATOR_MODEL_COMPLETED)
        return made.detach()

    def _teach(
        self, critic: CriticTrainer, image: torch.Tensor, label: torch.Tensor, made: torch.Tensor
    ) -> None:
        """Take the critic's step."""
        state = self.state
        critic.learner.train()
        critic.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._autocast():
            loss = critic.discriminator_loss(image, made, label, state.iteration)
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the critic's loss became {loss.item()} at step {state.iteration}; lower "
                "refinement.critic.learning_rate"
            )
        state.output[AdversarialKeys.DISCRIMINATOR_LOSS] = loss.detach()
        state.d_scaler.scale(loss).backward()
        state.d_scaler.step(critic.optimizer)
        state.d_scaler.update()
        self.fire_event(AdversarialIterationEvents.DISCRIMINATOR_MODEL_COMPLETED)

    def _autocast(self) -> torch.autocast:
        mixed = self._precision != torch.float32
        dtype = self._precision if mixed else None
        return torch.autocast(self.state.device.type, dtype=dtype, enabled=mixed)

    def scales(self) -> dict[str, Any]:
        """Return the state of the gradient scalers."""
        return {"g": self.state.g_scaler.state_dict(), "d": self.state.d_scaler.state_dict()}

    def restore_scales(self, scales: Mapping[str, Any]) -> None:
        """Go back to saved scalers."""
        self.state.g_scaler.load_state_dict(scales["g"])
        self.state.d_scaler.load_state_dict(scales["d"])


class JointLearner(Learner):
    """A network that learns from labels and, from the start, against a critic.

    Args:
        spec: A bundle whose refinement is of the kind ``joint``.
        refinement: Its refinement section.
        cases: Training cases.
        device: Where to compute.
        listeners: Told about every step.
        group: The processes that train together.
        initial_weights: Weights to start from, where not from chance alone.
    """

    def __init__(
        self,
        spec: BundleSpec,
        refinement: RefinementSpec,
        cases: Sequence[CachedCase],
        device: torch.device,
        listeners: Sequence[Listener] = (),
        group: ProcessGroup = SINGLE_PROCESS,
        initial_weights: InitialWeights | None = None,
    ) -> None:
        super().__init__(spec, cases, device, listeners, group, initial_weights)
        self.critic = CriticTrainer(
            spec, refinement, steps=spec.training.steps, device=device, group=group
        )
        self._running: MaskTrainer | None = None

    def parts(self) -> Mapping[str, torch.Tensor]:
        """Return the parts of the last step's loss, and what the critic said."""
        return {**super().parts(), **self.critic.parts}

    def _trainer(self, handlers: Sequence[Any]) -> MaskTrainer:
        trainer = MaskTrainer(
            self.batches,
            network=self._supervised,
            optimizer=self._optimizer,
            loss=self._loss,
            critic=self.critic,
            steps=self._spec.training.steps,
            device=self._device,
            precision=self._precision,
            handlers=handlers,
        )
        if self._scale is not None:
            trainer.restore_scales(self._scale)
        self._running = trainer
        return trainer

    def state(self) -> dict[str, Any]:
        """Return all that going on needs: tensors and plain values only."""
        scale = self._running.scales() if self._running else self._scale
        return super().state() | {"scale": scale, "opponent": self.critic.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            CheckpointError: If it is of another network.
        """
        super().restore(state)
        try:
            self.critic.restore(state["opponent"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this bundle: {error}") from error
