"""The history of a training run survives a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medseg.events import Notice, StepDone
from medseg.training.history import TrainingHistory
from medseg.training.run_folder import RunFolder


def scores(dice: float) -> dict[str, dict[str, float]]:
    return {
        "dice": {"liver": dice, "mean": dice},
        "hd95": {"liver": math.nan, "mean": math.nan},
    }


def history_of(*dice: float, steps: int = 4) -> TrainingHistory:
    history = TrainingHistory("made_up")
    for step in range(1, steps + 1):
        history(
            StepDone(
                step, 1 / step, {"dice": 0.5 / step, "ce": 0.1}, 0.01 * step
            )
        )
    for number, value in enumerate(dice, start=1):
        history.add_validation(10 * number, scores(value))
    return history


def test_the_best_is_the_first_of_equals() -> None:
    history = TrainingHistory("made_up")
    assert history.best_step is None
    assert [
        history.add_validation(10 * n, scores(d))
        for n, d in enumerate((0.2, 0.5, 0.5, 0.4))
    ]
    found = history_of(0.2, 0.5, 0.5, 0.4)
    assert (found.best_dice, found.best_step) == (0.5, 20)


def test_the_first_validation_is_the_best_even_at_zero() -> None:
    history = TrainingHistory("made_up")
    assert history.add_validation(10, scores(0.0))
    assert history.best_step == 10
    assert not history.add_validation(20, scores(0.0))


def test_where_nothing_is_to_be_found_the_latest_that_finds_nothing_is_kept() -> (
    None
):
    history = TrainingHistory("made_up")
    kept = [
        history.add_validation(10 * n, scores(d))
        for n, d in enumerate((0.0, math.nan, 0.0))
    ]
    assert kept == [True, True, False]
    assert history.add_validation(40, scores(math.nan))
    assert (history.best_step, history.best_dice) == (40, 0.0)
    assert not history.has_stalled(1)


@pytest.mark.parametrize(
    ("dice", "patience", "stalled"),
    [
        ((0.1, 0.2, 0.3), 1, False),
        ((0.3, 0.2), 1, True),
        ((0.3, 0.2), 2, False),
        ((0.3, 0.2, 0.3), 2, True),
        ((0.3, 0.2, 0.31), 2, False),
        ((), 1, False),
        ((0.3, 0.2, 0.1), None, False),
    ],
)
def test_patience(
    dice: tuple[float, ...], patience: int | None, stalled: bool
) -> None:
    assert history_of(*dice).has_stalled(patience) is stalled


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_checkpoint_brings_the_record_back_to_the_last_digit(
    steps: int, tmp_path: Path
) -> None:
    history = history_of(0.1, 0.7, 0.3, steps=steps)
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"record": history.state()})
    state = folder.load_checkpoint()
    assert state is not None
    again = TrainingHistory("made_up")
    again.restore(state["record"])
    # NaN is not equal to itself.
    assert repr(again.curves) == repr(history.curves)
    assert again.best_step == 20
    assert repr(again.state()) == repr(history.state())


def test_the_history_has_every_curve() -> None:
    curves = history_of(0.4).curves
    assert list(curves.losses) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert list(curves.parts["dice"]) == [
        (step, 0.5 / step) for step in (1, 2, 3, 4)
    ]
    assert list(curves.learning_rates)[-1] == (4, 0.04)
    assert curves.validations[0][0] == 10


def test_other_events_leave_no_trace() -> None:
    history = history_of()
    before = repr(history.state())
    history(Notice("nothing"))
    assert repr(history.state()) == before


def test_of_weights_as_good_within_the_tolerance_the_latest_are_best() -> None:
    history = TrainingHistory("made_up", tolerance=0.01)
    dice = [0.8, 0.795, 0.78, 0.82, 0.815, 0.7]
    best = [
        history.add_validation(step, {"dice": {"mean": value}})
        for step, value in enumerate(dice, start=1)
    ]
    assert best == [True, True, False, True, True, False]
    assert history.best_step == 5
    assert history.has_stalled(1)
    assert not history.has_stalled(2)
