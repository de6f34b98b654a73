"""Runs in a real MLflow store; servers that are away, dumb or broken are real sockets and files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest

from medseg.errors import ScanError, recordable_text
from medseg.events import (
    Notice,
    RunDone,
    RunFailed,
    RunStarted,
    ScheduleShortened,
    StepDone,
    ValidationDone,
)
from medseg.tracking.store import get_or_create_experiment, make_sqlite_uri
from medseg.tracking.tracker import MlflowTracker

MODEL_CODE = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Names(PythonModel):
    def load_context(self, context):
        self.bundle = context.artifacts["bundle"]

    def predict(self, context, model_input: pd.DataFrame, params=None):
        import pathlib
        return sorted(str(p.relative_to(self.bundle)) for p in pathlib.Path(self.bundle).rglob("*"))

set_model(Names())
"""


@pytest.fixture(autouse=True)
def _no_server_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_store, path)
    return path


def started(run_id: str = "r1", **changes: Any) -> RunStarted:
    facts: dict[str, Any] = {
        "folder": Path("runs/hippocampus/r1"),
        "run_id": run_id,
        "name": "hippocampus",
        "experiment": "brain",
        "parameters": {"training.steps": "10", "labels.0.name": "anterior"},
        "provenance": {"torch": "2.13.0", "git.commit": "abc"},
        "resumed_at": None,
        "total_steps": 10,
    }
    return RunStarted(**{**facts, **changes})


def step(number: int, loss: float = 0.5) -> StepDone:
    return StepDone(number, loss, {"dice": 0.3, "ce": 0.2}, learning_rate=0.01)


def client(store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=make_sqlite_uri(store))


def runs(store: Path, experiment: str = "brain") -> list[Any]:
    found = client(store).get_experiment_by_name(experiment)
    return list(client(store).search_runs([found.experiment_id]))


def history(store: Path, run: Any, key: str) -> list[tuple[int, float]]:
    return [
        (m.step, m.value)
        for m in client(store).get_metric_history(run.info.run_id, key)
    ]


def artifacts(run: Any) -> list[str]:
    uri = run.info.artifact_uri.removeprefix("file://")
    folder = Path(url2pathname(uri))
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
    )


def trained_bundle(folder: Path) -> Path:
    for name in ("bundle.json", "metrics.json", "curves.png", "docs/README.md",
                 "configs/inference.json", "models/model.pt", "checkpoints/step.pt"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "bundle.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "home",
    [
        "what?mode=ro&cache=shared",
        "100%20sure",
        "a#1; b + c",
        "Mu\u0308ller 肝",
        "C:\\Users\\x y",
    ],
)
def test_a_store_may_lie_in_a_folder_of_any_name(
    empty_store: Path, tmp_path: Path, home: str
) -> None:
    import mlflow

    store = tmp_path / home / "mlflow.db"
    store.parent.mkdir()
    shutil.copyfile(empty_store, store)
    code = tmp_path / "code.py"
    code.write_text(MODEL_CODE)
    said: list[str] = []
    tracker = MlflowTracker(store, model_code=code, say=said.append)

    tracker(started())
    tracker(RunDone(trained_bundle(tmp_path / "trained"), {}))

    assert said == []
    assert "curves.png" in artifacts(runs(store)[0])
    # Whether Python keeps what it compiled is the affair of who runs the tests.
    made = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert made == {home, "code.py", "trained"}
    (version,) = client(store).search_model_versions("name='hippocampus'")
    # Without a folder to copy to, MLflow would decode the %20 of a local path.
    copy = tmp_path / "copy"
    copy.mkdir()
    loaded = mlflow.pyfunc.load_model(version.source, dst_path=str(copy))
    assert "bundle.json" in loaded.predict({"scan": ["x"]})


@pytest.mark.parametrize(
    "experiment", ["/Users/a.b@example.org/Leber CT", "肝 ü", "a/b?c=%20#1"]
)
def test_an_experiment_may_have_any_name(store: Path, experiment: str) -> None:
    said: list[str] = []
    for _ in range(2):
        tracker = MlflowTracker(store, say=said.append)
        tracker(started(experiment=experiment))
        tracker(RunDone(Path("nowhere"), {}))
    assert said == []
    assert len(runs(store, experiment)) == 1


