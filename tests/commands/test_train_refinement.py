"""Training runs with refinement: the files they write, and that they resume to the bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import write_json
from support.trainings import (
    Zygote,
    checkpoint,
    same,
    weights,
)

from medseg import train
from medseg.bundle.bundle import load_bundle
from medseg.testing import write_dataset

STEPS, REFINING = 24, 20

BUNDLE: dict[str, Any] = {
    "name": "tiny",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
    "data": {"folds": 2},
    "preprocessing": {
        "intensity": {"kind": "window", "low": -200, "high": 300}
    },
    "network": {"channels": [4, 8, 8], "strides": [1, 2, 2], "dropout": 0.2},
    "training": {
        "patch": [16, 16, 16],
        "batch_size": 2,
        "steps": STEPS,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "ema": 0.9,
        "validate_every": 12,
        "checkpoint_every": 5,
    },
    "refinement": {
        "steps": REFINING,
        "channels": [4, 8, 8],
        "critic": {"channels": 4},
    },
    "tracking": {"register_model": False},
}
FLAT = {
    "network": {"dims": 2, "channels": [4, 8, 8], "strides": [1, 2, 2]},
    "training": BUNDLE["training"] | {"patch": [24, 24]},
}


@pytest.fixture(scope="module")
def home(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of one kind of CPU are, with their data."""
    home = tmp_path_factory.mktemp("refine")
    write_dataset(home / "data", 10, shape=(24, 20, 16), spacing=9.0)
    return home


def arguments(home: Path, name: str, **sections: Any) -> dict[str, Any]:
    bundle = write_json(home, BUNDLE | sections, f"{name}.json")
    return {"bundle": str(bundle), "data": str(home / "data"), "device": "cpu"}


def files(run: Path) -> set[str]:
    return {
        file.name
        for folder in ("models", "checkpoints")
        for file in (run / folder).iterdir()
    }


def trained_weights(run: Path) -> dict[str, Any]:
    return {
        file.name: torch.load(file, weights_only=True)
        for file in (run / "models").glob("*.pt")
    }


def findings(run: Path) -> dict[str, Any]:
    """What a run found, and hashes of its weights; `.pt` bytes of equal weights may differ."""
    found = load_bundle(run).trained.model_dump()
    hashes = found.pop("files")
    found["hashes"] = {
        name: sha256
        for name, sha256 in hashes.items()
        if not name.endswith(".pt")
    }
    return found


@pytest.fixture(scope="module")
def unbroken(home: Path, zygote: Zygote) -> Path:
    """A run of both stages that nobody disturbs."""
    assert (
        zygote.train(**arguments(home, "corrector"), out=str(home / "unbroken"))
        == 0
    )
    return home / "unbroken"


@pytest.mark.slow
def test_a_run_leaves_refiner_critic_snapshots_and_the_verdict(
    unbroken: Path,
) -> None:
    assert files(unbroken) == {
        "model.pt", "refiner.pt", "critic.pt", "trained.json", "last.pt",
        "model.safetensors", "refiner.safetensors",
        "snapshot_000000003.pt", "snapshot_000000006.pt", "snapshot_000000012.pt",
    }  # fmt: skip
    finding = load_bundle(unbroken).trained.refinement
    assert finding is not None
    assert finding.cases == 5
    inference = json.loads(
        (unbroken / "configs" / "inference.json").read_text()
    )
    is_refined = any(
        name.startswith("0.submodule.") for name in weights(unbroken)
    )
    assert is_refined is finding.applied
    assert isinstance(inference["network_def"], str) is finding.applied
    assert "## Refinement" in (unbroken / "docs" / "README.md").read_text()
    record = checkpoint(unbroken)["record"]
    assert record["steps"][:, 0].tolist() == list(
        range(1, STEPS + REFINING + 1)
    )
    critic = {"critic", "critic_real", "critic_fake", "critic_gap"}
    assert {"dice", "ce", "adversarial", "features", *critic} == record[
        "parts"
    ].keys()
    assert record["parts"]["critic_gap"][0, 0] == STEPS + 1


@pytest.mark.slow
def test_killed_in_either_stage_and_resumed_the_end_is_bit_identical(
    zygote: Zygote, home: Path, unbroken: Path
) -> None:
    from mlflow import MlflowClient

    out, given = home / "killed", arguments(home, "corrector")
    points = [
        f"StepDone(step={STEPS // 2 + 1},",  # a snapshot is written, no checkpoint since
        f"StepDone(step={STEPS},",
        f"StepDone(step={STEPS + 3},",  # in the second stage, before its first checkpoint
        f"StepDone(step={STEPS + 13},",
        f"StepDone(step={STEPS + REFINING},",
        "Progress(task='comparing refined masks', done=0,",
        "Progress(task='scoring held-out cases', done=0,",  # the verdict is written
    ]
    for number, point in enumerate(points):
        status = zygote.train(
            **given, out=str(out), resume=number > 0, kill_at=point
        )
        assert os.WTERMSIG(status) == signal.SIGKILL, point
    assert zygote.train(**given, out=str(out), resume=True) == 0
    assert same(checkpoint(out), checkpoint(unbroken))
    assert same(trained_weights(out), trained_weights(unbroken))
    assert findings(out) == findings(unbroken)
    assert files(out) == files(unbroken)
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.`medseg.run_id` = '{run_id}'"
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
    # What a killed run had not sent yet is missing; nothing is there twice.
    steps = [
        gap.step
        for gap in client.get_metric_history(
            runs[0].info.run_id, "loss/critic_gap"
        )
    ]
    assert len(steps) == len(set(steps))
    assert set(steps) <= set(range(STEPS + 1, STEPS + REFINING + 1))


@pytest.mark.slow
@pytest.mark.nightly
def test_joint_training_resumes_to_the_bit_too(
    zygote: Zygote, home: Path
) -> None:
    given = arguments(
        home, "joint", refinement={"kind": "joint", "critic": {"channels": 4}}
    )
    assert zygote.train(**given, out=str(home / "joint")) == 0
    out = home / "joint_killed"
    for number, step in enumerate((8, 17)):
        status = zygote.train(
            **given,
            out=str(out),
            resume=number > 0,
            kill_at=f"StepDone(step={step},",
        )
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert zygote.train(**given, out=str(out), resume=True) == 0
    assert same(checkpoint(out), checkpoint(home / "joint"))
    assert same(trained_weights(out), trained_weights(home / "joint"))
    assert files(out) == {
        "model.pt", "critic.pt", "trained.json", "last.pt", "model.safetensors"
    }  # fmt: skip


@pytest.mark.parametrize("weight", [0.05, 0.0])
def test_slices_are_refined_too_and_without_weight_there_is_no_critic(
    weight: float, home: Path
) -> None:
    refinement = {
        "steps": 3,
        "channels": [4, 8, 8],
        "adversarial_weight": weight,
    }
    refinement["critic"] = {"channels": 4}
    name = f"flat_{weight}"
    given = arguments(home, name, **FLAT, refinement=refinement)
    out = train(**given, out=home / name, overrides=["training.steps=6"])
    assert ("critic.pt" in files(out)) is (weight > 0)
    assert (checkpoint(out)["corrector"]["opponent"] is not None) is (
        weight > 0
    )
