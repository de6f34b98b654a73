"""Structures that lie in each other: planned from nnU-Net's list, learned, painted, scored."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import content, run_stock, write_json

from medseg import Segmenter, evaluate, plan, segment, train
from medseg.bundle.bundle import load_bundle
from medseg.errors import DatasetError, MedsegError
from medseg.events import Event, ValidationDone

NAMES = ("whole", "inner", "centre")
SHAPE = (24, 20, 16)
LISTING: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "labels": {
        "background": 0,
        "whole": [1, 2, 4],
        "inner": [2, 4],
        "centre": 4,
    },
    "regions_class_order": [1, 2, 4],
    "file_ending": ".nii.gz",
}


def write_onions(root: Path, cases: int) -> Path:
    """Write balls with a shell, a ring and a centre, each brighter than what is around it."""
    for number in range(cases):
        rng = np.random.default_rng(number)
        middle = rng.uniform(-0.2, 0.2, 3)
        grid = np.stack(
            np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"),
            -1,
        )
        radius = np.sqrt(((grid - middle) ** 2).sum(axis=-1)) * rng.uniform(
            0.9, 1.1
        )
        image, labels = rng.normal(0, 0.3, SHAPE), np.zeros(SHAPE, np.uint8)
        for value, size in ((1, 0.75), (2, 0.55), (4, 0.35)):
            labels[radius < size] = value
            image[radius < size] += 1
        for folder, name, array in (
            (
                "imagesTr",
                f"onion_{number}_0000.nii.gz",
                image.astype(np.float32),
            ),
            ("labelsTr", f"onion_{number}.nii.gz", labels),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(
                nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])),
                root / folder / name,
            )
    (root / "dataset.json").write_text(json.dumps(LISTING))
    return root


@dataclass
class Trained:
    """A bundle with regions after its training."""

    folder: Path
    data: Path
    events: list[Event]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    home = tmp_path_factory.mktemp("regions")
    data = write_onions(home / "data", 5)
    made = content(
        labels=[
            {"index": 1, "name": "shell"},
            {"index": 2, "name": "ring"},
            {"index": 3, "name": "centre", "value": 4},
        ],
        regions=[
            {"name": "whole", "labels": ["shell", "ring", "centre"]},
            {"name": "inner", "labels": ["ring", "centre"]},
            {"name": "centre", "labels": ["centre"]},
        ],
        training={
            "steps": 60,
            "validate_every": 60,
            "optimizer": "adamw",
            "learning_rate": 0.03,
        },
        network={"channels": [8, 8, 8]},
        quality={"corrupted_copies": 0},
    )
    events: list[Event] = []
    bundle = write_json(home, made)
    folder = train(
        bundle,
        data=data,
        out=home / "run",
        device="cpu",
        listeners=[events.append],
    )
    return Trained(folder, data, events)


def test_regions_are_learned_and_scored_by_name(trained: Trained) -> None:
    last = [
        event for event in trained.events if isinstance(event, ValidationDone)
    ][-1]
    assert set(last.scores["dice"]) == {*NAMES, "mean"}
    scores = json.loads((trained.folder / "metrics.json").read_text())[
        "scores"
    ]["dice"]
    assert min(scores[name] for name in NAMES) > 0.7
    bundle = load_bundle(trained.folder)
    assert bundle.trained.keep_largest is None
    card = (trained.folder / "docs" / "README.md").read_text()
    assert (
        "whole (shell + ring + centre; shown as shell where no later one is)"
        in card
    )
    assert "| inner |" in card


def test_results_are_ordinary_label_maps_measured_by_region(
    trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batch = segment(
        trained.folder, trained.data / "imagesTr", out, device="cpu"
    )
    assert not batch.failed
    (row, *_) = csv.DictReader((out / "volumes.csv").read_text().splitlines())
    labels = np.asarray(nib.load(out / f"{row['scan']}.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for name, least in zip(NAMES, (1, 2, 3), strict=True):
        assert float(row[f"{name}_ml"]) == pytest.approx(
            (labels >= least).sum() * 0.008, abs=1e-4
        )
        # Of a bundle that was trained on made-up data nobody knows it.
        assert row[f"{name}_expected_dice"] == ""
    assert "whole" in (out / "report.html").read_text()

    found = evaluate(out, trained.data, labels=load_bundle(trained.folder).spec)
    assert not found.faults
    assert set(found.scores["dice"]) == {*NAMES, "mean"}
    assert min(found.scores["dice"][name] for name in NAMES) > 0.7
    # Where voxels must be ignored, regions stay what they are.
    again = evaluate(
        out, trained.data, labels=load_bundle(trained.folder).spec, ignore=9
    )
    assert again.scores == found.scores


def test_stock_monai_paints_the_same_label_maps(
    trained: Trained, tmp_path: Path
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.nii.gz").write_bytes(
        (trained.data / "imagesTr" / "onion_0_0000.nii.gz").read_bytes()
    )
    run_stock(
        trained.folder,
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(tmp_path),
    )
    stock = np.asarray(nib.load(tmp_path / "a_seg.nii.gz").dataobj)
    own = Segmenter(trained.folder, "cpu").segment(scans / "a.nii.gz").labels
    assert set(np.unique(own)) == {0, 1, 2, 3}
    assert np.array_equal(stock, own)


def test_given_masks_are_judged_by_region(trained: Trained) -> None:
    segmenter = Segmenter(trained.folder, "cpu")
    scan = trained.data / "imagesTr" / "onion_1_0000.nii.gz"
    own = segmenter.segment(scan).labels
    judged = segmenter.judge(scan, np.where(own == 3, 2, own).astype(np.uint8))
    assert judged.labels["whole"].dice == judged.labels["inner"].dice == 1
    assert judged.labels["centre"].dice == 0


def test_a_data_set_with_regions_is_planned(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan(trained.data, tmp_path / "bundle.json", device="cpu")
    labels = made.spec.label_set
    assert labels.names == ("rest of whole", "rest of inner", "centre")
    assert [(one.name, one.labels, one.paints) for one in labels.regions] == [
        ("whole", (1, 2, 3), 1),
        ("inner", (2, 3), 2),
        ("centre", (3,), 3),
    ]
    with pytest.raises(MedsegError, match="by hand"):
        plan(
            trained.data,
            tmp_path / "other.json",
            device="cpu",
            class_weights="balanced",
        )


def test_values_in_no_region_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_onions(tmp_path / "data", 1)
    said = LISTING | {
        "labels": {"background": 0, "whole": [1, 2]},
        "regions_class_order": [1],
    }
    (data / "dataset.json").write_text(json.dumps(said))
    with pytest.raises(
        DatasetError, match=r"values \[4\].*none of the regions"
    ):
        plan(data, tmp_path / "bundle.json", device="cpu")