def test_an_experiment_opens_as_one_of_trained_models_and_describes_itself(
    store: Path,
) -> None:
    MlflowTracker(store)(started(description="Liver in CT"))
    experiment = client(store).get_experiment_by_name("brain")
    page = f"#/experiments/{experiment.experiment_id}/runs"
    assert experiment.tags == {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": (
            f"Liver in CT\n\n[Runs]({page}?workflowType=machine_learning)"
        ),
    }


def test_what_somebody_said_of_an_experiment_stays(store: Path) -> None:
    own = client(store)
    identity = own.create_experiment("brain", tags={"team": "a"})
    own.set_experiment_tag(identity, "mlflow.note.content", "ours")
    own.set_experiment_tag(identity, "mlflow.experimentKind", "classification")
    MlflowTracker(store)(started(description="Liver in CT"))
    assert own.get_experiment(identity).tags == {
        "team": "a",
        "mlflow.experimentKind": "classification",
        "mlflow.note.content": "ours",
    }


def test_who_may_not_change_an_experiment_may_track_in_it(store: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    class Guest(MlflowClient):
        def set_experiment_tag(self, *arguments: Any) -> None:
            raise MlflowException("Permission denied")

    guest = Guest(tracking_uri=make_sqlite_uri(store))
    identity = get_or_create_experiment(guest, "brain", None, "Liver in CT")
    assert guest.get_experiment(identity).name == "brain"


def test_where_the_data_are_is_in_no_file_of_a_run(
    store: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code.py"
    code.write_text(MODEL_CODE)
    bundle = trained_bundle(tmp_path / "trained")
    (bundle / "bundle.json").write_text(
        '{"name": "ü", "data": {"root": "/home/mueller_hans", "folds": 3}}',
        encoding="utf-8",
    )
    tracker = MlflowTracker(store, model_code=code)
    tracker(started())
    tracker(RunDone(bundle, {}))

    copies = list((store.parent / "mlartifacts").rglob("bundle.json"))
    assert len(copies) == 2
    for copy in copies:
        content = json.loads(copy.read_text(encoding="utf-8"))
        assert content == {"name": "ü", "data": {"folds": 3}}
    assert "mueller" in (bundle / "bundle.json").read_text(encoding="utf-8")


def test_a_run_leaves_parameters_tags_metrics_and_a_status(store: Path) -> None:
    said: list[str] = []
    tracker = MlflowTracker(store, say=said.append)
    tracker(started())
    for number in range(1, 4):
        tracker(step(number, loss=1 / number))
    tracker(
        ValidationDone(
            3, {"dice": {"mean": 0.8, "anterior": 0.7}}, is_best=True
        )
    )
    tracker(RunDone(Path("nowhere"), {"dice": {"mean": 0.8}}))
    (run,) = runs(store)
    assert said == []
    assert run.info.run_name == "hippocampus-r1"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "training.steps": "10",
        "labels.0.name": "anterior",
    }
    assert run.data.tags["medseg.run_id"] == "r1"
    assert run.data.tags["medseg.git.commit"] == "abc"
    assert history(store, run, "loss") == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]
    assert history(store, run, "loss/dice") == [(1, 0.3), (2, 0.3), (3, 0.3)]
    assert history(store, run, "learning_rate")[-1] == (3, 0.01)
    assert history(store, run, "val/dice/anterior") == [(3, 0.7)]
    assert history(store, run, "final/dice/mean") == [(3, 0.8)]


