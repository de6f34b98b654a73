"""A session opens a run's cases, fits its time budget, resumes it, and runs its stages."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec, trained_bundle
from support.sessions import CPU, made_session

from medseg.bundle.bundle import load_bundle
from medseg.errors import CheckpointError, DatasetError
from medseg.events import Event, Notice, TimeBudgetFitted
from medseg.testing import write_dataset
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.fine_tuning import InitialWeights
from medseg.training.history import TrainingHistory
from medseg.training.lineage import trace_lineage
from medseg.training.loop import TrainingLoop
from medseg.training.run_folder import RunFolder
from medseg.training.runs import ALL, begin_run, plan_run
from medseg.training.session import Resources, open_session

SHORT = {"steps": 2, "patch": [8, 8, 8], "validate_every": 2}


def test_quality_of_a_fold_is_calibrated_on_the_cases_of_all_folds(
    tmp_path: Path,
) -> None:
    session = made_session(tmp_path, made_spec(), training=3)
    session = replace(
        session, dataset=replace(session.dataset, held_out=("a", "b"))
    )  # type: ignore[arg-type]
    assert session.calibrating == 2
    fold = replace(session, run=replace(session.run, cross_validation=tmp_path))
    assert fold.calibrating == 5


def test_a_checkpoint_is_resumed_and_none_is_needed(tmp_path: Path) -> None:
    session = made_session(tmp_path, made_spec(training=SHORT), validation=0)
    history = TrainingHistory("made_up")
    learner = session.build_learner([history], None)
    assert session.restore(learner, history) is None
    TrainingLoop(session, learner, history).run()
    again = TrainingHistory("made_up")
    resumed = session.build_learner([again], None)
    assert session.restore(resumed, again) == 2
    assert resumed.step == 2
    assert repr(again.state()) == repr(history.state())


def test_weights_of_a_parent_are_loaded_until_there_is_a_checkpoint(
    tmp_path: Path,
) -> None:
    spec = made_spec(training=SHORT)
    parent = load_bundle(trained_bundle(tmp_path / "parent", spec))
    session = made_session(tmp_path / "run", spec, validation=0)
    assert session.load_initial_weights() is None
    child = replace(
        session, run=replace(session.run, lineage=trace_lineage(parent, spec))
    )
    assert isinstance(child.load_initial_weights(), InitialWeights)
    child.run.folder.save_checkpoint({})
    assert child.load_initial_weights() is None


def test_a_time_budget_sets_the_steps_and_ends_the_run(tmp_path: Path) -> None:
    events: list[Event] = []
    spec = made_spec(
        training={"patch": [8, 8, 8], "steps": 10**6, "budget_minutes": 0.5}
    )
    session = made_session(
        tmp_path, spec, validation=0, listeners=[events.append]
    )
    fitted = session.fit_time_budget(time.monotonic())
    assert fitted.time_budget is not None
    (event,) = events
    assert isinstance(event, TimeBudgetFitted)
    assert (event.minutes, event.steps) == (0.5, fitted.spec.training.steps)
    assert 20 <= event.steps < 10**6
    assert event.steps * event.step_seconds < 30


def test_the_steps_of_a_refiner_come_after_the_time_budget(
    tmp_path: Path,
) -> None:
    events: list[Event] = []
    spec = made_spec(
        training={"patch": [8, 8, 8], "budget_minutes": 0.5},
        refinement={"steps": 70, "adversarial_weight": 0},
    )
    session = made_session(
        tmp_path, spec, validation=0, listeners=[events.append]
    )
    fitted = session.fit_time_budget(time.monotonic())
    assert fitted.time_budget is None
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.message == (
        "the 70 steps of the refiner come after the 0.5 minutes of the time budget"
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("session") / "data", 4, shape=(20, 18, 16)
    )


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Any:
    spec = made_spec(training=SHORT, data={"folds": 2})
    bundle = load_bundle(trained_bundle(tmp_path / "bundle", spec))
    return plan_run(bundle, data, tmp_path / "run", 0)


RESOURCES = Resources(CPU, SINGLE_PROCESS, ())


def test_the_cases_of_a_run_are_split_and_checked_when_it_is_resumed(
    run: Any,
) -> None:
    session = open_session(run, RESOURCES)
    assert (len(session.dataset.training), len(session.dataset.held_out)) == (
        2,
        2,
    )
    assert session.time_budget is None
    begin_run(run, session.dataset.content_hash)
    assert (
        open_session(run, RESOURCES).dataset.content_hash
        == session.dataset.content_hash
    )
    begin_run(run, "that of other cases")
    with pytest.raises(CheckpointError, match="other cases"):
        open_session(run, RESOURCES)


class _OtherCases(ProcessGroup):
    """Two processes, the second of which sees other cases."""

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        """Return what each sees."""
        return [value, "other cases"]


def test_machines_with_other_cases_do_not_train_together(run: Any) -> None:
    with pytest.raises(DatasetError, match="machines"):
        open_session(run, Resources(CPU, _OtherCases(), ()))


def test_a_resumed_run_keeps_the_steps_that_were_fitted_first(run: Any) -> None:
    timed = run.spec.training.model_copy(update={"budget_minutes": 1.0})
    run = replace(run, spec=run.spec.model_copy(update={"training": timed}))
    begin_run(run)
    session = open_session(run, RESOURCES)
    assert session.spec.training.steps == 2
    assert session.time_budget is None


def test_a_cross_validation_has_no_session_of_its_own(run: Any) -> None:
    with pytest.raises(TypeError, match="fold by fold"):
        open_session(
            replace(run, fold=ALL, folder=RunFolder(run.folder.path)), RESOURCES
        )
