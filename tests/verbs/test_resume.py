"""A training that is killed and resumed ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch

from medseg.testing import write_dataset

STEPS = 60


class Zygote:
    """Starts trainings, and kills them if wanted."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("train_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._out.readline() == "ready\n"

    @property
    def _out(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def train(self, *, kill_after: float | None = None, **arguments: object) -> int:
        """Train in a child; return its wait status."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        child = int(self._out.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        return int(self._out.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """One process for all trainings of this file."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are, so that they share one MLflow store: making one takes seconds."""
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def arguments(home: Path) -> dict[str, object]:
    """A small bundle with everything random in it: dropout, augmentation, averaging."""
    data = write_dataset(home / "data", 5, shape=(24, 20, 16), spacing=9.0)
    bundle = {
        "name": "tiny",
        "channels": [{"name": "CT", "modality": "CT"}],
        "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
        "data": {"folds": 5},
        "preprocessing": {"intensity": {"kind": "window", "low": -200, "high": 300}},
        "network": {"channels": [4, 8, 8], "strides": [1, 2, 2], "dropout": 0.2},
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
def unbroken(zygote: Zygote, arguments: dict[str, object], home: Path) -> tuple[Path, float]:
    """A run that nobody disturbs, and how long it takes with everything prepared."""
    assert zygote.train(**arguments, out=str(home / "first")) == 0
    began = time.monotonic()
    assert zygote.train(**arguments, out=str(home / "unbroken")) == 0
    return home / "unbroken", time.monotonic() - began


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def same(one: object, other: object) -> bool:
    """Compare nested tensors and values bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return one == other or (one != one and other != other)


def test_two_runs_with_one_seed_are_equal(
    zygote: Zygote, arguments: dict[str, object], unbroken: tuple[Path, float]
) -> None:
    run, _ = unbroken
    assert same(checkpoint(run), checkpoint(run.with_name("first")))


def test_killed_anywhere_and_resumed_the_end_is_bit_identical(
    zygote: Zygote, arguments: dict[str, object], unbroken: tuple[Path, float], home: Path
) -> None:
    run, seconds = unbroken
    out = home / "killed"
    rng = np.random.default_rng(7)
    kills, resume = 0, False
    for _ in range(20):
        status = zygote.train(
            **arguments,
            out=str(out),
            resume=resume,
            kill_after=float(rng.uniform(0.1, 0.9)) * seconds if kills < 4 else None,
        )
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        resume = (out / "run.json").is_file()
    assert kills == 4
    assert (out / "metrics.json").is_file()
    assert same(checkpoint(out), checkpoint(run))
    assert same(weights(out), weights(run))
    one, other = (json.loads((place / "metrics.json").read_text()) for place in (out, run))
    assert one["scores"] == other["scores"]
    assert one["validations"] == other["validations"]


def test_a_killed_run_is_continued_in_mlflow_not_doubled(
    zygote: Zygote, arguments: dict[str, object], unbroken: tuple[Path, float], home: Path
) -> None:
    from mlflow import MlflowClient

    _, seconds = unbroken
    out = home / "tracked"
    zygote.train(**arguments, out=str(out), kill_after=0.8 * seconds)
    assert zygote.train(**arguments, out=str(out), resume=(out / "run.json").is_file()) == 0
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], f"tags.`medseg.run_id` = '{run_id}'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    dice = client.get_metric_history(runs[0].info.run_id, "val/dice/mean")
    assert [metric.step for metric in dice] == [20, 40, 60]
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "loss")]
    assert len(steps) == len(set(steps))
    assert steps[-1] == STEPS