def test_a_resumed_run_goes_on_in_the_same_run_and_logs_no_step_twice(
    store: Path,
) -> None:
    killed = MlflowTracker(store, flush_seconds=0)
    killed(started())
    for number in (1, 2, 3):
        killed(step(number, loss=number))
    killed(ValidationDone(3, {"dice": {"mean": 0.5}}, is_best=True))
    # Killed here, after a checkpoint at step 1; steps 2 and 3 are done again.
    resumed = MlflowTracker(store)
    resumed(started(resumed_at=1, parameters={"training.steps": "20"}))
    assert [run.info.status for run in runs(store)] == ["RUNNING"]
    for number in (2, 3, 4):
        resumed(step(number, loss=number))
    resumed(ValidationDone(3, {"dice": {"mean": 0.5}}, is_best=True))
    resumed(RunDone(Path("nowhere"), {}))
    (run,) = runs(store)
    assert history(store, run, "loss") == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
    ]
    assert history(store, run, "val/dice/mean") == [(3, 0.5)]
    assert run.data.params["training.steps"] == "10", (
        "parameters are written once for all"
    )
    assert run.data.tags["medseg.resumed.training.steps"] == "20"
    assert run.data.tags["medseg.resumed_at"] == "1"
    assert run.info.status == "FINISHED"


def test_a_shortened_run_says_how_many_steps_it_has_and_took(
    store: Path,
) -> None:
    tracker = MlflowTracker(store)
    tracker(started())
    tracker(step(1))
    tracker(ScheduleShortened(7))
    assert runs(store)[0].data.tags["medseg.shortened.training.steps"] == "7"
    tracker(ScheduleShortened(2))
    tracker(step(2))
    tracker(RunDone(Path("nowhere"), {}))
    (run,) = runs(store)
    assert run.data.params["training.steps"] == "10"
    assert run.data.tags["medseg.shortened.training.steps"] == "2"
    assert run.data.tags["medseg.steps_done"] == "2"


def test_a_run_without_steps_of_its_own_claims_none(store: Path) -> None:
    tracker = MlflowTracker(store)
    tracker(started())
    tracker(RunDone(Path("nowhere"), {}))
    assert "medseg.steps_done" not in runs(store)[0].data.tags


def test_a_failed_run_that_is_resumed_is_running_again(store: Path) -> None:
    tracker = MlflowTracker(store)
    tracker(started())
    tracker(step(1))
    tracker(RunFailed("no memory left"))
    assert runs(store)[0].info.status == "FAILED"
    assert runs(store)[0].data.tags["medseg.error"] == "no memory left"
    tracker(started(resumed_at=1))
    (run,) = runs(store)
    assert run.info.status == "RUNNING"
    assert "medseg.error" not in run.data.tags


def test_another_unfinished_run_is_left_alone(store: Path) -> None:
    first, second = (
        MlflowTracker(store, flush_seconds=0),
        MlflowTracker(store, flush_seconds=0),
    )
    first(started("a"))
    second(started("b"))
    first(step(1, loss=1.0))
    second(step(1, loss=2.0))
    second(RunDone(Path("nowhere"), {}))
    by_id = {run.data.tags["medseg.run_id"]: run for run in runs(store)}
    assert {key: run.info.status for key, run in by_id.items()} == {
        "a": "RUNNING",
        "b": "FINISHED",
    }
    assert history(store, by_id["a"], "loss") == [(1, 1.0)]
    assert history(store, by_id["b"], "loss") == [(1, 2.0)]


def test_of_an_error_is_logged_what_names_nobody_and_of_a_notice_nothing(
    store: Path,
) -> None:
    tracker = MlflowTracker(store)
    errors = {
        "own": ScanError(
            "the voxels end early",
            source="mueller_hans.nii.gz",
            detail="mueller",
        ),
        "foreign": FileNotFoundError(2, "No such file", "mueller_hans.nii.gz"),
    }
    for run_id, error in errors.items():
        tracker(started(run_id))
        tracker(Notice("mueller_hans.nii.gz: odd spacing"))
        tracker(RunFailed(recordable_text(error)))
    tracker(started("interrupted"))
    tracker(RunFailed("interrupted", interrupted=True))
    by_id = {run.data.tags["medseg.run_id"]: run for run in runs(store)}
    assert by_id["own"].info.status == by_id["foreign"].info.status == "FAILED"
    assert by_id["own"].data.tags["medseg.error"] == "the voxels end early"
    assert by_id["foreign"].data.tags["medseg.error"] == "FileNotFoundError"
    assert by_id["own"].data.tags["medseg.warnings"] == "1"
    assert by_id["interrupted"].info.status == "KILLED"
    assert by_id["interrupted"].data.tags["medseg.warnings"] == "0"
    assert "medseg.error" not in by_id["interrupted"].data.tags
    assert b"mueller" not in store.read_bytes()


