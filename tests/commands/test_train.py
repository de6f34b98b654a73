"""One small training, looked at from every side; then what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch
from support.bundles import content, write_json

import medseg
from medseg import (
    BundleError,
    CheckpointError,
    DatasetError,
    OutputError,
    TrainingError,
    train,
)
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import CalibrationSpec, QualityFinding, TrainedSpec
from medseg.bundle.spec_files import list_differences, write_trained
from medseg.commands.train_run import report_failure
from medseg.events import (
    Event,
    FineTuningStarted,
    HeldOutDecision,
    Notice,
    RunDone,
    RunFailed,
    RunStarted,
    StepDone,
    ValidationDone,
)
from medseg.inference.segmenter import Segmenter
from medseg.io import read_image
from medseg.testing import write_dataset

STEPS = 30
SHAPE = (24, 20, 16)


@dataclass
class Trained:
    """A finished run and what it said."""

    folder: Path
    home: Path
    data: Path
    bundle: Path
    events: list[Event]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def small_content(**sections: Any) -> dict[str, Any]:
    training = {
        "steps": STEPS,
        "validate_every": 10,
        "checkpoint_every": 10,
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "schedule": "cosine",
        "augmentation": "standard",
    }
    return content(
        preprocessing={
            "intensity": {"kind": "window", "low": -200, "high": 300}
        },
        training=training | sections.pop("training", {}),
        **sections,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("train")
    data = write_dataset(home / "data", 6, shape=SHAPE, spacing=9.0)
    bundle = write_json(
        home,
        small_content(tracking={"register_model": True, "experiment": "try"}),
    )
    events: list[Event] = []
    folder = train(
        bundle,
        data=data,
        out=home / "run",
        device="cpu",
        listeners=[events.append],
    )
    return Trained(folder, home, data, bundle, events)


def test_a_run_leaves_a_whole_bundle_and_nothing_else(trained: Trained) -> None:
    files = sorted(
        str(path.relative_to(trained.folder))
        for path in trained.folder.rglob("*")
        if path.is_file()
    )
    assert files == [
        ".lock",
        "bundle.json",
        "checkpoints/last.pt",
        "configs/inference.json",
        "configs/metadata.json",
        "configs/train.json",
        "curves.png",
        "docs/README.md",
        "metrics.json",
        "models/model.pt",
        "models/model.safetensors",
        "models/trained.json",
        "previews/validation.png",
        "run.json",
    ]
    beside = {path.name for path in trained.home.iterdir()}
    assert beside >= {"run", "mlflow.db", "mlartifacts", "preprocessed"}
    assert not [
        path
        for path in trained.home.rglob("*")
        if path.name.startswith(".part-")
    ]


def test_a_run_records_what_its_cases_were_like_and_that_they_are_made_up(
    trained: Trained,
) -> None:
    bundle = load_bundle(trained.folder)
    assert bundle.is_made_up
    validated = bundle.trained.validated
    assert validated is not None
    assert validated.cases == 6
    assert [round(size.low) for size in validated.spacing_mm] == [9, 9, 9]
    assert validated.labels["liver"].present == 1
    card = (trained.folder / "docs" / "README.md").read_text()
    assert "The training data are made up" in card


def test_the_resolved_bundle_is_in_the_run(trained: Trained) -> None:
    spec = load_bundle(trained.folder).spec
    assert list_differences(spec, load_bundle(trained.bundle).spec) == []
    assert (
        json.loads((trained.folder / "bundle.json").read_text())["training"][
            "ema"
        ]
        is None
    )


def test_loss_falls_and_dice_rises(trained: Trained) -> None:
    dice = [
        event.scores["dice"]["mean"] for event in trained.of(ValidationDone)
    ]
    losses = [event.loss for event in trained.of(StepDone)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert dice == sorted(dice)
    assert max(dice) > 0.15


def test_every_step_and_validation_is_an_event(trained: Trained) -> None:
    steps = trained.of(StepDone)
    assert [event.step for event in steps] == list(range(1, STEPS + 1))
    assert all({"dice", "ce"} == event.parts.keys() for event in steps)
    validations = trained.of(ValidationDone)
    assert [event.step for event in validations] == [10, 20, 30]
    for event in validations:
        assert set(event.scores) >= {"dice", "iou", "hd95", "nsd"}
        assert set(event.scores["dice"]) == {"liver", "kidney", "mean"}
        assert all(picture.is_file() for picture in event.pictures)
    assert len(trained.of(RunStarted)) == len(trained.of(RunDone)) == 1


def test_the_best_weights_are_kept_and_scored_as_users_will_use_them(
    trained: Trained,
) -> None:
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    validations = {
        found["step"]: found["scores"] for found in metrics["validations"]
    }
    best = max(validations, key=lambda step: validations[step]["dice"]["mean"])
    assert metrics["best_step"] == best
    # bf16 while training against fp32 here, and float16 inputs, change few voxels.
    assert metrics["scores"]["dice"]["mean"] == pytest.approx(
        validations[best]["dice"]["mean"], abs=0.03
    )
    assert metrics["scores"] == trained.of(RunDone)[0].scores


def test_the_run_names_no_case_and_no_path(trained: Trained) -> None:
    for file in (
        "metrics.json",
        "docs/README.md",
        "bundle.json",
        "configs/metadata.json",
    ):
        text = (trained.folder / file).read_text()
        assert "phantom_00" not in text
        assert str(trained.home) not in text


def test_the_trained_bundle_segments(trained: Trained) -> None:
    scan = trained.data / "imagesTr" / "phantom_000.nii.gz"
    volume = read_image(scan)
    found = Segmenter(trained.folder, "cpu").segment(volume)
    assert found.labels.shape == SHAPE
    assert found.labels.dtype == np.uint8
    voxels = int((found.labels == 1).sum())
    assert found.volumes_ml["liver"] == pytest.approx(voxels * 0.9**3)


def test_mlflow_has_the_run(trained: Trained) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{trained.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("try")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.steps"] == str(STEPS)
    assert run.data.params["fold"] == "0"
    assert {
        "loss",
        "loss/dice",
        "loss/ce",
        "learning_rate",
        "val/dice/liver",
    } <= set(run.data.metrics)
    assert {"version.torch", "version.monai", "data.fingerprint"} <= {
        tag.removeprefix("medseg.") for tag in run.data.tags
    }
    names = {
        artifact.path for artifact in client.list_artifacts(run.info.run_id)
    }
    assert {
        "bundle.json",
        "metrics.json",
        "curves.png",
        "docs",
        "pictures",
    } <= names
    assert [model.name for model in client.search_registered_models()] == [
        "made_up"
    ]


def test_a_second_run_reads_no_case_again(trained: Trained) -> None:
    entries = {
        path: path.stat().st_mtime_ns
        for path in (trained.home / "preprocessed").iterdir()
    }
    train(
        trained.bundle,
        data=trained.data,
        out=trained.home / "again",
        device="cpu",
        overrides=["training.steps=1", "tracking.register_model=false"],
    )
    assert entries == {
        path: path.stat().st_mtime_ns
        for path in (trained.home / "preprocessed").iterdir()
    }


def test_a_finished_run_is_not_trained_again(trained: Trained) -> None:
    before = (trained.folder / "models" / "model.pt").stat().st_mtime_ns
    events: list[Event] = []
    train(
        trained.bundle,
        data=trained.data,
        out=trained.folder,
        device="cpu",
        resume=True,
        listeners=[events.append],
    )
    assert "finished already" in events[0].message  # type: ignore[attr-defined]
    assert (trained.folder / "models" / "model.pt").stat().st_mtime_ns == before


def test_a_full_folder_is_never_overwritten(trained: Trained) -> None:
    with pytest.raises(OutputError, match="--resume"):
        train(
            trained.bundle, data=trained.data, out=trained.folder, device="cpu"
        )


def test_a_loss_that_is_not_installed_is_refused_before_data_are_read(
    tmp_path: Path,
) -> None:
    bundle = write_json(tmp_path, content(training={"loss": "focal"}))
    with pytest.raises(BundleError) as caught:
        train(
            bundle, data=tmp_path / "absent", out=tmp_path / "run", device="cpu"
        )
    assert [fault.where for fault in caught.value.faults] == ["training.loss"]
    assert not (tmp_path / "run").exists()


def test_resume_refuses_another_bundle(trained: Trained) -> None:
    with pytest.raises(BundleError) as caught:
        train(
            trained.bundle,
            data=trained.data,
            out=trained.folder,
            device="cpu",
            resume=True,
            overrides=["training.learning_rate=0.5"],
        )
    assert [fault.where for fault in caught.value.faults] == [
        "training.learning_rate"
    ]
    assert "0.01 → 0.5" in caught.value.faults[0].what


def test_resume_without_a_run_says_so(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(
            trained.bundle,
            data=trained.data,
            out=tmp_path,
            device="cpu",
            resume=True,
        )


def test_a_run_is_not_resumed_with_other_cases(
    trained: Trained, tmp_path: Path
) -> None:
    out = trained.home / "other-cases"
    arguments: dict[str, Any] = {"out": out, "device": "cpu"}

    def stop(event: Event) -> None:
        if isinstance(event, RunStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained.bundle, data=trained.data, listeners=[stop], **arguments)
    more = write_dataset(tmp_path / "data", 7, shape=SHAPE, spacing=9.0)
    with pytest.raises(CheckpointError, match="other cases"):
        train(trained.bundle, data=more, resume=True, **arguments)


def test_what_an_interrupted_end_decided_does_not_influence_the_next(
    trained: Trained,
) -> None:
    out = trained.home / "torn-end"
    arguments: dict[str, Any] = {
        "data": trained.data,
        "out": out,
        "device": "cpu",
        "overrides": ["training.learning_rate=1e-9", "training.steps=1"],
    }

    def stop(event: Event) -> None:
        if isinstance(
            event, HeldOutDecision
        ):  # trained.json is there, metrics.json is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            trained.bundle,
            start_from=trained.folder,
            listeners=[stop],
            **arguments,
        )
    line = CalibrationSpec(
        scores=(0.0, 1.0), dice=(0.0, 1.0), margin=0.1, cases=9
    )
    sharp = QualityFinding(
        case=line,
        coverage=0.9,
        review_below=0.5,
        review_share=0.1,
        temperature=0.25,
    )
    write_trained(TrainedSpec(quality=sharp), out)
    train(trained.bundle, resume=True, **arguments)
    found = json.loads((out / "metrics.json").read_text())["confidence"]
    before = json.loads((trained.folder / "metrics.json").read_text())[
        "confidence"
    ]
    for one, other in zip(found, before, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-3)
        assert one["scores"] != pytest.approx(
            one["scores_at"]["0.25"], abs=1e-3
        )


def test_held_out_cases_without_any_label_do_not_stop_a_training_run(
    trained: Trained, tmp_path: Path
) -> None:
    data = shutil.copytree(trained.data, tmp_path / "data")
    listing = json.loads((data / "dataset.json").read_text())
    for number, case in enumerate(listing["training"]):
        case["fold"] = min(number, 1)
    (data / "dataset.json").write_text(json.dumps(listing))
    label = data / "labelsTr" / "phantom_000.nii.gz"
    loaded = nib.load(label)
    nib.save(
        nib.Nifti1Image(np.zeros(loaded.shape, np.uint8), loaded.affine), label
    )
    finds_nothing = shutil.copytree(trained.folder, tmp_path / "parent")
    weights = torch.load(
        finds_nothing / "models" / "model.pt", weights_only=True
    )
    weights["output_block.conv.conv.bias"][0] += 1000
    torch.save(weights, finds_nothing / "models" / "model.pt")
    # Beside weights of one's own, those of the training would be others.
    (finds_nothing / "models" / "model.safetensors").unlink()
    events: list[Event] = []
    folder = train(
        trained.bundle,
        data=data,
        out=trained.home / "healthy",
        device="cpu",
        start_from=finds_nothing,
        overrides=[
            "training.steps=2",
            "training.validate_every=1",
            "training.learning_rate=1e-9",
        ],
        listeners=[events.append],
    )
    told = [event for event in events if isinstance(event, ValidationDone)]
    assert all(np.isnan(event.scores["dice"]["mean"]) for event in told)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["best_step"] == 2
    assert metrics["scores"]["dice"]["mean"] is None
    assert not any(isinstance(event, HeldOutDecision) for event in events)
    assert (
        "## Postprocessing" not in (folder / "docs" / "README.md").read_text()
    )
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"] == {}
    Segmenter(folder, "cpu")


def test_bad_cases_stop_a_training_run_each_with_its_reason_or_are_left_out(
    trained: Trained, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    image = data / "imagesTr" / "phantom_001.nii.gz"
    image.write_bytes(image.read_bytes()[:-200])
    (data / "labelsTr" / "phantom_002.nii.gz").unlink()
    label = data / "labelsTr" / "phantom_003.nii.gz"
    loaded = nib.load(label)
    nib.save(
        nib.Nifti1Image(np.asarray(loaded.dataobj) * 3, loaded.affine), label
    )
    overrides = [
        "training.steps=1",
        "tracking.register_model=false",
        "data.folds=3",
    ]
    arguments: dict[str, Any] = {
        "data": data,
        "device": "cpu",
        "overrides": overrides,
    }
    with pytest.raises(DatasetError) as caught:
        train(trained.bundle, out=tmp_path / "run", **arguments)
    faults = {fault.where: fault.what for fault in caught.value.faults}
    assert faults.keys() == {"phantom_001", "phantom_002", "phantom_003"}
    assert "3 (209 voxels), 6 (90 voxels)" in faults["phantom_003"]
    assert not (tmp_path / "run").exists()
    events: list[Event] = []
    folder = train(
        trained.bundle,
        out=tmp_path / "run",
        skip_bad_cases=True,
        listeners=[events.append],
        **arguments,
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["training_cases"] + metrics["validation_cases"] == 3
    left_out = [event.message for event in events if isinstance(event, Notice)]
    assert sum("left out" in message for message in left_out) == 3


def test_early_stopping_keeps_the_best(
    trained: Trained, tmp_path: Path
) -> None:
    events: list[Event] = []
    folder = train(
        trained.bundle,
        data=trained.data,
        out=trained.home / "stopped",
        device="cpu",
        overrides=[
            "training.learning_rate=1e-12",
            "training.patience=2",
            "training.validate_every=2",
            "training.precision=fp32",
            "tracking.register_model=false",
        ],
        listeners=[events.append],
    )
    assert (
        len([event for event in events if isinstance(event, ValidationDone)])
        == 3
    )
    assert next(
        event for event in events if isinstance(event, RunDone)
    ).stopped_early
    assert json.loads((folder / "metrics.json").read_text())["best_step"] == 2


def test_a_loss_that_is_not_finite_ends_the_run_as_failed(
    trained: Trained,
) -> None:
    from mlflow import MlflowClient

    events: list[Event] = []
    with pytest.raises(
        TrainingError, match=r"step \d+; lower training.learning_rate"
    ):
        train(
            trained.bundle,
            data=trained.data,
            out=trained.home / "nan",
            device="cpu",
            overrides=[
                "training.learning_rate=1e30",
                "training.gradient_clip=null",
                "training.optimizer=sgd",
                "tracking.experiment=failing",
            ],
            listeners=[events.append],
        )
    assert isinstance(events[-1], RunFailed)
    assert "lower training.learning_rate" in events[-1].message
    client = MlflowClient(f"sqlite:///{trained.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("failing")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


SECRET = "/archive/Doe^John/ct.nii.gz"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OutputError("the disk is full", source=SECRET, detail=SECRET),
            "the disk is full",
        ),
        (ValueError(f"cannot read {SECRET}"), "ValueError"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_is_recorded_of_a_failure_names_no_file(
    error: BaseException, message: str
) -> None:
    events: list[Event] = []
    with pytest.raises(type(error)), report_failure([events.append]):
        raise error
    interrupted = isinstance(error, KeyboardInterrupt)
    assert events == [RunFailed(message, interrupted=interrupted)]


def test_training_on_every_case_holds_none_out(trained: Trained) -> None:
    folder = train(
        trained.bundle,
        data=trained.data,
        out=trained.home / "all",
        fold=None,
        device="cpu",
        overrides=["training.steps=2", "tracking.register_model=false"],
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["training_cases"], metrics["validation_cases"]) == (6, 0)
    assert "nothing was measured" in (folder / "docs" / "README.md").read_text()
    Segmenter(folder, "cpu")


# Each of both once: neither knows of the other.
@pytest.mark.parametrize(
    ("optimizer", "precision"), [("sgd", "bf16"), ("adamw", "fp32")]
)
def test_every_precision_and_optimiser_trains(
    trained: Trained, optimizer: str, precision: str
) -> None:
    events: list[Event] = []
    train(
        trained.bundle,
        data=trained.data,
        out=trained.home / f"{optimizer}-{precision}",
        device="cpu",
        overrides=[
            f"training.optimizer={optimizer}",
            f"training.precision={precision}",
            "training.steps=2",
            "training.ema=0.9",
            "tracking.register_model=false",
        ],
        listeners=[events.append],
    )
    assert all(
        np.isfinite(event.loss)
        for event in events
        if isinstance(event, StepDone)
    )


def test_an_unreachable_tracking_server_is_reported_once_and_stops_nothing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    events: list[Event] = []
    folder = train(
        trained.bundle,
        data=trained.data,
        out=trained.home / "untracked",
        device="cpu",
        overrides=["training.steps=3"],
        listeners=[events.append],
    )
    said = [event.message for event in events if isinstance(event, Notice)]
    assert len([message for message in said if "MLflow" in message]) == 1
    assert (folder / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_a_training_run_leaves_no_process_no_file_and_no_warning_of_ours(
    trained: Trained, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [
        *(
            sys.executable,
            "-W",
            "always",
            "-m",
            "medseg",
            "train",
            str(trained.bundle),
        ),
        *(
            "--data",
            str(trained.data),
            "--out",
            str(trained.home / "clean"),
            "--device",
            "cpu",
        ),
        *(
            "--set",
            "training.steps=200",
            "--set",
            "training.validate_every=100",
        ),
        *("--set", "tracking.register_model=false"),
    ]
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    # The package's own files: a clone that holds its environment may be called medseg, too.
    package = re.escape(str(Path(medseg.__file__).parent))
    assert not re.search(rf"{package}/\S+\.py:\d+: \w*Warning", done.stderr)
    assert list(temporary.iterdir()) == []
    assert not [
        one
        for one in psutil.process_iter()
        if _temporary(one) == str(temporary)
    ]
    assert f"Trained bundle: {trained.home / 'clean'}" in done.stdout


def _temporary(process: psutil.Process) -> str | None:
    """Return where a process puts temporary files, which its children inherit."""
    try:
        return process.environ().get("TMPDIR")
    except psutil.Error:
        return None


def test_fine_tuning_starts_from_the_parents_weights_and_records_it(
    trained: Trained,
) -> None:
    from mlflow import MlflowClient

    made = small_content(
        name="child",
        labels=[
            {"index": 1, "name": "kidney", "value": 2},
            {"index": 2, "name": "liver", "value": 1},
        ],
        tracking={"experiment": "fine"},
    )
    # What is left out is the parent's: without it, neither weights nor scores would be the same.
    del made["preprocessing"], made["network"], made["training"]["patch"]
    child = write_json(trained.home / "child", made)
    events: list[Event] = []
    arguments: dict[str, Any] = {"data": trained.data, "device": "cpu"}
    overrides = ["training.learning_rate=1e-9", "training.steps=1"]
    folder = train(
        child,
        out=trained.home / "fine",
        start_from=trained.folder,
        overrides=overrides,
        listeners=[events.append],
        **arguments,
    )
    (told,) = [
        event for event in events if isinstance(event, FineTuningStarted)
    ]
    assert told.decisions == (
        "label kidney: taken over",
        "label liver: taken over",
        "channel CT: taken over",
        "deep supervision outputs, which only training uses: newly initialised",
        "preprocessing: as the parent's",
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    before = json.loads((trained.folder / "metrics.json").read_text())
    assert metrics["scores"]["dice"] == pytest.approx(before["scores"]["dice"])
    child_head, head = (
        torch.load(run / "models" / "model.pt", weights_only=True)[
            "output_block.conv.conv.weight"
        ]
        for run in (folder, trained.folder)
    )
    torch.testing.assert_close(child_head, head[[0, 2, 1]], rtol=0, atol=1e-6)
    parent_id = json.loads((trained.folder / "run.json").read_text())["run_id"]
    assert metrics["from"]["run_id"] == parent_id
    assert "held_out_known_to_parent" not in metrics
    card = (folder / "docs" / "README.md").read_text()
    assert parent_id in card
    assert "- label liver: taken over" in card
    assert str(trained.home) not in card + json.dumps(metrics)
    client = MlflowClient(f"sqlite:///{trained.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["from.run_id"] == parent_id
    assert "label kidney: taken over" in run.data.tags["medseg.from.decisions"]


def test_fine_tuning_interrupted_before_its_first_checkpoint_keeps_its_parent(
    trained: Trained, tmp_path: Path
) -> None:
    parent = shutil.copytree(trained.folder, tmp_path / "parent")
    # As if it had learned from every case.
    metrics = json.loads((parent / "metrics.json").read_text())
    held_out = [case["case"] for case in metrics["cases"]]
    metrics["learned_from"] += held_out
    (parent / "metrics.json").write_text(json.dumps(metrics))
    out = trained.home / "stopped-early"
    arguments: dict[str, Any] = {
        "data": trained.data,
        "out": out,
        "device": "cpu",
        "overrides": ["training.learning_rate=1e-9", "training.steps=2"],
    }

    def stop(event: Event) -> None:
        if isinstance(event, FineTuningStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trained.bundle, start_from=parent, listeners=[stop], **arguments)
    weights = parent / "models" / "model.pt"
    kept = weights.read_bytes()
    shutil.copyfile(trained.folder / "checkpoints" / "last.pt", weights)
    with pytest.raises(CheckpointError, match="gone or have changed"):
        train(trained.bundle, resume=True, **arguments)
    weights.write_bytes(kept)
    events: list[Event] = []
    train(
        trained.bundle,
        resume=True,
        start_from=parent,
        listeners=[events.append],
        **arguments,
    )
    count = len(held_out)
    known = f"had learned from {count} of the held-out cases"
    assert any(isinstance(e, Notice) and known in e.message for e in events)
    assert known in (out / "docs" / "README.md").read_text()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["held_out_known_to_parent"] == count
    found, before = (
        torch.load(run / "models" / "model.pt", weights_only=True)
        for run in (out, trained.folder)
    )
    assert all(
        torch.allclose(found[name], before[name], atol=1e-6) for name in before
    )


def test_pictures_and_2d_networks_train(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.integers(0, 90, (40, 36), dtype=np.uint8)
        label = np.zeros_like(image)
        label[8 + number : 26, 10:24] = 255
        image[label > 0] += 120
        for folder, array in (("images", image), ("labels", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.stack([array] * 3, -1)).save(
                tmp_path / folder / f"p{number}.png"
            )
    bundle = write_json(
        tmp_path,
        small_content(
            labels=[{"index": 1, "name": "square", "value": 255}],
            data={"folds": 4},
            network={
                "kind": "unet",
                "dims": 2,
                "channels": [4, 8, 8],
                "strides": [1, 2, 2],
            },
            training={"patch": [32, 32], "steps": 20, "validate_every": 20},
        )
        | {"preprocessing": {"input": "picture"}},
    )
    folder = train(bundle, data=tmp_path, out=tmp_path / "run", device="cpu")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["scores"]["dice"]["square"] > 0.5


def test_weights_hold_tensors_only(trained: Trained) -> None:
    weights = torch.load(
        trained.folder / "models" / "model.pt", weights_only=True
    )
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    state = torch.load(
        trained.folder / "checkpoints" / "last.pt", weights_only=True
    )
    assert state["learner"]["step"] == STEPS


def test_events_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StepDone(1, 0.5, {}, 0.1).step = 2  # type: ignore[misc]
