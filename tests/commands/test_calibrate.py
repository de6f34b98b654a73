"""A bundle is calibrated on labelled cases, by the code with which a training ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.bundles import content, made_spec, trained_bundle, write_json
from support.nnunet_models import MODELS

import medseg
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.commands.import_model import import_model
from medseg.errors import (
    BusyError,
    CheckpointError,
    DatasetError,
    MedsegError,
    OutputError,
)
from medseg.events import Event, HeldOutDecision, Notice, Progress
from medseg.testing import make_phantom, write_dataset

SHAPE = (20, 18, 16)
SECTIONS: dict[str, Any] = {
    "data": {"folds": 2},
    "preprocessing": {
        "intensity": {"kind": "window", "low": -200, "high": 300}
    },
    "quality": {"corrupted_copies": 5},
    "inference": {"speed": "exact"},
}
"""Decisions on the speed take long; test_calibrate_speed.py has them."""


def write_patients(
    folder: Path, cases: int, seed: int = 0, spacing: float = 9.0
) -> Path:
    """Write phantoms that do not say that they are made up."""
    data = write_dataset(folder, cases, seed, shape=SHAPE, spacing=spacing)
    listing = data / "dataset.json"
    described = json.loads(listing.read_text())
    del described["made_up"]
    listing.write_text(json.dumps(described))
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled cases."""
    return write_patients(tmp_path_factory.mktemp("data") / "organs", 18)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained on half of the cases."""
    home = tmp_path_factory.mktemp("trained")
    made = content(**SECTIONS, training={"steps": 12, "optimizer": "adamw"})
    bundle = write_json(home, made)
    out = home / "run"
    return medseg.train(bundle, data=data, out=out, device="cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of random weights, not calibrated."""
    return trained_bundle(tmp_path / "bundle", made_spec(**SECTIONS))


def list_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in paths
    }


def notices(events: list[Event]) -> str:
    texts = [event.message for event in events if isinstance(event, Notice)]
    return "\n".join(texts)