def test_pictures_carry_their_step_and_no_name_of_a_case(
    store: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "mueller_hans.png"
    picture.write_bytes(b"\x89PNG")
    tracker = MlflowTracker(store)
    tracker(started())
    tracker(ValidationDone(500, {}, is_best=True, pictures=[picture, picture]))
    assert artifacts(runs(store)[0]) == [
        "pictures/step-000500-01.png",
        "pictures/step-000500-02.png",
    ]
    assert (store.parent / "mlartifacts").is_dir(), "files lie beside the store"


def test_any_label_name_and_long_values_can_be_tracked(store: Path) -> None:
    said: list[str] = []
    names = [
        "tumor (enhancing)",
        "tumor [enhancing]",
        "a/b",
        "..",
        "lésion",
        "x" * 300,
        "",
        "a b",
    ]
    tracker = MlflowTracker(store, say=said.append)
    tracker(
        started(
            parameters={f"labels.{n}.name %": "y" * 9000 for n in range(250)}
        )
    )
    scores = {"dice": {name: n / 10 for n, name in enumerate(names)}}
    tracker(ValidationDone(1, scores, is_best=False))
    (run,) = runs(store)
    assert said == []
    assert len(run.data.params) == 250
    logged = {
        key: value
        for key, value in run.data.metrics.items()
        if key.startswith("val/dice/")
    }
    assert sorted(logged.values()) == [n / 10 for n in range(len(names))], (
        "none is lost"
    )
    assert logged["val/dice/a b"] == 0.7


def test_infinite_and_missing_scores_do_not_stop_a_run(store: Path) -> None:
    tracker = MlflowTracker(store)
    tracker(started())
    scores = {
        "hd95": {
            "anterior": float("inf"),
            "posterior": float("nan"),
            "mean": 2.0,
        }
    }
    tracker(ValidationDone(1, scores, is_best=False))
    metrics = runs(store)[0].data.metrics
    assert metrics["val/hd95/anterior"] != metrics["val/hd95/anterior"], (
        "NaN, not 1.8e308"
    )
    assert metrics["val/hd95/mean"] == 2.0


def test_a_step_costs_far_less_than_a_millisecond(store: Path) -> None:
    tracker = MlflowTracker(store, flush_seconds=0.2)
    tracker(started())
    # The time of the thread that trains: sending goes on beside it, as slowly as the store is.
    begin = time.thread_time()
    for number in range(1, 5001):
        tracker(step(number))
    each = (time.thread_time() - begin) / 5000
    tracker(RunFailed("", interrupted=True))
    assert len(history(store, runs(store)[0], "loss")) == 5000
    assert each < 0.0005


def test_steps_are_sent_in_few_calls(store: Path) -> None:
    tracker = MlflowTracker(store, flush_seconds=3600)
    tracker(started())
    tracker(step(1))
    assert history(store, runs(store)[0], "loss") == [], "collected"
    tracker(ValidationDone(1, {}, is_best=True))
    assert len(history(store, runs(store)[0], "loss")) == 1, (
        "a validation sends them"
    )


def test_the_trained_bundle_becomes_a_registered_model(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    code = tmp_path / "code.py"
    code.write_text(MODEL_CODE)
    bundle = trained_bundle(tmp_path / "trained")
    said: list[str] = []
    tracker = MlflowTracker(store, model_code=code, say=said.append)
    for run_id in ("r1", "r2"):
        tracker(started(run_id))
        tracker(step(7))
        tracker(RunDone(bundle, {"dice": {"mean": 0.8}}))
    assert said == []
    assert capfd.readouterr() == ("", "")
    assert "curves.png" in artifacts(runs(store)[0])
    assert "docs/README.md" in artifacts(runs(store)[0])
    assert not any("checkpoints" in name for name in artifacts(runs(store)[0]))
    versions = client(store).search_model_versions("name='hippocampus'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    model = client(store).search_logged_models(
        [runs(store)[0].info.experiment_id]
    )[0]
    assert str(model.status) == "READY"
    assert model.artifact_location in {version.source for version in versions}
    assert model.source_run_id in {version.run_id for version in versions}
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    assert loaded.predict({"scan": ["x"]}) == [
        "bundle.json", "configs", "configs/inference.json", "docs", "docs/README.md",
        "metrics.json", "models", "models/model.pt",
    ]  # fmt: skip
    files = Path(model.artifact_location.removeprefix("file://"))
    wanted = (files / "requirements.txt").read_text()
    assert "medseg==" in wanted
    assert "torch==" in wanted
    assert "+cpu" not in wanted
    assert not any(path.is_symlink() for path in files.rglob("*")), (
        "the store holds the weights"
    )


def test_a_model_that_is_not_to_be_registered_is_only_logged(
    store: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code.py"
    code.write_text(MODEL_CODE)
    tracker = MlflowTracker(store, model_code=code, register_model=False)
    tracker(started())
    tracker(RunDone(trained_bundle(tmp_path / "trained"), {}))
    assert client(store).search_registered_models() == []
    (run,) = runs(store)
    assert (
        len(client(store).search_logged_models([run.info.experiment_id])) == 1
    )


def test_files_that_cannot_be_stored_leave_the_run_finished(
    store: Path, tmp_path: Path
) -> None:
    (tmp_path / "mlartifacts").write_text("a file where a folder is needed")
    said: list[str] = []
    tracker = MlflowTracker(store, tmp_path / "mlartifacts", say=said.append)
    tracker(started())
    tracker(RunDone(trained_bundle(tmp_path / "trained"), {}))
    assert runs(store)[0].info.status == "FINISHED"
    assert len(said) == 1


@pytest.fixture
def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("kind", ["closed_port", "silent_port"])
def test_a_dead_server_costs_seconds_and_is_said_once(
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    port = request.getfixturevalue(kind)
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}"
    )
    said: list[str] = []
    tracker = MlflowTracker(
        tmp_path / "mlflow.db", say=said.append, flush_seconds=0
    )
    begin = time.monotonic()
    tracker(started())
    for number in range(1, 100):
        tracker(step(number))
    tracker(ValidationDone(100, {"dice": {"mean": 0.5}}, is_best=True))
    tracker(RunDone(tmp_path, {}))
    assert time.monotonic() - begin < 10
    assert len(said) == 1
    assert "no longer tracked" in said[0]
    assert "secret" not in said[0]
    assert list(tmp_path.iterdir()) == []
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ, (
        "settings are put back"
    )


@pytest.mark.parametrize("kind", ["garbage", "folder", "unwritable place"])
def test_a_broken_store_costs_seconds_and_is_said_once(
    kind: str, tmp_path: Path
) -> None:
    store = tmp_path / "mlflow.db"
    if kind == "garbage":
        store.write_bytes(b"this is no database" * 1000)
    elif kind == "folder":
        store.mkdir()
    else:
        (tmp_path / "file").touch()
        store = tmp_path / "file" / "mlflow.db"
    said: list[str] = []
    tracker = MlflowTracker(store, say=said.append)
    begin = time.monotonic()
    tracker(started())
    tracker(step(1))
    tracker(RunFailed("", interrupted=True))
    assert time.monotonic() - begin < 10
    assert len(said) == 1


def test_a_store_that_breaks_midway_does_not_stop_the_run(store: Path) -> None:
    said: list[str] = []
    tracker = MlflowTracker(store, say=said.append, flush_seconds=0)
    tracker(started())
    tracker(step(1))
    store.write_bytes(b"this is no database" * 1000)
    for number in (2, 3, 4):
        tracker(step(number))
    tracker(RunDone(Path("nowhere"), {}))
    assert len(said) == 1


def test_the_next_run_is_tracked_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    tracker = MlflowTracker(store, say=said.append)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker(started("fold-0"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracker(started("fold-1"))
    tracker(RunDone(Path("nowhere"), {}))
    assert len(said) == 1
    assert [run.data.tags["medseg.run_id"] for run in runs(store)] == ["fold-1"]


TWO_AT_ONCE = """
import sys
from pathlib import Path
import mlflow  # as importing MONAI does
from medseg.tracking.store import make_sqlite_uri
from medseg.tracking.tracker import MlflowTracker
from medseg.events import *

run_id, store = sys.argv[1:]
tracker = MlflowTracker(Path(store), say=lambda text: sys.exit(text))
tracker(RunStarted(Path("x"), run_id, "b", "e", {"a": "1"}, {}, None, 3))
for step in range(1, 4):
    tracker(StepDone(step, 0.5, {}, 0.01))
tracker(RunDone(Path("nowhere"), {}))
if mlflow.telemetry.get_telemetry_client() is not None:
    sys.exit("MLflow reports to its makers")
"""


@pytest.mark.slow
def test_two_processes_may_make_the_same_new_store(tmp_path: Path) -> None:
    store = tmp_path / "runs" / "mlflow.db"
    arguments = [sys.executable, "-c", TWO_AT_ONCE]
    # Under a test runner MLflow is quieter than in real life.
    hidden = (
        "PYTEST_CURRENT_TEST",
        "CI",
        "GITHUB_ACTIONS",
        "MLFLOW_DISABLE_TELEMETRY",
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in hidden
    }
    both = [
        subprocess.Popen(
            [*arguments, run_id, str(store)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=tmp_path, env=environment,
        )
        for run_id in ("a", "b")
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs == ["", ""], "MLflow and its migrations are silent"
    assert [run.info.status for run in runs(store, "e")] == [
        "FINISHED",
        "FINISHED",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"], (
        "nothing in the folder"
    )


def test_mlflow_is_imported_only_when_a_run_starts() -> None:
    code = (
        "import sys, pathlib; from medseg.tracking.tracker import MlflowTracker;"
        "MlflowTracker(pathlib.Path('x')); sys.exit('mlflow' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False).returncode
        == 0
    )


@pytest.fixture
def server(
    empty_store: Path, tmp_path: Path, closed_port: int
) -> Iterator[tuple[str, Any]]:
    """A real MLflow server that keeps artifacts itself; its address and its process."""
    shutil.copyfile(empty_store, tmp_path / "server.db")
    arguments = ["server", "--port", str(closed_port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    arguments += ["--artifacts-destination", str(tmp_path / "kept")]
    address = f"http://127.0.0.1:{closed_port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *arguments],
        cwd=tmp_path,
        start_new_session=True,
    )
    try:
        wait_for(address, process)
        yield address, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server did not start"
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{address}/health", timeout=1),
        ):
            return
        time.sleep(0.25)
    raise TimeoutError(address)


@pytest.mark.slow
def test_a_real_server_gets_everything_and_may_die(
    server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    address, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    (tmp_path / "code.py").write_text(MODEL_CODE)
    said: list[str] = []
    tracker = MlflowTracker(
        tmp_path / "x.db", model_code=tmp_path / "code.py", say=said.append
    )
    for resumed_at in (None, 1):
        tracker(
            started(resumed_at=resumed_at, parameters={"empty": "", "a": "1"})
        )
        tracker(step(1))
        tracker(
            ValidationDone(
                1, {"dice": {"lésion (1)": float("inf")}}, is_best=True
            )
        )
    tracker(
        RunDone(trained_bundle(tmp_path / "trained"), {"dice": {"mean": 0.8}})
    )
    assert said == []
    asked = MlflowClient(tracking_uri=address)
    (run,) = asked.search_runs(
        [asked.get_experiment_by_name("brain").experiment_id]
    )
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/dice/mean"] == 0.8
    assert len(asked.get_metric_history(run.info.run_id, "loss")) == 1
    (version,) = asked.search_model_versions("name='hippocampus'")
    assert version.run_id == run.info.run_id
    assert list((tmp_path / "kept").rglob("artifacts/bundle/models/model.pt"))
    assert not (tmp_path / "x.db").exists()

    tracker(started("r2"))
    os.killpg(process.pid, signal.SIGKILL)
    begin = time.monotonic()
    tracker(step(2))
    tracker(ValidationDone(2, {"dice": {"mean": 0.8}}, is_best=True))
    tracker(RunDone(tmp_path / "trained", {}))
    assert time.monotonic() - begin < 10
    assert len(said) == 1
