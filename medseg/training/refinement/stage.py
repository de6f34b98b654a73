"""What refinement adds to a run: snapshots, the refiner's stage, its verdict, and forks of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.bundle.bundle import load_bundle, write_trained
from medseg.bundle.spec import (
    SEPARATES,
    BundleSpec,
    RefinementFinding,
    RefinementSpec,
    TrainedSpec,
)
from medseg.bundle.weights import Weights, load_weights
from medseg.datasets.cache import CachedCase
from medseg.errors import BundleError, CheckpointError
from medseg.events import Listener, Notice, Progress, notify
from medseg.networks.refiner import (
    build_refined,
    coarse_weights,
    load_refined,
    refined_weights,
)
from medseg.networks.unet import build_network
from medseg.plots.previews import draw_curves
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import TrainingHistory
from medseg.training.learner import Learner
from medseg.training.lineage import read_lineage
from medseg.training.patches import PatchBatches
from medseg.training.refinement.acceptance import decide_acceptance, score_coarse_and_refined
from medseg.training.refinement.adversarial import JointLearner
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer
from medseg.training.run_folder import RunFolder
from medseg.training.runs import FINGERPRINT, TrainingRun, begin_run

State = Mapping[str, Any]


def make_learner(
    spec: BundleSpec,
    cases: Sequence[CachedCase],
    device: torch.device,
    listeners: Sequence[Listener] = (),
    group: ProcessGroup = SINGLE_PROCESS,
    initial_weights: InitialWeights | None = None,
) -> Learner:
    """Return the learner of a bundle's network: against a critic where the bundle says so."""
    if spec.refinement is not None and spec.refinement.kind == "joint":
        return JointLearner(spec, spec.refinement, cases, device, listeners, group, initial_weights)
    return Learner(spec, cases, device, listeners, group, initial_weights)


def total_steps(spec: BundleSpec) -> int:
    """Return the steps of all stages of a run."""
    corrector = corrector_of(spec)
    return spec.training.steps + (corrector.steps if corrector else 0)


def corrector_of(spec: BundleSpec) -> RefinementSpec | None:
    """Return the bundle's refinement if a refiner is trained after the network."""
    refinement = spec.refinement
    return refinement if refinement is not None and refinement.kind == "corrector" else None


def steps_done(spec: BundleSpec, state: State) -> int:
    """Return how many steps of all stages a checkpoint has behind it."""
    if "corrector" in state:
        return spec.training.steps + int(state["corrector"]["step"])
    return int(state["learner"]["step"])


