"""Street scenes with masks in colours: planned, trained, segmented and scored without an edit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import call
from support.street_scenes import (
    CAR,
    COLOURS,
    make_scene,
    paint,
    paint_smoothly,
    photograph,
    write_class_dict,
)

import medseg
from medseg.events import Event, Notice

ROWS, COLUMNS = 32, 48
# Fewer steps than planned, so that the test ends; the bundle itself is not edited.
FEW_STEPS = [
    "training.steps=48",
    "training.validate_every=48",
    "training.batch_size=4",
    "training.learning_rate=0.02",
    "training.augmentation.mirror_axes=[0]",
]


@dataclass
class Street:
    """A data set, the bundle planned for it, and what came of it."""

    data: Path
    bundle: Path
    run: Path
    results: Path
    said: list[str]


def write_scenes(folder: Path, count: int) -> Path:
    """Write scenes with smoothed masks, smaller than those of other tests."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for seed in range(count):
        scene = make_scene(seed, ROWS, COLUMNS)
        file = f"frame_{seed:02d}.png"
        photograph(scene, seed).save(folder / "images" / file)
        # Smoothed on a canvas large enough that edges are a small part of it.
        mask = (
            paint(scene)
            if seed
            else paint_smoothly(seed, ROWS * 3, COLUMNS * 3)
        )
        if seed == 0:
            photograph(make_scene(0, ROWS * 3, COLUMNS * 3), 0).save(
                folder / "images" / file
            )
        mask.save(folder / "labels" / file)
    write_class_dict(folder)
    return folder


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    folder = tmp_path_factory.mktemp("street")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        data = write_scenes(folder / "data", 8)
        events: list[Event] = []
        planned = medseg.plan(data, folder / "bundle.json", device="cpu")
        run = medseg.train(
            planned.file,
            out=folder / "run",
            device="cpu",
            overrides=FEW_STEPS,
            listeners=[events.append],
        )
        results = folder / "results"
        medseg.segment(
            run, data / "images", results, device="cpu", formats=["png"]
        )
    said = [event.message for event in events if isinstance(event, Notice)]
    return Street(data, planned.file, run, results, said)


def test_the_planned_bundle_trains_and_its_results_score(
    street: Street,
) -> None:
    trained = medseg.load_bundle(street.run)
    evaluation = medseg.evaluate(
        street.results, street.data / "labels", labels=trained.spec
    )

    assert not evaluation.faults
    dice = evaluation.scores["dice"]
    assert [name for name in dice if name != "mean"] == list(COLOURS)
    assert dice["Sky"] > 0.6
    assert dice["mean"] > 0.5
    (shares,) = [text for text in street.said if "masks hold" in text]
    assert "1 of 8 masks" in shares
    assert "Most in frame_00" in shares


def test_results_as_pictures_hold_label_indices(street: Street) -> None:
    with Image.open(street.results / "frame_03.png") as picture:
        assert picture.mode == "L"
        indices = np.asarray(picture)
    assert indices.shape == (ROWS, COLUMNS)
    assert set(np.unique(indices)) <= {0, 1, 2, 3, 4, 5}


def test_masks_in_colours_score_as_predictions_too(street: Street) -> None:
    trained = medseg.load_bundle(street.run)
    labels = street.data / "labels"
    evaluation = medseg.evaluate(labels, labels, labels=trained.spec)
    assert evaluation.scores["dice"]["mean"] == 1


def test_masks_in_colours_are_compared_by_the_table_beside_them(
    street: Street, tmp_path: Path
) -> None:
    made = shutil.copytree(street.data / "labels", tmp_path / "made")
    scene = make_scene(3, ROWS, COLUMNS)
    scene[scene == CAR] = 2
    paint(scene).save(made / "frame_03.png")

    evaluation = medseg.evaluate(made, street.data / "labels")

    dice = evaluation.scores["dice"]
    assert set(dice) == {*COLOURS, "mean"}
    assert dice["Pole"] == 1
    assert dice["Car"] < 1
    assert dice["Road"] < 1
    shutil.copy(street.results / "frame_02.png", made / "frame_02.png")
    (fault,) = medseg.evaluate(made, street.data / "labels").faults
    assert fault.where == "frame_02"


def test_the_trained_bundle_is_a_monai_bundle(street: Street) -> None:
    scan = street.data / "images" / "frame_03.png"
    segmentation = medseg.Segmenter(street.run, "cpu").segment(scan)
    assert segmentation.labels.shape == (COLUMNS, ROWS, 1)
    metadata = json.loads(
        (street.run / "configs" / "metadata.json").read_text()
    )
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels["4"] == "car"


def test_a_mask_with_a_colour_that_nobody_named_stops_training(
    street: Street, tmp_path: Path
) -> None:
    data = shutil.copytree(street.data, tmp_path / "data")
    pixels = np.asarray(paint(make_scene(1, ROWS, COLUMNS))).copy()
    pixels[2:9, 2:9] = (0, 192, 64)
    Image.fromarray(pixels).save(data / "labels" / "frame_01.png")

    report = medseg.check(street.bundle, data=data)

    (fault,) = report.faults
    assert fault.where == "frame_01"
    assert "(0, 192, 64) (49 voxels)" in fault.what
    assert "Set the 'colour' of the label" in fault.what


def test_the_command_takes_colours_and_values(
    street: Street,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--device", "cpu", "--labels", "way=128,64,128", "car=64,0,128"]
    assert call(monkeypatch, "plan", street.data, *options) == 0
    labels = json.loads(Path("bundle.json").read_text())["labels"]
    assert [label["name"] for label in labels[:2]] == ["way", "car"]
    assert (
        call(monkeypatch, "plan", street.data, "-o", "b.json", "x=1", "y") == 2
    )
    assert "one data set" in capsys.readouterr().err
