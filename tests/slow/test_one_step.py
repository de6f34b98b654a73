"""``medseg train DATASET --budget``: planned, trained, stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medseg
from medseg.events import Event, Notice, RunStarted, StepDone
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def test_a_data_set_is_planned_and_trained_in_one_step_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "liver", 4, shape=(24, 20, 16), spacing=9.0)
    events: list[Event] = []

    def stop_after_seven_steps(event: Event) -> None:
        events.append(event)
        # Before a slow machine would shorten the run.
        if isinstance(event, StepDone) and event.step == 7:
            raise KeyboardInterrupt

    settings = ["training.checkpoint_every=5", "quality.corrupted_copies=0"]
    with pytest.raises(KeyboardInterrupt):
        medseg.train(
            data,
            budget="24s",
            device="cpu",
            overrides=settings,
            listeners=[stop_after_seven_steps],
        )
    (planned,) = (tmp_path / "runs").glob("*/*-bundle.json")
    content = json.loads(planned.read_text())
    assert content["training"]["budget_minutes"] == 0.4
    told = " ".join(e.message for e in events if isinstance(e, Notice))
    assert "4 cases; 2 labels: liver, kidney" in told
    assert planned.name in told
    resumed: list[Event] = []
    run = medseg.train(
        data,
        budget="24s",
        resume=True,
        device="cpu",
        overrides=settings,
        listeners=[resumed.append],
    )
    assert (run / "models" / "model.pt").is_file()
    (started,) = (e for e in resumed if isinstance(e, RunStarted))
    assert started.resumed_at == 5
    assert len(list((tmp_path / "runs").glob("*/*-bundle.json"))) == 1
