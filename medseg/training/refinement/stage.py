"""What refinement adds to a run: snapshots, the refiner's stage, its verdict, and forks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from medseg.bundle.bundle import write_trained
from medseg.bundle.spec import (
    SEPARATES,
    BundleSpec,
    RefinementFinding,
    RefinementSpec,
    TrainedSpec,
)
from medseg.bundle.weights import Weights, load_weights
from medseg.datasets.cache import CachedCase
from medseg.errors import BundleError, CheckpointError, Fault
from medseg.events import Listener, Notice, Progress, notify
from medseg.networks.refiner import (
    build_refined,
    coarse_weights,
    load_refined,
    refined_definition,
    refined_weights,
)
from medseg.networks.unet import build_network
from medseg.plots.previews import draw_curves
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.learner import Learner
from medseg.training.patches import PatchBatches
from medseg.training.refinement.acceptance import decide_acceptance, score_coarse_and_refined
from medseg.training.refinement.adversarial import JointLearner
from medseg.training.refinement.card import refinement_section
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer
from medseg.training.run_folder import RunFolder
from medseg.training.stages import StageContext, StageResult, TrainingStage

State = Mapping[str, Any]


class _RefinerRun:
    """The refiner's stage of a run, after the network's.

    Args:
        spec: A bundle with a refiner.
        refinement: Its refinement section.
        folder: The run folder; it holds the network's best weights and its snapshots.
        batches: Where patches come from.
        device: Where to compute.
        listeners: Told about every step, and what is wrong.
    """

    def __init__(
        self,
        spec: BundleSpec,
        refinement: RefinementSpec,
        folder: RunFolder,
        batches: PatchBatches,
        device: torch.device,
        listeners: Sequence[Listener],
        snapshot_steps: Sequence[int],
    ) -> None:
        self._spec, self._folder, self._device = spec, folder, device
        self._listeners = listeners
        self._coarse = coarse_weights(load_weights(folder.weights))
        kept = [folder.snapshot(step) for step in snapshot_steps]
        earlier = [load_weights(file) for file in kept if file.is_file()]
        networks = [_network(spec, weights) for weights in (*earlier, self._coarse)]
        bank = MaskPool(
            spec,
            refinement.bank,
            batches,
            networks,
            steps=refinement.steps,
            device=device,
        )
        self._corrector = RefinerTrainer(spec, refinement, bank, device, listeners)

    def learn(self, state: State | None, save: Callable[[State], None]) -> None:
        """Train the refiner from where a checkpoint left it.

        Args:
            state: What ``save`` was given last, if anything.
            save: Called with the stage's state when a checkpoint is due.
        """
        if state is not None:
            self._corrector.restore(state)
        self._corrector.learn(lambda: save(self._corrector.state()))

    def conclude(self, cases: Sequence[CachedCase]) -> RefinementFinding:
        """Decide on held-back cases, and write what inference needs.

        ``models/refiner.pt`` and ``critic.pt`` hold what was trained; ``model.pt`` is the refined
        network if that is what shall be used.
        """
        refiner = self._corrector.weights
        network = build_refined(self._spec, both=True)
        load_refined(network, self._coarse, refiner)
        notify(self._listeners, Progress("comparing refined masks", 0, 1))
        finding = decide_acceptance(
            score_coarse_and_refined(self._spec, network, cases, self._device)
        )
        notify(self._listeners, Progress("comparing refined masks", 1, 1))
        self._folder.save_weights(refiner, self._folder.refiner)
        if self._corrector.critic is not None:
            self._folder.save_weights(
                self._corrector.critic.network.state_dict(), self._folder.critic
            )
        best = self._coarse
        if finding.applied:
            best = dict(refined_weights(self._spec, self._coarse, refiner))
        self._folder.save_weights(best)
        write_trained(TrainedSpec(refinement=finding), self._folder.path)
        return finding


def build_refinement_stages(spec: BundleSpec) -> tuple[TrainingStage, ...]:
    """Build the stages that a bundle's refinement section asks for: one, or none."""
    if spec.refinement is None:
        return ()
    if spec.refinement.kind == "joint":
        return (JointStage(spec, spec.refinement),)
    return (RefinerStage(spec, spec.refinement),)


class RefinerStage:
    """A refiner that learns, after the network, to correct its masks."""

    name = "refiner"
    checkpoint_key = "corrector"
    learner_factory = None

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        self._spec, self._refinement = spec, refinement

    @property
    def steps(self) -> int:
        """Steps of the refiner."""
        return self._refinement.steps

    @property
    def snapshot_steps(self) -> Sequence[int]:
        """Steps after which the network's weights are kept: 1/2, 1/4, 1/8, … of all."""
        count = self._refinement.bank.snapshots
        steps = {self._spec.training.steps // 2**n for n in range(1, count + 1)}
        return sorted(step for step in steps if step > 0)

    def check_cross_validation(self) -> None:
        """Refuse to be a member of a bundle of all folds."""
        raise BundleError(
            "--fold all makes one bundle of all folds' networks, and a bundle holds one refiner",
            [Fault("refinement", 'train single folds, or set refinement to null or kind "joint"')],
        )

    def run(self, context: StageContext) -> StageResult:
        """Train the refiner, and decide on held-out cases whether it is used."""
        run = _RefinerRun(
            self._spec,
            self._refinement,
            context.folder,
            context.learner.batches,
            context.device,
            [context.history, *context.listeners],
            self.snapshot_steps,
        )
        run.learn(context.state, context.save)
        finding = run.conclude(context.validation)
        draw_curves(context.folder.curves, context.history.curves)
        end = self._spec.training.steps + self.steps
        gap = critic_gap(self._refinement, self.steps, end, context)
        return StageResult(
            trained={"refinement": finding},
            network=refined_definition(self._spec) if finding.applied else None,
            card=refinement_section(finding, gap),
        )


class JointStage:
    """A network that itself learns against a critic; takes no steps after it."""

    name = "joint refinement"
    checkpoint_key = "joint"
    steps = 0
    snapshot_steps: Sequence[int] = ()

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        self._spec, self._refinement = spec, refinement

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
            spec, self._refinement, cases, device, listeners, group, initial_weights
        )

    def check_cross_validation(self) -> None:
        """Allow it: nothing of the critic is needed for inference."""

    def run(self, context: StageContext) -> StageResult:
        """Keep the critic's weights, and say whether it taught anything."""
        if isinstance(context.learner, JointLearner):
            weights = context.learner.critic.network.state_dict()
            context.folder.save_weights(weights, context.folder.critic)
        steps = self._spec.training.steps
        gap = critic_gap(self._refinement, steps, steps, context)
        return StageResult(card=refinement_section(None, gap))


def _network(spec: BundleSpec, weights: Weights) -> nn.Module:
    network = build_network(spec, supervised=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the run's weights do not fit its bundle: {error}") from error
    return network


def critic_gap(
    refinement: RefinementSpec, steps: int, end: int, context: StageContext
) -> float | None:
    """Return how far apart the critic scored true and made masks over the last quarter of steps."""
    if not refinement.has_critic:
        return None
    gap = context.history.mean_part("critic_gap", after=end - max(1, steps // 4))
    if gap is not None and gap < SEPARATES:
        message = (
            f"the critic did not tell true masks from made ones (its scores lay {gap:.2f} apart "
            f"over the last quarter of its steps; {SEPARATES} is the least): the adversarial "
            "part of this training taught nothing. Change refinement.critic, or set "
            "refinement.adversarial_weight to 0"
        )
        notify(context.listeners, Notice(message))
    return gap
