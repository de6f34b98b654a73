"""Stages: what a training run may do besides training its network.

A run trains the network first, then its stages, in order. A stage can also bring its own learner
for the network itself. What a run knows about stages is in this module; what a stage does is its
own affair (``medseg.training.refinement`` is one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.events import Listener
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import TrainingHistory
from medseg.training.interruption import Interruption
from medseg.training.learner import Learner
from medseg.training.run_folder import RunFolder

StageState = Mapping[str, Any]
"""Tensors and plain values that a stage continues from; ``step`` holds its steps done."""


class LearnerFactory(Protocol):
    """Builds what trains the network; ``Learner`` itself is one."""

    def __call__(
        self,
        spec: BundleSpec,
        cases: Sequence[CachedCase],
        device: torch.device,
        listeners: Sequence[Listener] = (),
        group: ProcessGroup = SINGLE_PROCESS,
        initial_weights: InitialWeights | None = None,
    ) -> Learner:
        """Return a learner that has taken no step; see ``Learner`` for the arguments."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage has to work with once the network is trained.

    Attributes:
        folder: The run folder, with the network's best weights and its snapshots.
        learner: The learner of the network, which has taken its last step.
        history: What happened so far; a stage notifies it of its steps, before the listeners.
        validation: The held-out cases, as the network gets them.
        device: Where to compute.
        listeners: Notified of every step and every warning.
        state: What the stage saved last; ``None`` if it begins.
        save: Writes a checkpoint with the stage's state.
    """

    folder: RunFolder
    learner: Learner
    history: TrainingHistory
    validation: Sequence[CachedCase]
    device: torch.device
    listeners: Sequence[Listener]
    state: StageState | None
    save: Callable[[StageState], None]
    interruption: Interruption


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage adds to the trained bundle.

    Attributes:
        trained: Fields of ``trained.json`` and their values.
        network: Definition of the network for inference, with ``_target_``; ``None`` leaves the
            one that was trained.
        card: A section of the model card, in Markdown with its heading; empty for none.
    """

    trained: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] | None = None
    card: str = ""


class TrainingStage(Protocol):
    """A stage of a training run, built from the run's resolved bundle."""

    @property
    def name(self) -> str:
        """What messages call it, such as ``refiner``."""

    @property
    def checkpoint_key(self) -> str:
        """The key of its state in checkpoints."""

    @property
    def steps(self) -> int:
        """How many steps it takes after the network's; 0 if it takes none of its own."""

    @property
    def snapshot_steps(self) -> Sequence[int]:
        """Steps of the network's training after which its weights are kept for this stage."""

    @property
    def learner_factory(self) -> LearnerFactory | None:
        """Builds the network's learner; ``None`` leaves the ordinary one."""

    def check_cross_validation(self) -> None:
        """Make sure that networks with this stage can be members of one bundle.

        Raises:
            BundleError: If they cannot.
        """

    def run(self, context: StageContext) -> StageResult:
        """Take the steps that are left and return what came of them.

        Raises:
            TrainingError: If a loss is no longer finite.
            CheckpointError: If the saved state belongs to another bundle.
        """


def select_learner_factory(stages: Sequence[TrainingStage]) -> LearnerFactory:
    """Return what builds the network's learner: a stage's factory, or ``Learner``."""
    for stage in stages:
        if stage.learner_factory is not None:
            return stage.learner_factory
    return Learner


def count_steps(spec: BundleSpec, stages: Sequence[TrainingStage]) -> int:
    """Return the steps of the network's training and of all stages."""
    of_stages = sum(stage.steps for stage in stages)
    return spec.training.steps + of_stages


def count_steps_done(
    spec: BundleSpec,
    stages: Sequence[TrainingStage],
    checkpoint: Mapping[str, Any],
) -> int:
    """Return how many steps, of the network's training and of all stages, precede a checkpoint."""
    done = int(checkpoint["learner"]["step"])
    before = spec.training.steps
    for stage in stages:
        state = checkpoint.get(stage.checkpoint_key)
        if state is not None:
            done = before + int(state["step"])
        before += stage.steps
    return done


def list_snapshot_steps(stages: Sequence[TrainingStage]) -> list[int]:
    """Return after which steps of the network's training a stage needs its weights."""
    steps: set[int] = set()
    for stage in stages:
        steps.update(stage.snapshot_steps)
    return sorted(steps)
