"""Refinement as a stage of a training run: the only module that others import.

Two kinds: a refiner that learns after the network to correct its masks (``RefinerStage``), and a
network that itself learns against a critic (``JointStage``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from medseg.bundle.spec import (
    SEPARATES,
    BundleSpec,
    RefinementFinding,
    RefinementSpec,
)
from medseg.bundle.weights import Weights, load_weights
from medseg.datasets.cache import CachedCase
from medseg.errors import BundleError, CheckpointError, Fault
from medseg.events import Listener, Notice, Progress, notify
from medseg.networks.building import build_network
from medseg.networks.refiner import (
    build_refined,
    define_refined_network,
    load_refined,
    merge_weights,
    select_coarse_weights,
)
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import TrainingHistory
from medseg.training.learner import Learner
from medseg.training.refinement.acceptance import (
    decide_acceptance,
    score_coarse_and_refined,
)
from medseg.training.refinement.card import (
    inseparable_warning,
    refinement_section,
)
from medseg.training.refinement.critic_trainer import CriticTrainer
from medseg.training.refinement.joint_learner import JointLearner
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer
from medseg.training.run_folder import RunFolder
from medseg.training.stages import StageContext, StageResult, TrainingStage

REFINER_FILE = "refiner.pt"
"""The refiner's weights, beside ``model.pt``."""

CRITIC_FILE = "critic.pt"
"""The critic's weights, beside ``model.pt``."""


def build_refinement_stages(spec: BundleSpec) -> tuple[TrainingStage, ...]:
    """Build the stages that a bundle's refinement section asks for: one, or none."""
    if spec.refinement is None:
        return ()
    if spec.refinement.kind == "joint":
        return (JointStage(spec, spec.refinement),)
    return (RefinerStage(spec, spec.refinement),)


