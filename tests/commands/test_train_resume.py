"""A training run that is killed and resumed ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support.trainings import (
    Zygote,
    checkpoint,
    same,
    weights,
)

from medseg.testing import write_dataset

STEPS = 60


@pytest.fixture(scope="module")
def home(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are, so that they share one MLflow store: making one takes seconds."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def arguments(home: Path) -> dict[str, object]:
    """A small bundle with everything random in it: dropout, augmentation, averaging."""
    data = write_dataset(home / "data", 5, shape=(24, 20, 16), spacing=9.0)
    bundle = {
        "name": "tiny",
        "channels": [{"name": "CT", "modality": "CT"}],
        "labels": [
            {"index": 1, "name": "liver"},
            {"index": 2, "name": "kidney"},
        ],
        "data": {"folds": 5},
        "preprocessing": {
            "intensity": {"kind": "window", "low": -200, "high": 300}
        },
        "network": {
            "channels": [4, 8, 8],
            "strides": [1, 2, 2],
            "dropout": 0.2,
        },
        "training": {
            "patch": [16, 16, 16],
            "batch_size": 2,
            "steps": STEPS,
            "optimizer": "adamw",
            "learning_rate": 0.003,
            "ema": 0.9,
            "validate_every": 20,
            "checkpoint_every": 7,
        },
        "tracking": {"register_model": False},
    }
    file = home / "bundle.json"
    file.write_text(json.dumps(bundle))
    return {"bundle": str(file), "data": str(data), "device": "cpu"}


@pytest.fixture(scope="module")
def unbroken(zygote: Zygote, arguments: dict[str, object], home: Path) -> Path:
    """A run that nobody disturbs."""
    assert zygote.train(**arguments, out=str(home / "unbroken")) == 0
    return home / "unbroken"


@pytest.mark.slow
def test_killed_anywhere_and_resumed_the_end_is_bit_identical(
    zygote: Zygote, arguments: dict[str, object], unbroken: Path, home: Path
) -> None:
    out = home / "killed"
    anywhere = sorted(
        np.random.default_rng(7).choice(np.arange(8, 40), 3, replace=False)
    )
    points = [
        "StepDone(step=3,",  # before the first checkpoint
        *(f"StepDone(step={step}," for step in anywhere),
        "ValidationDone(step=40,",  # the best weights are written, the checkpoint is not
        f"StepDone(step={STEPS},",
        "Progress(task='scoring held-out cases', done=0,",
    ]
    for number, point in enumerate(points):
        status = zygote.train(
            **arguments, out=str(out), resume=number > 0, kill_at=point
        )
        assert os.WTERMSIG(status) == signal.SIGKILL, point
    assert zygote.train(**arguments, out=str(out), resume=True) == 0
    assert same(checkpoint(out), checkpoint(unbroken))
    assert same(weights(out), weights(unbroken))
    one, other = (
        json.loads((run / "metrics.json").read_text())
        for run in (out, unbroken)
    )
    assert one["scores"] == other["scores"]
    assert one["validations"] == other["validations"]


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_its_step_first(
    zygote: Zygote, arguments: dict[str, object], unbroken: Path, home: Path
) -> None:
    out = home / "stopped"
    stops = (
        ("StepDone(step=3,", signal.SIGINT, 3),
        ("StepDone(step=19,", signal.SIGTERM, 19),
        ("ValidationDone(step=20,", signal.SIGTERM, 20),
        ("StepDone(step=36,", signal.SIGINT, 36),
    )
    for point, number, step in stops:
        status = zygote.train(
            **arguments,
            out=str(out),
            resume=out.exists(),
            kill_at=point,
            kill_by=int(number),
        )
        assert os.waitstatus_to_exitcode(status) == 130, point
        assert checkpoint(out)["learner"]["step"] == step
    assert zygote.train(**arguments, out=str(out), resume=True) == 0
    assert same(checkpoint(out), checkpoint(unbroken))
    assert same(weights(out), weights(unbroken))


@pytest.mark.slow
def test_a_killed_run_is_continued_in_mlflow_not_doubled(
    zygote: Zygote, arguments: dict[str, object], home: Path
) -> None:
    from mlflow import MlflowClient

    out = home / "tracked"
    for point in ("StepDone(step=25,", "ValidationDone(step=40,"):
        assert (
            zygote.train(
                **arguments, out=str(out), resume=out.exists(), kill_at=point
            )
            != 0
        )
    assert zygote.train(**arguments, out=str(out), resume=True) == 0
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.`medseg.run_id` = '{run_id}'"
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
    dice = client.get_metric_history(runs[0].info.run_id, "val/dice/mean")
    assert [metric.step for metric in dice] == [20, 40, 60]
    steps = [
        metric.step
        for metric in client.get_metric_history(runs[0].info.run_id, "loss")
    ]
    assert len(steps) == len(set(steps))
    assert steps[-1] == STEPS
