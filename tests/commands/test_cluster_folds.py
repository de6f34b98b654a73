"""Folds on a cluster are those of one process, and what ends one of them is told and tracked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from support.bundles import content, write_json
from support.rays import OneProcess, RayError

from medseg import MedsegError, TrainingError, train
from medseg._support.ray_head import HEAD_IS_GONE, LostClusterError
from medseg.bundle.weights import load_weights
from medseg.commands.fold_tasks import FoldAssignment
from medseg.events import Event, FoldEvent, Notice, RunDone, StepDone
from medseg.testing import write_dataset

FOLDS = 2


class Home:
    """A data set of two folds, trained by one process into ``whole``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = write_dataset(
            folder / "data", 3, shape=(24, 20, 16), spacing=9.0
        )
        made = content(
            data={"folds": FOLDS},
            preprocessing={
                "intensity": {"kind": "window", "low": -200, "high": 300}
            },
            training={"steps": 4, "validate_every": 2, "optimizer": "adamw"},
            tracking={"register_model": False, "experiment": "folds"},
        )
        self.bundle = write_json(folder, made)

    @cached_property
    def whole(self) -> Path:
        return self.train(self.folder / "whole")

    def train(self, out: Path, **options: Any) -> Path:
        given = {"fold": "all", "device": "cpu", "threads": 1} | options
        return train(self.bundle, data=self.data, out=out, **given)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("folds"))


@pytest.fixture
def train_on_ray(
    home: Home, ray: OneProcess, tmp_path: Path
) -> Callable[..., Path]:
    def call(out: str = "out", **options: Any) -> Path:
        return home.train(home.folder / out, on="ray", **options)

    return call


def list_files(folder: Path) -> list[str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(str(file.relative_to(folder)) for file in files)


def list_scores(folder: Path) -> Any:
    metrics = json.loads((folder / "metrics.json").read_text())
    return [metrics[key] for key in ("scores", "cases", "folds")]


@pytest.mark.slow
@pytest.mark.nightly
def test_the_bundle_is_the_one_of_one_process(
    home: Home, train_on_ray: Callable[..., Path]
) -> None:
    told: list[Event] = []
    out = train_on_ray(listeners=[told.append])
    assert list_files(out) == list_files(home.whole)
    for file in home.whole.rglob("*.pt"):
        name = file.relative_to(home.whole)
        if "checkpoints" not in name.parts:
            found, expected = load_weights(out / name), load_weights(file)
            assert list(found) == list(expected)
            assert all(map(torch.equal, found.values(), expected.values()))
    assert list_scores(out) == list_scores(home.whole)
    steps = [
        (event.fold, event.event.step)
        for event in told
        if isinstance(event, FoldEvent) and isinstance(event.event, StepDone)
    ]
    assert sorted(steps) == [(f, s) for f in range(FOLDS) for s in range(1, 5)]
    assert isinstance(told[-1], RunDone)
    check_tracked(home, out)


def check_tracked(home: Home, out: Path) -> None:
    """Make sure that MLflow heard of each fold, of each step once."""
    client = MlflowClient(f"sqlite:///{home.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("folds")
    runs = client.search_runs([experiment.experiment_id])
    ids = {
        json.loads(file.read_text())["run_id"] for file in out.rglob("run.json")
    }
    own = [run for run in runs if run.data.tags["medseg.run_id"] in ids]
    assert sorted(run.data.params["fold"] for run in own) == ["0", "1", "all"]
    for run in own:
        assert run.info.status == "FINISHED"
        if run.data.params["fold"] != "all":
            history = client.get_metric_history(run.info.run_id, "loss")
            assert [metric.step for metric in history] == [1, 2, 3, 4]
    assert not list(out.rglob("mlflow.db"))


@pytest.mark.slow
def test_a_fold_whose_processes_die_fails_alone_and_the_same_call_goes_on(
    home: Home, ray: OneProcess, train_on_ray: Callable[..., Path]
) -> None:
    told: list[Event] = []
    times: list[int] = []

    def kill(arguments: list[Any], count: int) -> Exception | None:
        if getattr(arguments[0], "fold", None) != 0:
            return None
        times.append(count)
        return RayError()

    ray.kills = kill
    with pytest.raises(
        TrainingError, match=r"fold 0 died 3 times.*own\) to see"
    ):
        train_on_ray("poison", resume=True, listeners=[told.append])
    assert len(times) == 3
    notes = [
        event.event.message
        for event in told
        if isinstance(event, FoldEvent) and isinstance(event.event, Notice)
    ]
    assert any(note.startswith("failed, and the other") for note in notes)
    out = home.folder / "poison"
    assert not (out / "metrics.json").exists()
    assert not (out / "events").exists()
    finished = (out / "folds/fold_1/models/model.pt").stat()
    ray.kills = lambda *_: None
    train_on_ray("poison", resume=True)
    after = (out / "folds/fold_1/models/model.pt").stat()
    assert after.st_mtime_ns == finished.st_mtime_ns
    assert list_scores(out) == list_scores(home.whole)


def test_a_lost_head_says_how_the_training_goes_on(
    ray: OneProcess,
    train_on_ray: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait = ray.wait

    def lose(references: list[int], **given: Any) -> Any:
        if any(b"FoldAssignment" in call for call in ray._calls.values()):
            raise LostClusterError(HEAD_IS_GONE)
        return wait(references, **given)

    monkeypatch.setattr(ray, "wait", lose)
    with pytest.raises(LostClusterError, match="with --resume: every fold"):
        train_on_ray("headless")


def test_a_node_with_other_cases_trains_nothing(
    home: Home,
    ray: OneProcess,
    train_on_ray: Callable[..., Path],
    tmp_path: Path,
) -> None:
    other = write_dataset(
        tmp_path / "other", 4, shape=(24, 20, 16), spacing=9.0
    )

    def change(arguments: list[Any], count: int) -> None:
        if isinstance(arguments[0], FoldAssignment):
            object.__setattr__(arguments[0].whole, "data", other)

    ray.kills = change
    with pytest.raises(MedsegError, match="other cases"):
        train_on_ray("elsewhere")
    shutil.rmtree(other)
    with pytest.raises(MedsegError, match="does not see the data"):
        train_on_ray("elsewhere", resume=True)


def test_what_a_cluster_cannot_do_is_refused(
    train_on_ray: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MedsegError, match="Ray chooses the GPU"):
        train_on_ray("refused", device="cuda:1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(MedsegError, match="without torchrun"):
        train_on_ray("refused")


@pytest.mark.slow
def test_one_network_is_trained_here_with_cases_that_nodes_preprocessed(
    home: Home, ray: OneProcess, train_on_ray: Callable[..., Path]
) -> None:
    cache = home.folder / "own"
    out = train_on_ray("single", fold=0, cache=cache)
    assert len(ray._times) == len(list(cache.iterdir())) == 3
    assert (out / "metrics.json").is_file()
