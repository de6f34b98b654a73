"""Every fold trained: one bundle whose scores are the mean of all networks'."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.bundles import (
    content,
    made_spec,
    monai_parts,
    run_stock,
    write_json,
)

from medseg import BundleError, CheckpointError, Segmenter, segment, train
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.weights import load_weights
from medseg.datasets.dataset import Folds
from medseg.events import Event, RunDone, RunStarted
from medseg.testing import make_phantom, write_dataset
from medseg.training.cross_validation import train_folds
from medseg.training.distributed import ProcessGroup
from medseg.training.report import read_report
from medseg.training.run_folder import RunFolder
from medseg.training.runs import ALL, TrainingRun, plan_run

FOLDS = 3


class Killed(BaseException):
    """Ends a training run where a listener raises it, as an interrupt would."""


class Trained:
    """A cross-validation that was interrupted in its second fold, and resumed."""

    def __init__(self, home: Path) -> None:
        self.home, self.out = home, home / "run"
        self.data = write_dataset(
            home / "data", 4, shape=(24, 20, 16), spacing=9.0
        )
        made = content(
            data={"folds": FOLDS},
            preprocessing={
                "intensity": {"kind": "window", "low": -200, "high": 300}
            },
            training={"steps": 12, "validate_every": 6, "optimizer": "adamw"},
            tracking={"register_model": True, "experiment": "folds"},
        )
        self.bundle = write_json(home, made)
        self.before: list[Event] = []
        self.after: list[Event] = []
        with pytest.raises(Killed):
            self.train(self._kill_in_the_second_fold)
        self.train(self.after.append, resume=True)

    def train(self, listener: Any, **arguments: Any) -> Path:
        return train(
            self.bundle,
            data=self.data,
            out=self.out,
            fold="all",
            device="cpu",
            listeners=[listener],
            **arguments,
        )

    def _kill_in_the_second_fold(self, event: Event) -> None:
        self.before.append(event)
        if len([1 for one in self.before if isinstance(one, RunStarted)]) == 2:
            raise Killed

    def metrics(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (folder / "metrics.json").read_text()
        )
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("folds"))


def test_a_resumed_cross_validation_trains_no_finished_fold_again(
    trained: Trained,
) -> None:
    names = [
        event.folder.name
        for event in trained.after
        if isinstance(event, RunStarted)
    ]
    assert names == ["fold_1", "fold_2", "run"]
    assert isinstance(trained.after[-1], RunDone)
    assert trained.train(trained.before.append, resume=True) == trained.out
    assert "finished already" in repr(trained.before[-1])


def test_the_bundle_holds_every_folds_network(trained: Trained) -> None:
    bundle = load_bundle(trained.out)
    assert [file.name for file in bundle.members] == [
        "fold_0.pt",
        "fold_1.pt",
        "fold_2.pt",
    ]
    assert bundle.weights.read_bytes() == bundle.members[0].read_bytes()
    for fold, member in enumerate(bundle.members):
        own = trained.out / "folds" / f"fold_{fold}" / "models" / "model.pt"
        assert member.read_bytes() == own.read_bytes()
    assert (
        trained.home / "mlflow.db"
    ).is_file()  # one store for all, beside the run
    assert not list(trained.out.rglob("mlflow.db"))


def test_every_case_is_scored_by_the_fold_that_did_not_see_it(
    trained: Trained,
) -> None:
    whole = trained.metrics(trained.out)
    folds = [
        trained.metrics(trained.out / "folds" / f"fold_{fold}")
        for fold in range(FOLDS)
    ]
    assert whole["cases"] == [case for fold in folds for case in fold["cases"]]
    assert len({case["case"] for case in whole["cases"]}) == 4
    assert whole["fold"] == "all"
    assert [fold["cases"] for fold in whole["folds"]] == [
        len(fold["cases"]) for fold in folds
    ]
    by_case = [case["labels"]["liver"]["dice"] for case in whole["cases"]]
    assert whole["scores"]["dice"]["liver"] == pytest.approx(np.mean(by_case))
    card = (trained.out / "docs" / "README.md").read_text()
    assert "4 cases in 3 folds" in card
    assert "| 2 | 1 |" in card
    assert "by the one network that did not see it" in card


@pytest.mark.slow
def test_cases_of_all_folds_together_make_corrupted_copies_worth_it(
    tmp_path: Path,
) -> None:
    data = write_dataset(tmp_path / "data", 8, shape=(24, 20, 16), spacing=9.0)
    made = content(
        data={"folds": 2},
        quality={"corrupted_copies": 3},
        training={"steps": 2},
    )
    bundle, out = write_json(tmp_path, made), tmp_path / "run"
    train(bundle, data=data, out=out, fold="all", device="cpu")
    for fold in range(2):
        report = read_report(RunFolder(out / "folds" / f"fold_{fold}"))
        samples = report.held_out.requested.samples
        assert sorted(one.is_clean for one in samples) == 3 * [False] + 4 * [
            True
        ]


def test_mlflow_has_a_run_for_each_fold_and_registers_the_whole(
    trained: Trained,
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{trained.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("folds")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["fold"] for run in runs) == [
        "0",
        "1",
        "2",
        "all",
    ]
    (version,) = client.search_model_versions("name='made_up'")
    whole = next(run for run in runs if run.data.params["fold"] == "all")
    assert version.run_id == whole.info.run_id
    scores = trained.metrics(trained.out)["scores"]
    assert whole.data.metrics["final/dice/mean"] == pytest.approx(
        scores["dice"]["mean"]
    )


def test_scores_are_the_mean_over_the_folds(trained: Trained) -> None:
    volume, _ = make_phantom(5, (24, 20, 16), 9.0)
    singles = [
        Segmenter(trained.out / "folds" / f"fold_{n}", "cpu")
        for n in range(FOLDS)
    ]
    whole = Segmenter(trained.out, "cpu")
    windows = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        mean = sum(one._predictor.ensemble(windows) for one in singles) / FOLDS
        assert torch.allclose(
            whole._predictor.ensemble(windows), mean, atol=1e-5
        )
    first = (
        Segmenter(trained.out, "cpu", fold_ensemble=False)
        .segment(volume)
        .labels
    )
    assert np.array_equal(first, singles[0].segment(volume).labels)
    assert (whole.segment(volume).labels != first).any()


@pytest.mark.parametrize("mirror", [False, True])
def test_stock_monai_gives_the_ensembles_label_maps(
    trained: Trained, tmp_path: Path, mirror: bool
) -> None:
    bundle = tmp_path / "bundle"
    for part in ("bundle.json", "models", "configs"):
        source = trained.out / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        bundle.mkdir(exist_ok=True)
        copy(source, bundle / part)
    if mirror:
        mirror_it(bundle)
    scans = trained.data / "imagesTr"
    run_stock(
        bundle,
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "stock"),
    )
    assert not segment(bundle, scans, tmp_path / "own", device="cpu").failed
    assert not segment(
        trained.out, scans, tmp_path / "plain", device="cpu"
    ).failed
    unlike_plain = 0
    for scan in sorted(scans.iterdir()):
        name = scan.name.removesuffix(".nii.gz")
        own, stock, plain = (
            np.asarray(nib.load(file).dataobj)
            for file in (
                tmp_path / "own" / scan.name,
                tmp_path / "stock" / f"{name}_seg.nii.gz",
                tmp_path / "plain" / scan.name,
            )
        )
        assert int((own != stock).sum()) == 0
        assert len(np.unique(own)) > 1
        unlike_plain += int((own != plain).sum())
    assert (unlike_plain > 0) == mirror


def mirror_it(bundle: Path) -> None:
    """Let a trained bundle average over flips, in medseg's words and in MONAI's."""
    from medseg.bundle.spec_files import write_bundle
    from medseg.interop.monai_bundle import write_monai_bundle

    loaded = load_bundle(
        bundle,
        [
            "inference.mirror=true",
            'training.augmentation={"mirror_axes": [0, 2]}',
        ],
    )
    write_bundle(loaded.spec, bundle / "bundle.json")
    members = loaded.trained.members
    write_monai_bundle(
        bundle, loaded.spec, monai_parts(loaded.spec), {}, members
    )


def test_a_changed_member_changes_what_is_kept(
    trained: Trained, tmp_path: Path
) -> None:
    from medseg.bundle.hashes import hash_bundle

    bundle = tmp_path / "bundle"
    shutil.copytree(trained.out / "models", bundle / "models")
    shutil.copy(trained.out / "bundle.json", bundle)
    before = hash_bundle(load_bundle(bundle))
    weights = load_weights(bundle / "models" / "fold_2.pt")
    torch.save(
        {name: value + 1 for name, value in weights.items()},
        bundle / "models/fold_2.pt",
    )
    assert hash_bundle(load_bundle(bundle)) != before
    (bundle / "models" / "fold_1.pt").unlink()
    with pytest.raises(CheckpointError, match=r"fold_1.pt"):
        Segmenter(bundle, "cpu")


def test_a_refiner_is_refused_before_any_case_is_looked_for(
    tmp_path: Path,
) -> None:
    bundle = write_json(tmp_path, content(refinement={"adversarial_weight": 0}))
    with pytest.raises(BundleError, match="one refiner"):
        train(
            bundle,
            data=tmp_path / "nowhere",
            out=tmp_path / "run",
            fold="all",
            device="cpu",
        )


def test_other_cases_are_not_mixed_into_a_cross_validation(
    trained: Trained, tmp_path: Path
) -> None:
    unfinished = shutil.copytree(trained.out, tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    shutil.rmtree(unfinished / "folds" / "fold_2")
    more = write_dataset(tmp_path / "data", 5, shape=(24, 20, 16), spacing=9.0)
    with pytest.raises(CheckpointError, match="other cases"):
        train(
            trained.bundle,
            data=more,
            out=unfinished,
            fold="all",
            device="cpu",
            resume=True,
        )


def test_each_machine_trains_the_folds_with_its_own_data_and_cache(
    tmp_path: Path,
) -> None:
    class SecondMachine(ProcessGroup):
        """Is told what the runs of the main process are."""

        def ask_main(self, action: Callable[[], Any]) -> Any:
            found = action()
            if not isinstance(found, list):
                return found
            mains = Path("/main")
            return [one.adapt(mains, mains / "cache") for one in found]

        def broadcast(self, value: Any) -> Any:
            return value

    run = plan_run(
        Bundle(made_spec(), tmp_path), tmp_path / "data", tmp_path / "run", ALL
    )
    run = run.adapt(None, tmp_path / "cache")
    trained: list[TrainingRun] = []
    folds = Folds((0, 1), "hash")
    train_folds(run, folds, trained.extend, lambda _: None, SecondMachine(1, 2))
    assert [each.fold for each in trained] == [0, 1]
    for each in trained:
        assert each.data == tmp_path / "data"
        assert each.cache == tmp_path / "cache"
