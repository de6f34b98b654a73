"""Joint adversarial training: the network itself learns against a critic from the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import CheckpointError
from medseg.events import Listener
from medseg.networks.training_precision import choose_training_precisions
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.learner import Learner
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.mask_trainer import MaskTrainer


class JointLearner(Learner):
    """A network that learns from labels and, from the start, against a critic.

    Args:
        spec: A bundle whose refinement has the kind ``joint``.
        refinement: Its refinement section.
        cases: Training cases.
        device: Where to compute.
        listeners: Told about every step.
        group: The processes that train together.
        initial_weights: Weights to start from; random ones unless given.
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
            spec,
            refinement,
            steps=spec.training.steps,
            device=device,
            group=group,
        )
        self._running: MaskTrainer | None = None

    def parts(self) -> Mapping[str, torch.Tensor]:
        """Return the parts of the last step's loss, and the critic's scores."""
        return {**super().parts(), **self.critic.parts}

    def _build_trainer(self, handlers: Sequence[Any]) -> MaskTrainer:
        trainer = MaskTrainer(
            self.batches,
            network=self._supervised,
            optimizer=self._optimizer,
            loss=self._loss,
            critic=self.critic,
            steps=self._spec.training.steps,
            device=self._device,
            precision=self._precision,
            critic_precision=choose_training_precisions(
                self._spec, self._device
            ).critic,
            handlers=handlers,
        )
        if self._scale is not None:
            trainer.restore_scalers(self._scale)
        self._running = trainer
        return trainer

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs: tensors and plain values only."""
        state = super().state()
        state["scale"] = (
            self._running.scaler_states() if self._running else self._scale
        )
        # Checkpoints have called it so since the first release.
        state["opponent"] = self.critic.state()
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Raises:
            CheckpointError: If it belongs to another network.
        """
        super().restore(state)
        try:
            self.critic.restore(state["opponent"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                "the checkpoint's critic does not fit this bundle; restore the bundle.json that "
                "the run began with, or start a new run",
                detail=str(error),
            ) from error
