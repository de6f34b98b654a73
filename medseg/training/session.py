"""A training session: one run in this process, with all that its steps need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.case_workers import HERE, CaseWorkers
from medseg.datasets.cases import CaseList
from medseg.datasets.dataset import Dataset, open_dataset
from medseg.errors import DatasetError
from medseg.events import Listener, Notice, TimeBudgetFitted, notify
from medseg.names import format_minutes
from medseg.networks.devices import release_memory
from medseg.plots.curves import draw_curves
from medseg.training.distributed import ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import TrainingHistory
from medseg.training.interruption import Interruption
from medseg.training.learner import Learner
from medseg.training.lineage import open_parent
from medseg.training.refinement.stage import build_refinement_stages
from medseg.training.run_folder import RunFolder
from medseg.training.runs import TrainingRun, require_same_cases
from medseg.training.speed import measure_speed
from medseg.training.stages import (
    StageContext,
    StageResult,
    StageState,
    TrainingStage,
    count_steps_done,
    select_learner_factory,
)
from medseg.training.time_budget import TimeBudget, fit_to_budget


def build_stages(spec: BundleSpec) -> tuple[TrainingStage, ...]:
    """Build what a bundle wants done besides training its network."""
    return build_refinement_stages(spec)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a training command has to work with, whichever run it trains.

    Attributes:
        device: Where this process computes.
        group: The processes that train together.
        listeners: Who is notified; nobody in processes other than the main one.
        skip_bad_cases: Whether to train without the cases that have a fault.
        trust_values: Whether the bundle counts, whatever the data call values and channels.
        workers: Who checks and preprocesses the cases.
    """

    device: torch.device
    group: ProcessGroup
    listeners: Sequence[Listener]
    skip_bad_cases: bool = False
    trust_values: bool = False
    workers: CaseWorkers = HERE


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """One training run in this process.

    Attributes:
        run: The run.
        dataset: Its cases.
        device: Where this process computes.
        group: The processes that train together; the main one alone writes and notifies.
        listeners: Who is notified.
        time_budget: When the run must end, where it has a time budget and was not resumed.
    """

    run: TrainingRun
    dataset: Dataset
    device: torch.device
    group: ProcessGroup
    listeners: Sequence[Listener]
    time_budget: TimeBudget | None = None

    @property
    def spec(self) -> BundleSpec:
        """The resolved bundle."""
        return self.run.spec

    @property
    def stages(self) -> Sequence[TrainingStage]:
        """What the run does besides training its network."""
        return build_stages(self.spec)

    @property
    def calibrating(self) -> int:
        """How many cases quality is calibrated on: the held-out ones, or those of all folds."""
        held_out = len(self.dataset.held_out)
        if self.run.cross_validation is None:
            return held_out
        # Each case is held out in one of the folds.
        return held_out + len(self.dataset.training)

    def with_spec(self, spec: BundleSpec) -> TrainingSession:
        """Return the session with another bundle."""
        run = replace(self.run, spec=spec)
        return replace(self, run=run)

    def build_learner(
        self,
        listeners: Sequence[Listener],
        initial_weights: InitialWeights | None,
    ) -> Learner:
        """Return the learner of the network, before its first step."""
        factory = select_learner_factory(self.stages)
        cases = self.dataset.training
        return factory(
            self.spec,
            cases,
            self.device,
            listeners,
            self.group,
            initial_weights,
        )

    def load_initial_weights(self) -> InitialWeights | None:
        """Return the weights to start from; ``None`` for random ones or those of a checkpoint.

        Raises:
            CheckpointError: If they are gone or have changed.
        """
        lineage = self.run.lineage
        # The other processes get the weights that the main one begins with.
        if lineage is None or not self.group.is_main:
            return None
        if self.run.folder.checkpoint.is_file():
            return None
        return InitialWeights(self.spec, open_parent(lineage))

    def fit_time_budget(self, began: float) -> TrainingSession:
        """Return the session with as many steps as fit into the bundle's time budget.

        Args:
            began: When the command began, on the monotonic clock.

        Raises:
            BundleError: If hardly any step fits.
        """
        minutes = self.spec.training.budget_minutes or 0.0
        speed = measure_speed(
            self.spec,
            self._build_measured_learner,
            self.dataset.validation,
            self.calibrating,
        )
        release_memory(self.device)
        elapsed = time.monotonic() - began
        seconds_left = 60 * minutes - elapsed
        spec = fit_to_budget(self.spec, speed, seconds_left)
        spec = self.group.broadcast(spec)
        event = TimeBudgetFitted(minutes, spec.training.steps, speed.step)
        notify(self.listeners, event)
        fitted = self.with_spec(spec)
        if not self.stages:
            time_budget = TimeBudget(spec, speed, ends=began + 60 * minutes)
            return replace(fitted, time_budget=time_budget)
        # Stages rely on the number of steps, so that the run cannot be shortened.
        for stage in fitted.stages:
            if stage.steps:
                message = _describe_extra_steps(stage, minutes)
                notify(self.listeners, Notice(message))
        return fitted

    def _build_measured_learner(self, spec: BundleSpec) -> Learner:
        # Every process measures by itself; the main one's result is broadcast.
        factory = select_learner_factory(self.stages)
        return factory(spec, self.dataset.training, self.device)

    def restore(self, learner: Learner, history: TrainingHistory) -> int | None:
        """Return to the last checkpoint, if there is one.

        Returns:
            The number of steps done, those of stages among them; ``None`` without a checkpoint.
        """
        # Read once: another machine may not see the main process' disk.
        checkpoint = self.group.ask_main(self.run.folder.load_checkpoint)
        if checkpoint is None:
            return None
        learner.restore(checkpoint["learner"])
        history.restore(checkpoint["record"])
        return count_steps_done(self.spec, self.stages, checkpoint)

    def run_stages(
        self,
        learner: Learner,
        history: TrainingHistory,
        interruption: Interruption,
    ) -> list[StageResult]:
        """Run every stage after the network's training, from where a checkpoint left it."""
        return [
            self._run_stage(stage, learner, history, interruption)
            for stage in self.stages
        ]

    def _run_stage(
        self,
        stage: TrainingStage,
        learner: Learner,
        history: TrainingHistory,
        interruption: Interruption,
    ) -> StageResult:
        folder = self.run.folder
        checkpoint = folder.load_checkpoint() or {}

        def save(state: StageState) -> None:
            # What earlier stages saved last stays in the checkpoint.
            content = dict(checkpoint)
            content["learner"] = learner.state()
            content["record"] = history.state()
            content[stage.checkpoint_key] = state
            folder.save_checkpoint(content)

        context = StageContext(
            folder=folder,
            learner=learner,
            history=history,
            validation=self.dataset.validation,
            device=self.device,
            listeners=self.listeners,
            state=checkpoint.get(stage.checkpoint_key),
            save=save,
            interruption=interruption,
        )
        result = stage.run(context)
        if stage.steps:
            draw_curves(folder.curves, history.curves)
        return result


