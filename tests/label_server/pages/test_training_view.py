"""How far a training run is."""

from __future__ import annotations

from pathlib import Path

from medseg import events
from medseg.label_server.pages.training_view import view_training
from medseg.label_server.state import StateFolder
from medseg.label_server.training_progress import (
    TrainingProgress,
    read_curves,
    read_progress,
)


def note_steps(state: StateFolder, steps: int) -> None:
    progress = TrainingProgress(state)
    for step in range(1, steps + 1):
        progress(events.StepDone(step, 1 / step, {}, 0.01))
    scores = {"dice": {"mean": 0.5}}
    progress(events.ValidationDone(steps, scores, is_best=True))


def test_curves_show_every_part_of_a_run_however_long(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    note_steps(state, 1010)
    losses = read_curves(state).losses
    steps = [step for step, _ in losses]
    assert len(losses) <= 200
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (5, 1010)
    view = view_training(state, is_running=True)
    assert (view.status, view.step, view.best) == ("running", 1010, "0.500")
    assert [chart.title for chart in view.charts] == ["Loss", "Validation Dice"]
    # Viewers get what MONAI Label's own would tell, not the curves.
    assert "losses" not in read_progress(state)


def test_a_run_that_was_killed_is_not_shown_as_running(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert view_training(state, is_running=False).status == "none"
    note_steps(state, 5)
    assert view_training(state, is_running=False).status == "ended early"


def test_a_torn_file_is_no_curve(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    for text in ("{", "[]", '{"losses": [[1]]}', '{"losses": [[1, NaN]]}'):
        state.progress.write_text(text)
        assert read_curves(state).losses == []
        assert view_training(state, is_running=False).charts == ()
