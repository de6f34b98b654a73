"""From data as people have them to scores, without an edit of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.cli import call

from medseg import check, evaluate, plan, segment, train
from medseg.bundle.bundle import load_bundle
from medseg.errors import DatasetError
from medseg.events import Notice
from medseg.testing import make_phantom
from medseg.volume import Affine, Array

CASES = 4
SHORT = [
    "training.steps=2",
    "training.warmup_steps=0",
    "tracking.register_model=false",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(file: Path, array: Array, affine: Affine) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), file)


def phantoms() -> list[tuple[Array, Array, Affine]]:
    made = []
    for seed in range(CASES):
        volume, labels = make_phantom(seed, (24, 20, 16), 9.0)
        made.append((volume.array[0].astype(np.int16), labels, volume.affine))
    return made


def write_brats(root: Path) -> None:
    for number, (image, labels, affine) in enumerate(phantoms(), start=1):
        case = f"BraTS20_Training_{number:03d}"
        for brightness, role in enumerate(("flair", "t1", "t1ce", "t2"), 1):
            channel = (image + 1000) * brightness // 2
            save(root / case / f"{case}_{role}.nii.gz", channel, affine)
        values = np.where(labels == 2, 4, labels).astype(np.uint8)
        save(root / case / f"{case}_seg.nii.gz", values, affine)


def write_kits(root: Path) -> None:
    for number, (image, labels, affine) in enumerate(phantoms()):
        case = root / f"case_{number:05d}"
        save(case / "imaging.nii.gz", image, affine)
        save(case / "segmentation.nii.gz", labels, affine)


def write_totalsegmentator(root: Path) -> None:
    for number, (image, labels, affine) in enumerate(phantoms()):
        case = root / f"s{number:04d}"
        save(case / "ct.nii.gz", image, affine)
        lesion = np.zeros_like(labels)
        lesion[17:][labels[17:] == 1] = 1
        masks = {"liver": labels == 1, "kidney": labels == 2, "lesion": lesion}
        if number == 0:
            del masks["kidney"]
        for name, mask in masks.items():
            file = case / f"segmentations/{name}.nii.gz"
            save(file, mask.astype(np.uint8), affine)


SETS: dict[str, Callable[[Path], None]] = {
    "BraTS": write_brats,
    "KiTS": write_kits,
    "TotalSegmentator": write_totalsegmentator,
}
LABELS = {
    "BraTS": [("label_1", 1), ("label_4", 4)],
    "KiTS": [("label_1", 1), ("label_2", 2)],
    "TotalSegmentator": [("kidney", 1), ("lesion", 2), ("liver", 3)],
}
CHANNELS = {
    "BraTS": ["flair", "t1", "t1ce", "t2"],
    "KiTS": ["CT"],
    "TotalSegmentator": ["ct"],
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_the_field_is_planned_and_checked_as_it_is(
    tmp_path: Path, name: str
) -> None:
    SETS[name](tmp_path / "data")
    planned = plan(tmp_path / "data", tmp_path / "bundle.json", device="cpu")
    spec = planned.spec
    assert len(planned.fingerprint.cases) == CASES
    assert [channel.name for channel in spec.channels] == CHANNELS[name]
    labels = [(label.name, label.value) for label in spec.label_set]
    assert labels == LABELS[name]
    assert spec.data.format == "tree"
    assert "told from images by their names" in spec.notes["data.format"]
    checked = check(tmp_path / "bundle.json")
    assert (checked.cases, checked.faults) == (CASES, ())


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_set_of_the_field_is_trained_segmented_and_scored_as_it_is(
    tmp_path: Path, name: str
) -> None:
    data = tmp_path / "data"
    SETS[name](data)
    plan(data, tmp_path / "bundle.json", device="cpu")
    run = train(
        tmp_path / "bundle.json",
        out=tmp_path / "run",
        device="cpu",
        overrides=SHORT,
    )
    results = tmp_path / "results"
    batch = segment(run, data, results, device="cpu")
    done = [entry for entry in batch.results if entry.state == "done"]
    assert len(done) == len(batch.results) == CASES
    evaluation = evaluate(results, data, labels=load_bundle(run).spec)
    assert evaluation.faults == ()
    assert len(evaluation.cases) == CASES


def test_what_a_person_says_of_the_files_stands_in_the_bundle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, (image, labels, affine) in enumerate(phantoms()[:2]):
        save(tmp_path / f"data/a/{number}.nii.gz", image, affine)
        save(tmp_path / f"data/b/{number}-drawn.nii.gz", labels, affine)
    options = ["--images", "a/*.nii.gz", "--labels", "b/*-drawn.nii.gz"]
    assert call(monkeypatch, "plan", "data", *options, "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "recognised: patterns; labels" in said
    content = json.loads(Path("bundle.json").read_text())
    assert content["data"] == {
        "root": "data",
        "format": "tree",
        "images": ["a/*.nii.gz"],
        "labels": "b/*-drawn.nii.gz",
        "folds": 2,
    }
    assert check("bundle.json").faults == ()


def test_a_table_with_columns_of_its_own_is_planned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = ["scan,seg"]
    for number, (image, labels, affine) in enumerate(phantoms()[:2]):
        save(tmp_path / f"{number}.nii.gz", image, affine)
        save(tmp_path / f"{number}l.nii.gz", labels, affine)
        lines.append(f"{number}.nii.gz,{number}l.nii.gz")
    Path("mine.csv").write_text("\n".join(lines))
    options = ["--columns", "image=scan,label=seg", "--device", "cpu"]
    assert call(monkeypatch, "plan", "mine.csv", *options) == 0
    assert "a table lists the cases" in capsys.readouterr().out
    content = json.loads(Path("bundle.json").read_text())
    assert content["data"]["columns"] == {"image": ["scan"], "label": ["seg"]}
    assert check("bundle.json").cases == 2


def test_what_is_not_recognised_becomes_a_table_to_fill_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image, labels, affine = phantoms()[0]
    save(tmp_path / "data/one.nii.gz", image, affine)
    save(tmp_path / "data/two.nii.gz", image + 1, affine)
    assert call(monkeypatch, "plan", "data") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "one.nii.gz" in said
    assert "none is called a label" in said
    assert "--draft-csv" in said
    options = ["--draft-csv", "data/cases.csv"]
    assert call(monkeypatch, "plan", "data", *options, "--on", "ray") == 2
    assert "writes a list of files" in capsys.readouterr().err
    assert call(monkeypatch, "plan", "data", *options) == 0
    assert "fill in the column label" in capsys.readouterr().out
    table = Path("data/cases.csv")
    assert table.read_text() == "image,label\none.nii.gz,\ntwo.nii.gz,\n"
    assert call(monkeypatch, "plan", "data", *options) == 2
    assert "exists already" in capsys.readouterr().err
    save(tmp_path / "data/drawn.nii.gz", labels, affine)
    table.write_text("image,label\none.nii.gz,drawn.nii.gz\n")
    planned = plan("data", "bundle.json", device="cpu")
    assert len(planned.fingerprint.cases) == 1


def test_channels_on_grids_of_their_own_are_refused_and_one_can_be_chosen(
    tmp_path: Path,
) -> None:
    for number, (image, labels, affine) in enumerate(phantoms()[:2]):
        case = tmp_path / f"data/P{number}"
        save(case / "CT.nii.gz", image, affine)
        save(case / "MR.nii.gz", image[::2], affine)
        save(case / "mask.nii.gz", labels, affine)
    with pytest.raises(DatasetError, match="take one by --channel NAME"):
        plan("data", "bundle.json", device="cpu")
    events: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Notice):
            events.append(event.message)

    planned = plan(
        "data",
        "bundle.json",
        channels=["CT"],
        device="cpu",
        listeners=[listen],
    )
    assert [channel.name for channel in planned.spec.channels] == ["CT"]
    assert any("MR.nii.gz" in message for message in events)
    assert check("bundle.json").cases == 2