def _describe_extra_steps(stage: TrainingStage, minutes: float) -> str:
    return (
        f"the {stage.steps} steps of the {stage.name} come after the "
        f"{format_minutes(minutes)} of the time budget"
    )


def open_session(
    run: TrainingRun, resources: Resources, cases: CaseList | None = None
) -> TrainingSession:
    """Open a run's cases, and fit its steps to its time budget where it has one.

    Args:
        run: A run, new or begun before.
        resources: Where and how to train.
        cases: The cases in the run's data folder; they are searched for unless given.

    Raises:
        DatasetError: If cases are bad, every one named, or there are too few.
        CheckpointError: If the run began with other cases.
        BundleError: If hardly any step fits into the time budget.
    """
    began = time.monotonic()
    fold = run.fold
    if isinstance(fold, str):
        raise TypeError("a cross-validation is trained fold by fold")
    open_cases = partial(
        open_dataset,
        cases or run.data,
        run.spec,
        fold,
        run.cache,
        skip_bad_cases=resources.skip_bad_cases,
        trust_values=resources.trust_values,
        workers=resources.workers,
        listeners=resources.listeners,
    )
    group = resources.group
    dataset = group.main_first(open_cases)
    _require_same_everywhere(group.gather(dataset.content_hash))
    session = TrainingSession(
        run=run,
        dataset=dataset,
        device=resources.device,
        group=group,
        listeners=resources.listeners,
    )

    def is_resumed() -> bool:
        if run.folder.has_begun:
            require_same_cases(run.folder, dataset.content_hash)
        if run.cross_validation is not None:
            whole = RunFolder(run.cross_validation)
            require_same_cases(whole, dataset.content_hash)
        return run.folder.has_begun

    if group.ask_main(is_resumed):
        # It keeps the steps that were fitted first.
        return session
    if run.spec.training.budget_minutes is None:
        return session
    return session.fit_time_budget(began)


def _require_same_everywhere(hashes: Sequence[str]) -> None:
    """Make sure that all processes train with the same cases.

    Args:
        hashes: Of the data as each process sees them.

    Raises:
        DatasetError: If they differ.
    """
    if len(set(hashes)) > 1:
        raise DatasetError(
            "the machines of this training do not see the same cases, labels and folds in their "
            "data folders; give each the same data: one folder that they share, or equal copies"
        )