def test_own_held_out_cases_give_what_training_wrote(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    before = list_files(trained)
    written = load_bundle(trained).trained
    events: list[Event] = []
    calibration = medseg.calibrate(
        trained,
        tmp_path / "out",
        data=data,
        keep_largest=True,
        device="cpu",
        listeners=[events.append],
    )
    assert list_files(trained) == before
    # Those that it learned from are left out, and the others are its held-out ones.
    assert "9 of 18 cases are left out" in notices(events)
    assert calibration.cases == 9
    found = load_bundle(tmp_path / "out").trained
    assert found.quality == written.quality
    assert found.keep_largest == written.keep_largest
    assert found.validated == written.validated
    assert found.calibrated is not None
    assert found == written.model_copy(update={"calibrated": found.calibrated})
    metrics = json.loads((trained / "metrics.json").read_text())
    again = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert again["calibration"]["scores"] == metrics["scores"]
    assert again["calibration"]["confidence"] == metrics["confidence"]
    again.pop("calibration")
    assert again == metrics
    # Without being asked, postprocessing stays as it was decided, and so does all that follows.
    as_decided = medseg.calibrate(
        trained, tmp_path / "other", data=data, device="cpu"
    )
    assert as_decided.keep_largest is None
    assert load_bundle(tmp_path / "other").trained == found


def test_results_have_numbers_where_they_had_words(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    scan, _ = make_phantom(100, SHAPE, 9.0)
    words = medseg.Segmenter(bundle, "cpu").segment(scan).quality.shown
    assert words.text == "not calibrated"
    events: list[Event] = []
    out = tmp_path / "out"
    medseg.calibrate(
        bundle, out, data=data, device="cpu", listeners=[events.append]
    )
    assert "no record of the cases that it learned from" in notices(events)
    shown = medseg.Segmenter(out, "cpu").segment(scan).quality.shown
    assert shown.expected is not None
    assert shown.lower is not None
    assert not shown.remark  # of an unknown validated range
    trained = load_bundle(out).trained
    assert trained.validated is not None
    assert trained.validated.cases == 18
    assert trained.quality is not None
    assert trained.quality.case.cases == 18 + 5
    assert trained.calibrated is not None
    card = (out / "docs" / "README.md").read_text()
    assert "calibrated on 18 cases" in card
    assert trained.calibrated.data_fingerprint in card
    # Stock MONAI's configs tell what was measured.
    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    assert 0 <= metadata["eval_metrics"]["mean_dice"] <= 1


def test_an_imported_bundle_is_calibrated_in_place_and_keeps_its_origin(
    tmp_path: Path,
) -> None:
    imported = import_model(MODELS / "isotropic", tmp_path / "bundle")
    folder = imported.folder
    labels = [label.name for label in imported.spec.labels]
    (spacing, *_) = imported.spec.preprocessing.spacing_mm or ()
    assert spacing is not None
    data = write_patients(tmp_path / "site", 8, spacing=spacing)
    describe(data, labels, imported.spec.channels[0].name)
    events: list[Event] = []
    calibration = medseg.calibrate(
        folder,
        data=data,
        in_place=True,
        keep_largest=True,
        device="cpu",
        overrides=["quality.corrupted_copies=0"],
        trust_values=True,
        listeners=[events.append],
    )
    assert calibration.folder == folder.resolve()
    bundle = load_bundle(folder)
    assert bundle.trained.origin == imported.origin
    assert bundle.spec.inference.keep_largest is None
    assert bundle.spec.quality.corrupted_copies == 0
    assert bundle.trained.keep_largest is not None
    assert bundle.trained.keep_largest.kept == calibration.keep_largest
    assert bundle.trained.quality is not None
    assert bundle.trained.quality.coverage == pytest.approx(8 / 9)
    card = (folder / "docs" / "README.md").read_text()
    assert "Nothing was measured" not in card
    assert imported.origin.model in card.replace("\\", "")
    assert card.index("## Calibration") < card.index("## Limits")
    assert not list(folder.glob(".calibration"))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["scores"] == metrics["calibration"]["scores"]
    assert medseg.Segmenter(folder, "cpu").bundle.trained.quality is not None
    assert any(isinstance(event, HeldOutDecision) for event in events)


def describe(data: Path, labels: list[str], channel: str) -> None:
    """Give a data set other names of labels and channel."""
    listing = data / "dataset.json"
    described = json.loads(listing.read_text())
    described["labels"] = {
        "0": "background",
        **{str(number): name for number, name in enumerate(labels, start=1)},
    }
    described["modality"] = {"0": channel}
    listing.write_text(json.dumps(described))


def test_a_call_that_was_interrupted_goes_on(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def stop(event: Event) -> None:
        is_scoring = isinstance(event, Progress) and "scoring" in event.task
        if is_scoring and event.done == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        medseg.calibrate(bundle, out, data=data, device="cpu", listeners=[stop])
    assert not out.exists()
    (work,) = tmp_path.glob(".out.calibration")
    journal = work / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"task": "scor')  # torn
    events: list[Event] = []
    medseg.calibrate(
        bundle, out, data=data, device="cpu", listeners=[events.append]
    )
    scored = [
        event.done
        for event in events
        if isinstance(event, Progress) and "scoring" in event.task
    ]
    assert scored == list(range(4, 19))
    assert not work.exists()
    whole = tmp_path / "whole"
    medseg.calibrate(bundle, whole, data=data, device="cpu")
    assert load_bundle(out).trained == load_bundle(whole).trained


def test_two_processes_do_not_calibrate_into_one_folder(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    def call_again(event: Event) -> None:
        if isinstance(event, Progress) and "scoring" in event.task:
            medseg.calibrate(bundle, tmp_path / "out", data=data, device="cpu")

    with pytest.raises(BusyError, match="another process is calibrating"):
        medseg.calibrate(
            bundle,
            tmp_path / "out",
            data=data,
            device="cpu",
            listeners=[call_again],
        )


def test_too_few_cases_are_refused_and_the_rule_is_said(
    trained: Path, bundle: Path, data: Path, tmp_path: Path
) -> None:
    few = write_patients(tmp_path / "few", 7, seed=50)
    with pytest.raises(DatasetError, match="7 usable cases: at least 8"):
        medseg.calibrate(bundle, tmp_path / "out", data=few, device="cpu")
    learned = set(
        json.loads((trained / "metrics.json").read_text())["learned_from"]
    )
    assert len(learned) == 9
    assert not (tmp_path / "out").exists()


def test_cases_of_another_layout_are_found(
    trained: Path, tmp_path: Path
) -> None:
    source = write_patients(tmp_path / "source", 8, seed=70)
    site = tmp_path / "site"
    (site / "images").mkdir(parents=True)
    (site / "labels").mkdir()
    for kind, folder in (("imagesTr", "images"), ("labelsTr", "labels")):
        for file in (source / kind).iterdir():
            shutil.copy(file, site / folder / file.name)
    copy = tmp_path / "bundle"
    shutil.copytree(trained, copy)
    spec = json.loads((copy / "bundle.json").read_text())
    spec["data"]["format"] = "msd"
    (copy / "bundle.json").write_text(json.dumps(spec))
    calibration = medseg.calibrate(
        copy, tmp_path / "out", data=site, device="cpu"
    )
    assert calibration.cases == 8
    # The range is that of the site's cases now, and what training measured is gone.
    found = load_bundle(tmp_path / "out")
    assert found.trained.validated is not None
    assert found.trained.validated.cases == 8
    assert found.spec.data.format == "msd"


def forget_kidney(data: Path) -> None:
    """Rub the kidney out of every label map."""
    import nibabel as nib
    import numpy as np

    for file in sorted((data / "labelsTr").iterdir()):
        image = nib.load(file)
        labels = np.asarray(image.dataobj)
        labels = np.where(labels == 2, 0, labels).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), file)


def test_a_label_that_nobody_drew_does_not_count_as_wrong(
    trained: Path, tmp_path: Path
) -> None:
    data = write_patients(tmp_path / "data", 8, seed=30)
    forget_kidney(data)
    events: list[Event] = []
    calibration = medseg.calibrate(
        trained,
        tmp_path / "out",
        data=data,
        device="cpu",
        listeners=[events.append],
    )
    assert "no case holds kidney" in notices(events)
    dice = calibration.scores["dice"]
    assert dice["mean"] == dice["liver"]
    quality = load_bundle(tmp_path / "out").trained.quality
    assert quality is not None
    assert "kidney" not in quality.labels
    card = (tmp_path / "out" / "docs" / "README.md").read_text()
    assert "No case holds kidney" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name a new folder"),
        ({"in_place": True, "out": "x"}, "no other folder goes with it"),
        ({"out": "bundle"}, "is not empty"),
        ({"out": "bundle/bundle.json"}, "this is a file"),
        ({"out": "x", "overrides": ["training.steps=2"]}, "data and quality"),
        ({"out": "x", "data": "nowhere"}, "there is no such folder"),
    ],
)
def test_calls_that_make_no_sense_are_refused(
    bundle: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(bundle.parent)
    before = list_files(bundle)
    with pytest.raises(MedsegError, match=message):
        medseg.calibrate(bundle, **{"data": data, "device": "cpu", **arguments})
    assert list_files(bundle) == before


def test_a_folder_that_nothing_can_replace_is_refused_before_all_else(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for here in (".", empty):
        with pytest.raises(OutputError, match="name a new folder in it"):
            medseg.calibrate(bundle, here, data=tmp_path / "none")


def test_a_bundle_without_weights_is_refused(
    data: Path, tmp_path: Path
) -> None:
    file = write_json(tmp_path, content())
    with pytest.raises(CheckpointError, match="has no weights"):
        medseg.calibrate(file, tmp_path / "out", data=data)


def test_phantoms_say_nothing_of_patients(bundle: Path, tmp_path: Path) -> None:
    phantoms = write_dataset(tmp_path / "data", 8, shape=SHAPE, spacing=9.0)
    for listed in (phantoms, phantoms / "dataset.json"):
        with pytest.raises(DatasetError, match="made up"):
            medseg.calibrate(
                bundle,
                tmp_path / "out",
                data=listed,
                overrides=["data.made_up=true"],
            )
    # A bundle for phantoms may be calibrated on them, and shows words all the same.
    write_trained(TrainedSpec(made_up=True), bundle)
    medseg.calibrate(bundle, tmp_path / "out", data=phantoms, device="cpu")
    scan, _ = make_phantom(100, SHAPE, 9.0)
    shown = medseg.Segmenter(tmp_path / "out", "cpu").segment(scan).quality
    assert shown.shown.text == "made-up training data"


def test_the_training_set_of_an_import_is_refused(tmp_path: Path) -> None:
    imported = import_model(MODELS / "isotropic", tmp_path / "bundle")
    (file,) = (MODELS / "isotropic").glob("*/dataset.json")
    stated = json.loads(file.read_text())
    data = write_patients(tmp_path / "data", stated["numTraining"])
    for image in (data / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii", "_0000.nii")))
    # nnU-Net writes it anew beside a model.
    (data / "dataset.json").write_text(json.dumps(stated, indent=4))
    out = tmp_path / "out"
    with pytest.raises(DatasetError, match="that the model was trained on"):
        medseg.calibrate(imported.folder, out, data=data)
    # Nor is it another data set because some of its cases cannot be used.
    first, second, *_ = sorted((data / "labelsTr").iterdir())
    first.write_bytes(b"")
    second.unlink()
    with pytest.raises(DatasetError, match="that the model was trained on"):
        medseg.calibrate(imported.folder, out, data=data, skip_bad_cases=True)


def test_nothing_is_changed_in_place_before_all_is_known(
    bundle: Path,
    data: Path,
) -> None:
    before = list_files(bundle)

    def stop_at(position: int) -> Callable[[Event], None]:
        def stop(event: Event) -> None:
            is_scoring = isinstance(event, Progress) and "scor" in event.task
            if is_scoring and event.done == position:  # type: ignore[attr-defined]
                raise RuntimeError("stop")

        return stop

    for position, leaves_nothing in ((0, True), (18, False)):
        with pytest.raises(RuntimeError, match="stop"):
            medseg.calibrate(
                bundle,
                data=data,
                in_place=True,
                device="cpu",
                listeners=[stop_at(position)],
            )
        after = list_files(bundle)
        hidden = {name for name in after if name.startswith(".calibration")}
        assert (not hidden) == leaves_nothing
        rest = {name: after[name] for name in after.keys() - hidden}
        assert rest == before


def test_a_folder_that_cannot_be_written_is_said(
    bundle: Path, data: Path, tmp_path: Path, block: Callable[[Path], Path]
) -> None:
    out = block(tmp_path) / "out"
    with pytest.raises(OutputError):
        medseg.calibrate(bundle, out, data=data, device="cpu")


@pytest.fixture
def block() -> Callable[[Path], Path]:
    """Return what makes a file that stands where a folder would be."""

    def make(folder: Path) -> Path:
        file = folder / "file"
        file.write_text("")
        return file

    return make
