"""What is shown of events: bars and notes on stderr, results on stdout."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg import events
from medseg.cli.terminal import Terminal
from medseg.errors import Fault


def show(capsys: pytest.CaptureFixture[str], *shown: events.Event) -> str:
    with Terminal() as terminal:
        for event in shown:
            terminal(event)
    return capsys.readouterr().err


def start(resumed_at: int | None = None) -> events.RunStarted:
    provenance = {"device": "cpu"}
    folder = Path("runs/liver")
    return events.RunStarted(
        folder, "id", "liver", "liver", {}, provenance, resumed_at, 10
    )


def test_a_run_is_named_with_its_device_and_where_it_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "training liver on cpu → runs/liver" in show(capsys, start())
    resuming = "training liver on cpu, resuming at step 4 of 10 → runs/liver"
    assert resuming in show(capsys, start(4))


def test_a_validation_shows_the_mean_and_each_label(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = {
        "dice": {"liver": 0.5, "mean": 0.5},
        "hd95": {"liver": 3.0, "mean": 3.0},
    }
    best = events.ValidationDone(5, scores, is_best=True)
    shown = show(capsys, start(), best)
    assert "step 5: Dice 0.500 (liver 0.500), HD95 3.0 mm  best so far" in shown
    other = events.ValidationDone(5, scores, is_best=False)
    assert "best so far" not in show(capsys, start(), other)


def test_the_shown_loss_is_smooth(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [
        events.StepDone(n, loss, {}, 0.01) for n, loss in ((1, 1.0), (2, 0.0))
    ]
    assert "loss 0.950" in show(capsys, start(), *steps)


def test_folds_side_by_side_have_a_bar_and_a_loss_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[events.Event] = []
    for fold, loss in ((0, 1.0), (1, 3.0)):
        said.append(events.FoldEvent(fold, start()))
        step = events.StepDone(4 + fold, loss, {}, 0.01)
        said.append(events.FoldEvent(fold, step))
    said.append(events.FoldEvent(1, events.Notice("late")))
    lines = show(capsys, *said).splitlines()
    assert lines[0].startswith("fold 0: training liver on cpu")
    assert "fold 1: note late" in lines
    bars = [line.split() for line in lines[-2:]]
    assert [bar[:2] for bar in bars] == [["fold", "0"], ["fold", "1"]]
    assert "training loss 1.000" in lines[-2]
    assert "training loss 3.000" in lines[-1]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (events.Notice("a [name] in brackets"), "note a [name] in brackets"),
        (
            events.TimeBudgetFitted(20, 300, 3.5),
            "300 steps of 3.50 s fit into 20 minutes",
        ),
        (
            events.ScheduleShortened(200),
            "shortened to 200 steps to end in time",
        ),
        (
            events.FineTuningStarted("liver", ["the head is new"]),
            "starting from liver",
        ),
        (
            events.HeldOutDecision("keep_largest", ["liver"]),
            "held-out cases decided: keep_largest",
        ),
        (events.RunDone(Path("r"), {}, stopped_early=True), "stopped early"),
    ],
)
def test_events_are_said_in_words(
    event: events.Event, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert text in show(capsys, event)


def test_where_there_is_nothing_to_do_there_is_no_bar(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert show(capsys, events.Progress("segmenting", 0, 0)) == ""
    assert "1/1" in show(capsys, events.Progress("segmenting", 1, 1))


def test_results_are_on_stdout_with_numbers_at_the_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Terminal() as terminal:
        terminal.say("[bold] is no command")
        terminal.show_table(
            [("label", "Dice"), ("liver", "0.9"), ("a", "0.95")]
        )
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "[bold] is no command"
    assert [line.rstrip() for line in out if "liver" in line] == [
        " liver   0.9"
    ]


def test_a_name_that_has_no_room_is_broken_rather_than_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    name = "training.augmentation.mirror_axes"
    with Terminal() as terminal:
        rows = [("field", "why"), (name, "left and right alone " * 9)]
        terminal.show_table(rows, left=range(2), wrapped=True)
    printed = capsys.readouterr().out
    assert "…" not in printed
    starts = [line.split("  ")[0].strip() for line in printed.splitlines()]
    assert name.startswith("".join(starts[3:5]))


def test_what_many_cases_failed_for_is_said_once_and_hides_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = [Fault(f"c{n}", "has no prediction") for n in range(30)]
    torn = Fault("z", "is torn", detail="z.nii")
    with Terminal() as terminal:
        terminal.say_faults("not scored", [*faults, torn])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "not scored: 30 cases (c0, c1, c2, c3, c4 and 25 more): has no prediction",
        "not scored: z: is torn (z.nii)",
    ]


def test_a_long_list_of_different_faults_is_counted_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = [Fault(f"c{n}", f"holds {'a' * n}") for n in range(22)]
    with Terminal() as terminal:
        terminal.say_faults("not scored", faults)
    printed = capsys.readouterr().out
    assert printed.count("not scored: c") == 20
    assert "not scored: 2 more; --json names them all" in printed


def test_one_minute_is_singular(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(capsys, events.TimeBudgetFitted(1.0, 20, 0.5))
    assert "fit into 1 minute\n" in shown