class RefinerStage:
    """A refiner that learns, after the network, to correct its masks.

    Args:
        spec: A bundle whose refinement has the kind ``corrector``.
        refinement: Its refinement section.
    """

    name = "refiner"
    # Checkpoints have called it so since the first release.
    checkpoint_key = "corrector"
    learner_factory = None

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        self._spec = spec
        self._refinement = refinement

    @property
    def steps(self) -> int:
        """Steps of the refiner."""
        return self._refinement.steps

    @property
    def snapshot_steps(self) -> Sequence[int]:
        """Steps after which the network's weights are kept: 1/2, 1/4, 1/8, … of all."""
        steps = self._spec.training.steps
        halvings = range(1, self._refinement.bank.snapshots + 1)
        return sorted({steps // 2**n for n in halvings if steps // 2**n > 0})

    def check_cross_validation(self) -> None:
        """Refuse to be a member of a bundle of all folds.

        Raises:
            BundleError: Always: a bundle holds one refiner.
        """
        raise BundleError(
            "--fold all makes one bundle of all folds' networks, and a bundle holds one refiner",
            [
                Fault(
                    "refinement",
                    'train single folds, or set refinement to null or kind "joint"',
                )
            ],
        )

    def run(self, context: StageContext) -> StageResult:
        """Train the refiner, and decide on held-out cases whether it is used.

        ``models/refiner.pt`` and ``critic.pt`` hold what was trained; ``model.pt`` becomes the
        refined network if refined masks replace the coarse ones.
        """
        trainer = self._build_trainer(context)
        if context.state is not None:
            trainer.restore(context.state)

        def save() -> None:
            context.save(trainer.state())

        def stop_if_requested() -> None:
            context.interruption.stop_if_requested(
                save,
                context.folder.path,
                self._spec.training.steps + trainer.step,
            )

        trainer.learn(save, stop_if_requested)
        finding = self._decide(trainer.weights, context)
        _save_networks(self._spec, trainer, finding, context.folder)
        gap = measure_critic_gap(
            self._refinement,
            context.history,
            context.listeners,
            steps=self.steps,
            end=self._spec.training.steps + self.steps,
        )
        network = (
            define_refined_network(self._spec) if finding.applied else None
        )
        return StageResult(
            trained={"refinement": finding},
            network=network,
            card=refinement_section(finding, gap),
        )

    def _build_trainer(self, context: StageContext) -> RefinerTrainer:
        spec = self._spec
        files = [context.folder.snapshot(step) for step in self.snapshot_steps]
        weights = [load_weights(file) for file in files if file.is_file()]
        weights.append(
            select_coarse_weights(load_weights(context.folder.weights))
        )
        pool = MaskPool(
            spec,
            self._refinement.bank,
            context.learner.batches,
            [_load_network(spec, each) for each in weights],
            steps=self.steps,
            device=context.device,
        )
        listeners = [context.history, *context.listeners]
        return RefinerTrainer(
            spec, self._refinement, pool, context.device, listeners
        )

    def _decide(
        self, refiner: Weights, context: StageContext
    ) -> RefinementFinding:
        network = build_refined(self._spec, both=True)
        load_refined(
            network,
            select_coarse_weights(load_weights(context.folder.weights)),
            refiner,
        )
        notify(context.listeners, Progress("comparing refined masks", 0, 1))
        pairs = score_coarse_and_refined(
            self._spec, network, context.validation, context.device
        )
        finding = decide_acceptance(pairs)
        notify(context.listeners, Progress("comparing refined masks", 1, 1))
        return finding


class JointStage:
    """A network that itself learns against a critic; takes no steps after it.

    Args:
        spec: A bundle whose refinement has the kind ``joint``.
        refinement: Its refinement section.
    """

    name = "joint refinement"
    checkpoint_key = "joint"
    steps = 0
    snapshot_steps: Sequence[int] = ()

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        self._spec = spec
        self._refinement = refinement

    def learner_factory(
        self,
        spec: BundleSpec,
        cases: Sequence[CachedCase],
        device: torch.device,
        listeners: Sequence[Listener] = (),
        group: ProcessGroup = SINGLE_PROCESS,
        initial_weights: InitialWeights | None = None,
    ) -> Learner:
        """Return the learner of the network, with its critic."""
        return JointLearner(
            spec,
            self._refinement,
            cases,
            device,
            listeners,
            group,
            initial_weights,
        )

    def check_cross_validation(self) -> None:
        """Allow it: nothing of the critic is needed for inference."""

    def run(self, context: StageContext) -> StageResult:
        """Keep the critic's weights, and say whether it taught anything."""
        if isinstance(context.learner, JointLearner):
            _save_critic(context.learner.critic, context.folder)
        steps = self._spec.training.steps
        gap = measure_critic_gap(
            self._refinement,
            context.history,
            context.listeners,
            steps=steps,
            end=steps,
        )
        return StageResult(card=refinement_section(None, gap))


def _load_network(spec: BundleSpec, weights: Weights) -> nn.Module:
    network = build_network(spec, supervised=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            "the run's weights do not fit its bundle.json; restore the one that the run began "
            "with, or start a new run",
            detail=str(error),
        ) from error
    return network


def _save_critic(critic: CriticTrainer, folder: RunFolder) -> None:
    folder.save_weights(
        critic.network.state_dict(), folder.weights.with_name(CRITIC_FILE)
    )


def _save_networks(
    spec: BundleSpec,
    trainer: RefinerTrainer,
    finding: RefinementFinding,
    folder: RunFolder,
) -> None:
    """Keep refiner and critic, and make ``model.pt`` the network that will be used."""
    folder.save_weights(trainer.weights, folder.weights.with_name(REFINER_FILE))
    if trainer.critic is not None:
        _save_critic(trainer.critic, folder)
    coarse = select_coarse_weights(load_weights(folder.weights))
    # Written even if it stays coarse: an interrupted end may have left the refined one.
    used: Mapping[str, torch.Tensor] = coarse
    if finding.applied:
        used = merge_weights(spec, coarse, trainer.weights)
    folder.save_weights(used)


def measure_critic_gap(
    refinement: RefinementSpec,
    history: TrainingHistory,
    listeners: Sequence[Listener],
    *,
    steps: int,
    end: int,
) -> float | None:
    """Measure how far apart a critic scored true and made masks over the last quarter of steps.

    A critic that did not tell them apart taught nothing; listeners are told so.

    Args:
        refinement: The bundle's refinement section.
        history: The run's history.
        listeners: Told if the gap is too small.
        steps: Steps the critic has taken.
        end: The step of the run at which it took its last one.

    Returns:
        The mean difference of the scores; ``None`` without a critic.
    """
    if not refinement.has_critic:
        return None
    last_quarter = max(1, steps // 4)
    gap = history.mean_part("critic_gap", after=end - last_quarter)
    if gap is not None and gap < SEPARATES:
        notify(listeners, Notice(inseparable_warning(gap)))
    return gap