def snapshot_steps(spec: BundleSpec) -> list[int]:
    """Return after which steps of the network's training its weights are kept for the bank."""
    corrector = corrector_of(spec)
    if corrector is None:
        return []
    count = corrector.bank.snapshots
    steps = {spec.training.steps // 2**n for n in range(1, count + 1)}
    return sorted(step for step in steps if step > 0)


class RefinementStage:
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
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._spec, self._folder, self._device = spec, folder, device
        self._listeners = listeners
        self._coarse = coarse_weights(load_weights(folder.weights))
        kept = [folder.snapshot(step) for step in snapshot_steps(spec)]
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


@dataclass(frozen=True, slots=True)
class Refined:
    """What refinement came to in a run.

    Attributes:
        finding: Whether refined masks replace the coarse ones; ``None`` without a refiner.
        gap: Between the critic's scores of true and made masks; ``None`` without a critic.
    """

    finding: RefinementFinding | None = None
    gap: float | None = None


def refine(
    spec: BundleSpec,
    folder: RunFolder,
    learner: Learner,
    record: TrainingHistory,
    cases: Sequence[CachedCase],
    device: torch.device,
    listeners: Sequence[Listener] = (),
) -> Refined:
    """Do what a bundle wants beyond training its network; goes on where a checkpoint left it.

    Args:
        spec: The bundle.
        folder: The run folder.
        learner: The network's training, done.
        record: Of the run so far; goes on.
        cases: Held-back cases, to decide on.
        device: Where to compute.
        listeners: Told about every step, and what is wrong.
    """
    corrector, finding = corrector_of(spec), None

    def save(state: State) -> None:
        folder.save_checkpoint(
            {"learner": learner.state(), "record": record.state(), "corrector": state}
        )

    if corrector is not None:
        saved = folder.load_checkpoint() or {}
        stage = RefinementStage(
            spec, corrector, folder, learner.batches, device, [record, *listeners]
        )
        stage.learn(saved.get("corrector"), save)
        finding = stage.conclude(cases)
        draw_curves(folder.curves, record.curves)
    elif isinstance(learner, JointLearner):
        folder.save_weights(learner.critic.network.state_dict(), folder.critic)
    return Refined(finding, critic_gap(spec, record, listeners))


def _network(spec: BundleSpec, weights: Weights) -> nn.Module:
    network = build_network(spec, supervised=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"the run's weights do not fit its bundle: {error}") from error
    return network


def critic_gap(
    spec: BundleSpec, record: TrainingHistory, listeners: Sequence[Listener]
) -> float | None:
    """Return how far apart the critic scored true and made masks over the last quarter of steps.

    A critic that never told them apart taught nothing; whoever listens hears so.

    Returns:
        The mean gap; ``None`` where there was no critic.
    """
    refinement = spec.refinement
    if refinement is None or not refinement.has_critic:
        return None
    steps = refinement.steps if refinement.kind == "corrector" else spec.training.steps
    gap = record.mean_part("critic_gap", after=total_steps(spec) - max(1, steps // 4))
    if gap is not None and gap < SEPARATES:
        message = (
            f"the critic did not tell true masks from made ones (its scores lay {gap:.2f} apart "
            f"over the last quarter of its steps; {SEPARATES} is the least): the adversarial "
            "part of this training taught nothing. Change refinement.critic, or set "
            "refinement.adversarial_weight to 0"
        )
        notify(listeners, Notice(message))
    return gap


def fork(trunk: Path, out: Path, refinement: RefinementSpec) -> Path:
    """Begin a run that shares the network of another and trains its own refiner.

    ``medseg.train(out, out=out, resume=True)`` then goes on with the refiner's stage. The trunk
    is a run whose network is trained; its snapshots are taken over where it kept some.

    Args:
        trunk: The run folder of the other.
        out: The new run folder, absent or empty.
        refinement: What to train, of the kind ``corrector``.

    Returns:
        ``out``.

    Raises:
        BundleError: If the refinement is of another kind.
        CheckpointError: If the trunk is no run, or its network is not trained to the end.
        OutputError: If ``out`` holds something.
    """
    if refinement.kind != "corrector":
        raise BundleError(
            f"a fork trains a refiner (kind 'corrector'), got kind '{refinement.kind}', which "
            "trains its own network; start a new run for it"
        )
    old, new = RunFolder(trunk), RunFolder(out)
    facts, state = old.read_info(), old.load_checkpoint()
    spec = load_bundle(old.bundle).spec
    if state is None or (state["learner"]["step"] < spec.training.steps and not old.is_finished):
        raise CheckpointError(f"{trunk}: its network is not trained to the end; resume it first")
    new.require_empty()
    record = TrainingHistory(spec.name)
    record.restore(state["record"])
    record.forget_after(spec.training.steps)
    new.save_weights(coarse_weights(load_weights(old.weights)))
    for snapshot in old.snapshots():
        new.save_weights(load_weights(snapshot), new.checkpoint.parent / snapshot.name)
    new.save_checkpoint({"learner": state["learner"], "record": record.state()})
    forked = spec.model_copy(update={"refinement": refinement})
    data, fold, run_id = Path(facts["data"]), facts["fold"], uuid.uuid4().hex
    begin_run(
        TrainingRun(new, forked, data, fold, run_id, read_lineage(facts)), facts.get(FINGERPRINT)
    )
    return out
