"""A data set in, a bundle out that trains; and what a plan says of data it cannot do much with."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from support import dicom as made
from support.bundles import content, made_spec, trained_bundle, write_json
from support.cli import call

from medseg import check, plan, train
from medseg._support.folders import Listing, list_files
from medseg.bundle.bundle import load_bundle
from medseg.commands.plan import plan_bundles
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.events import (
    Event,
    Notice,
    ScheduleShortened,
    StepDone,
    TimeBudgetFitted,
    ValidationDone,
)
from medseg.io import read_image
from medseg.io.dicom import series_search
from medseg.io.dicom.headers import Header, read_header
from medseg.labels import Label, LabelSet
from medseg.layouts import registry
from medseg.planning.plan import Plan
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("plan") / "data",
        6,
        shape=(24, 20, 16),
        spacing=9.0,
    )


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what was seen is kept in ./runs


def planned(data: Path, out: Path, **wishes: Any) -> tuple[Plan, list[str]]:
    events: list[Event] = []
    made = plan(data, out, device="cpu", listeners=[events.append], **wishes)
    return made, [
        event.message for event in events if isinstance(event, Notice)
    ]


def test_a_plan_for_fine_tuning_has_the_network_that_it_starts_from(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parent = made_spec(
        name="parent",
        preprocessing={"axes": "kji", "spacing_mm": [7, 8, 9]},
        training={"patch": [8, 16, 24]},
        inference={"window_weights": "nnunet"},
    )
    trained = trained_bundle(tmp_path / "trained", parent)
    file = tmp_path / "child.json"
    options = ["-o", file, "--from", trained, "--no-measure"]
    assert call(monkeypatch, "plan", data, *options) == 0
    said = "".join(capsys.readouterr().out.split())
    assert f"medsegtrain{file}--from{trained}" in said
    spec = load_bundle(file).spec
    assert spec.network == parent.network
    assert spec.training.patch == (8, 16, 24)
    assert spec.preprocessing.spacing_mm == (7, 8, 9)
    assert spec.inference.window_weights == "nnunet"
    assert [label.name for label in spec.labels] == ["liver", "kidney"]
    assert "weights training starts from" in spec.notes["network"]
    others: list[dict[str, Any]] = [
        {"dims": 2},
        {"memory_gb": 4.0},
        {"network": "resenc"},
    ]
    for other in others:
        with pytest.raises(MedsegError, match="leave out --dims"):
            plan(data, tmp_path / "no.json", start_from=trained, **other)
    assert not (tmp_path / "no.json").exists()


def test_a_plan_is_a_bundle_with_a_reason_for_each_choice(
    data: Path, tmp_path: Path
) -> None:
    made, said = planned(data, tmp_path / "bundle.json")
    spec = load_bundle(tmp_path / "bundle.json").spec
    assert spec == made.spec
    assert said == []
    assert [label.name for label in spec.labels] == ["liver", "kidney"]
    assert spec.channels[0].modality == "CT"
    assert spec.preprocessing.spacing_mm == (9, 9, 9)
    assert spec.network.kind == "UNet"
    assert spec.training.patch == (24, 20, 16)
    assert (tmp_path / spec.data.root).resolve() == data.resolve()
    assert {
        "preprocessing.spacing_mm",
        "training.patch",
        "network.args.channels",
    } <= set(spec.notes)
    assert all(field and value and why for field, value, why in made.rows())
    text = (tmp_path / "bundle.json").read_text()
    assert "phantom_00" not in text
    assert "learning_rate" in text
    # What was not chosen is left to the defaults.
    assert "gradient_clip" not in text


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.nightly
def test_a_plan_trains_within_its_time_and_a_resumed_run_keeps_its_steps(
    data: Path, tmp_path: Path
) -> None:
    made, _ = planned(data, tmp_path / "bundle.json", budget="40s")
    assert made.spec.training.budget_minutes == pytest.approx(0.667, abs=1e-3)
    events: list[Event] = []
    began = time.monotonic()

    def stop_at_five(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == 5:
            raise KeyboardInterrupt

    arguments: dict[str, Any] = {
        "out": tmp_path / "run",
        "device": "cpu",
        "overrides": [
            "tracking.register_model=false",
            "training.checkpoint_every=2",
        ],
    }
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "bundle.json", listeners=[stop_at_five], **arguments)
    (fitted,) = [
        event for event in events if isinstance(event, TimeBudgetFitted)
    ]
    assert load_bundle(tmp_path / "run").spec.training.steps == fitted.steps
    train(
        tmp_path / "bundle.json",
        resume=True,
        listeners=[events.append],
        **arguments,
    )
    assert (
        len([event for event in events if isinstance(event, TimeBudgetFitted)])
        == 1
    )
    assert (
        max(event.step for event in events if isinstance(event, StepDone))
        == fitted.steps
    )
    # A busy machine may be slower than it was.
    assert time.monotonic() - began < 3 * 40


@pytest.mark.slow
def test_a_training_that_becomes_slower_takes_fewer_steps(
    data: Path, tmp_path: Path
) -> None:
    training = {
        "budget_minutes": 0.15,
        "checkpoint_every": 50,
        "augmentation": "none",
    }
    bundle = write_json(tmp_path, content(training=training, data={"folds": 2}))
    events: list[Event] = []
    killed = tmp_path / "killed"

    def become_slower(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone):
            time.sleep(0.03)
        if isinstance(
            event, ScheduleShortened
        ):  # as if the process had been killed at this moment
            shutil.copytree(tmp_path / "run", killed, dirs_exist_ok=True)

    run = train(
        bundle,
        data=data,
        out=tmp_path / "run",
        device="cpu",
        listeners=[become_slower],
    )
    (fitted,) = [
        event for event in events if isinstance(event, TimeBudgetFitted)
    ]
    shortened = [
        event.steps for event in events if isinstance(event, ScheduleShortened)
    ]
    assert fitted.steps > shortened[0] >= shortened[-1]
    assert (
        max(event.step for event in events if isinstance(event, StepDone))
        == shortened[-1]
    )
    assert load_bundle(run).spec.training.steps == shortened[-1]
    last = [event for event in events if isinstance(event, ValidationDone)][-1]
    assert last.step == shortened[-1]
    steps = [event for event in events if isinstance(event, StepDone)]
    events.clear()
    train(
        bundle,
        data=data,
        out=killed,
        device="cpu",
        resume=True,
        listeners=[events.append],
    )
    resumed = [event for event in events if isinstance(event, StepDone)]
    assert 0 < len(resumed) < shortened[-1]
    assert resumed == steps[-len(resumed) :]  # losses to the last bit
    unbroken, again = (
        torch.load(folder / "models" / "model.pt", weights_only=True)
        for folder in (run, killed)
    )
    assert all(
        torch.equal(again[name], value) for name, value in unbroken.items()
    )


def write_partly_annotated(root: Path) -> Path:
    """Write phantoms of which nobody annotated the lowest slices, with a list that says so."""
    data = write_dataset(root, 3, shape=(24, 20, 16), spacing=9.0)
    for file in (data / "labelsTr").iterdir():
        label = nib.load(file)
        array = np.array(label.dataobj)
        array[:, :, :4] = 3
        nib.save(nib.Nifti1Image(array, label.affine), file)
    listing = json.loads((data / "dataset.json").read_text())
    listing["labels"] = {"background": 0, "liver": 1, "kidney": 2, "ignore": 3}
    (data / "dataset.json").write_text(json.dumps(listing))
    return data


def test_a_partly_annotated_set_gets_a_plan(tmp_path: Path) -> None:
    data = write_partly_annotated(tmp_path / "data")
    made, said = planned(
        data, tmp_path / "bundle.json", class_weights="balanced"
    )
    assert said == []
    assert [label.name for label in made.spec.labels] == ["liver", "kidney"]
    assert made.spec.data.ignore == 3
    _, liver, kidney = made.spec.class_weights or ()
    of = made.fingerprint.find_label_statistics
    mean = {
        value: np.mean([label.voxels for label in of(value)])
        for value in (1, 2)
    }
    assert kidney / liver == pytest.approx((mean[1] / mean[2]) ** 0.5, rel=0.01)
    assert "unlabelled" in made.spec.notes["data.ignore"]


@pytest.mark.slow
def test_a_partly_annotated_set_is_trained(tmp_path: Path) -> None:
    planned(write_partly_annotated(tmp_path / "data"), tmp_path / "bundle.json")
    short = [
        "training.steps=2",
        "training.warmup_steps=0",
        "tracking.register_model=false",
    ]
    run = train(
        tmp_path / "bundle.json",
        out=tmp_path / "run",
        device="cpu",
        overrides=short,
    )
    assert (run / "models" / "model.pt").is_file()
    card = (run / "docs" / "README.md").read_text()
    assert "value 3 in the label files were ignored" in " ".join(card.split())


def test_pictures_get_a_plan_in_two_dimensions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        image = rng.integers(0, 90, (40, 36), dtype=np.uint8)
        label = np.zeros_like(image)
        label[8:26, 10:24] = 255
        for folder, array in (("images", image), ("labels", label)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(
                tmp_path / "data" / folder / f"p{number}.png"
            )
    made, _ = planned(tmp_path / "data", tmp_path / "bundle.json")
    spec = made.spec
    assert (spec.network.dims, spec.preprocessing.input) == (2, "picture")
    assert spec.preprocessing.spacing_mm is None
    assert spec.labels[0].value == 255
    assert spec.data.folds == 3
    assert spec.training.augmentation.mirror_axes == (0, 1)


def test_one_case_is_planned_and_what_it_cannot_show_is_said(
    tmp_path: Path,
) -> None:
    one = write_dataset(tmp_path / "one", 1, shape=(24, 20, 16), spacing=9.0)
    made, said = planned(one, tmp_path / "bundle.json")
    assert len(said) == 1
    assert "--fold none" in said[0]
    assert "--fold none" in made.spec.notes["data.folds"]


def test_a_label_of_one_case_alone_is_doubted(
    data: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(data, odd)
    file = odd / "labelsTr" / "phantom_002.nii.gz"
    label = nib.load(file)
    array = np.array(label.dataobj)
    array[0, 0, :2] = 7
    nib.save(nib.Nifti1Image(array, label.affine), file)
    listing = json.loads((odd / "dataset.json").read_text())
    listing["labels"]["7"] = "speck"
    (odd / "dataset.json").write_text(json.dumps(listing))
    _, said = planned(odd, tmp_path / "bundle.json")
    assert said == [
        "label 7 occurs in only 1 of 6 cases, with 2 voxels: little can be learned of it. Is it a "
        "mistake?"
    ]


def test_bad_cases_are_left_out_by_name(data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(data, bad)
    image = bad / "imagesTr" / "phantom_001.nii.gz"
    image.write_bytes(image.read_bytes()[:-200])
    made, said = planned(bad, tmp_path / "bundle.json")
    assert len(made.fingerprint.cases) == 5
    assert any("phantom_001" in one for one in said)
    for file in (bad / "imagesTr").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no case can be used"):
        planned(bad, tmp_path / "other.json")


def test_a_plan_never_overwrites(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("mine")
    with pytest.raises(OutputError, match="another -o"):
        planned(data, tmp_path / "bundle.json")
    assert (tmp_path / "bundle.json").read_text() == "mine"


def test_wishes_that_make_no_sense_are_refused(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(MedsegError, match="--dims"):
        planned(data, tmp_path / "a.json", dims=4)
    with pytest.raises(MedsegError, match="time budget"):
        planned(data, tmp_path / "b.json", budget="soon")


def test_a_data_folder_that_holds_its_plan_is_planned_again(
    data: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(data, copied)
    planned(copied, copied / "bundle.json")
    made, _ = planned(copied, copied / "again.json")
    assert len(made.fingerprint.cases) == 6


def test_every_labelled_set_there_is_gets_a_plan(
    shared_data: Path, tmp_path: Path
) -> None:
    made, said = planned(
        shared_data / "msd_spleen_crop", tmp_path / "spleen.json"
    )
    assert made.spec.preprocessing.intensity.kind == "window"  # type: ignore[union-attr]
    assert said
    made, _ = planned(shared_data / "sts_ct_mr_pet", tmp_path / "sts.json")
    assert len(made.fingerprint.cases) == 10
    assert made.spec.network.dims == 3


def test_plans_of_nnunet_become_a_bundle_that_trains(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = write_dataset(tmp_path / "raw", 3, shape=(24, 20, 16), spacing=9.0)
    for image in (raw / "imagesTr").iterdir():
        image.rename(image.with_name(image.name.replace(".nii", "_0000.nii")))
    labels = {"background": 0, "liver": 1, "kidney": 2, "ignore": 3}
    listing = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(listing))
    levels = {
        "features_per_stage": [4, 8, 8],
        "strides": [1, 2, 2],
        "kernel_sizes": [3, 3, 3],
    }
    plans = {
        "dataset_name": "Dataset001_Phantom",
        "image_reader_writer": "SimpleITKIO",
        "configurations": {
            "3d_fullres": {
                "batch_size": 2,
                "patch_size": [12, 16, 20],
                "spacing": [9.0, 9.0, 9.0],
                "normalization_schemes": ["ZScoreNormalization"],
                "architecture": {
                    "network_class_name": "PlainConvUNet",
                    "arch_kwargs": levels,
                },
            },
            "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
        },
    }
    file, out = tmp_path / "nnUNetPlans.json", tmp_path / "bundle.json"
    file.write_text(json.dumps(plans))
    with pytest.raises(DatasetError, match="--data"):
        planned(file, out)
    with pytest.raises(MedsegError, match="labels' volumes"):
        planned(file, out, class_weights="balanced")
    options = ["--data", raw, "-o", out, "--explain", "--device", "cpu"]
    assert call(monkeypatch, "plan", file, *options) == 0
    said = capsys.readouterr()
    assert "cascade" in said.out + said.err
    spec = load_bundle(out).spec
    assert (spec.name, spec.training.patch) == (
        "dataset001_phantom",
        (12, 16, 20),
    )
    assert spec.data.ignore == 3
    overrides = [
        "training.steps=2",
        "training.validate_every=2",
        "tracking.register_model=false",
    ]
    run = train(
        out, out=tmp_path / "run", fold=None, device="cpu", overrides=overrides
    )
    assert (run / "models" / "model.pt").is_file()


def test_a_bids_data_set_is_planned_with_its_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "study"
    for number in (1, 2, 3):
        anat = root / f"sub-{number}" / "anat"
        manual = root / "derivatives" / "manual" / f"sub-{number}" / "anat"
        label = np.zeros((24, 20, 16), np.uint8)
        label[4:12, 5:15, 3:13] = 3
        for file, array in (
            (
                anat / f"sub-{number}_T1w.nii.gz",
                rng.random(label.shape, np.float32),
            ),
            (
                anat / f"sub-{number}_FLAIR.nii.gz",
                rng.random(label.shape, np.float32),
            ),
            (manual / f"sub-{number}_dseg.nii.gz", label),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(
                nib.Nifti1Image(array, np.diag([4.0, 4.0, 4.0, 1.0])), file
            )
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.9.0"}'
    )
    (root / "derivatives" / "dseg.tsv").write_text("index\tname\n3\tlesion\n")
    made, said = planned(root, tmp_path / "bundle.json")
    assert said == []
    assert [(one.name, one.modality) for one in made.spec.channels] == [
        ("FLAIR", "MR"),
        ("T1w", "MR"),
    ]
    assert [(la.name, la.value) for la in made.spec.labels] == [("lesion", 3)]
    assert made.spec.data.folds == 3
    alone, _ = planned(root, tmp_path / "alone.json", channels=["FLAIR"])
    assert [one.name for one in alone.spec.channels] == ["FLAIR"]
    with pytest.raises(
        DatasetError, match=r"names T2w, but most .*have FLAIR, T1w"
    ):
        planned(root, tmp_path / "other.json", channels=["T2w"])


def test_dicom_series_are_planned_by_the_names_of_their_segments(
    tmp_path: Path,
) -> None:
    names = LabelSet(
        [Label(1, "Tumour", 1, (9, 9, 9)), Label(2, "Liver", 2, (8, 8, 8))]
    )
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4:12, 5:15, 3:13] = 1
    labels[14:20, 5:15, 3:13] = 2
    for number in (1, 2):
        shown = made.series(
            made.voxels(labels.shape, number),
            f"n{number}",
            PatientID=f"P{number}",
        )
        scan = read_image(made.save(tmp_path / "data" / f"{number}", shown))
        write_dicom_seg(
            tmp_path / "data" / f"seg{number}",
            labels,
            scan,
            names,
            version="1.2.3",
        )
    plan_made, said = planned(tmp_path / "data", tmp_path / "bundle.json")
    spec = plan_made.spec
    assert said == []
    assert [(label.index, label.name) for label in spec.labels] == [
        (1, "Liver"),
        (2, "Tumour"),
    ]
    assert (spec.channels[0].name, spec.channels[0].modality) == ("CT", "CT")
    assert made.PATIENT not in (tmp_path / "bundle.json").read_text()


def write_dicom_with_labels(root: Path, patients: int) -> Path:
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4:12, 5:15, 3:13] = 1
    names = LabelSet([Label(1, "Liver", 1, (9, 9, 9))])
    for number in range(patients):
        shown = made.series(
            made.voxels(labels.shape, number),
            f"n{number}",
            PatientID=f"P{number}",
        )
        scan = read_image(made.save(root / f"{number}", shown))
        write_dicom_seg(
            root / f"seg{number}", labels, scan, names, version="1.2.3"
        )
    return root


def test_a_folder_is_searched_once_and_each_header_listed_once_for_both_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_dicom_with_labels(tmp_path / "data", 2)
    looked: Counter[Path] = Counter()
    walked: list[Path] = []

    def counted_header(path: Path) -> Header | None:
        looked[path] += 1
        return read_header(path)

    def counted_walk(folder: Path) -> Listing:
        walked.append(folder)
        return list_files(folder)

    monkeypatch.setattr(series_search, "read_header", counted_header)
    monkeypatch.setattr(registry, "list_files", counted_walk)
    files = {tmp_path / "2d.json": 2, tmp_path / "3d.json": 3}
    plans = plan_bundles(root, files, device="cpu")
    assert [plan.spec.network.dims for plan in plans] == [2, 3]
    assert walked == [root]
    assert dict(looked) == {
        file: 1 for file in root.rglob("*") if file.is_file()
    }


def test_channels_that_are_named_are_found_among_dicom_series(
    tmp_path: Path,
) -> None:
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4:12, 5:15, 3:13] = 1
    root, names = tmp_path / "data", LabelSet([Label(1, "Liver", 1, (9, 9, 9))])
    for patient in (1, 2):
        for modality in ("CT", "PT"):
            name = f"{patient} {modality}"
            changes: dict[str, Any] = {
                "StudyInstanceUID": f"1.2.{patient}",
                "Modality": modality,
            }
            shown = made.series(
                made.voxels(labels.shape, patient), name, **changes
            )
            scan = read_image(made.save(root / name, shown))
        write_dicom_seg(
            root / f"seg{patient}", labels, scan, names, version="1.2.3"
        )
    two, said = planned(
        root, tmp_path / "two.json", channels=["density:CT", "PET"]
    )
    assert said == []
    assert [(one.name, one.modality) for one in two.spec.channels] == [
        ("density", "CT"),
        ("PET", "PT"),
    ]
    assert len(two.fingerprint.cases[0].channels) == 2
    checked = check(tmp_path / "two.json")
    assert (checked.cases, checked.faults) == (2, ())
    one, _ = planned(root, tmp_path / "one.json")
    assert [one.name for one in one.spec.channels] == ["PT"]
    with pytest.raises(DatasetError, match="no series for the channel 'T1'"):
        planned(root, tmp_path / "none.json", channels=["T1", "PET"])


def test_channels_can_be_named_and_their_number_must_be_right(
    data: Path, tmp_path: Path
) -> None:
    made, _ = planned(
        data, tmp_path / "bundle.json", channels=["late phase:CT"]
    )
    assert [(one.name, one.modality) for one in made.spec.channels] == [
        ("late phase", "CT")
    ]
    with pytest.raises(
        DatasetError, match="names 2 channels, but the cases have 1"
    ):
        planned(data, tmp_path / "two.json", channels=["CT", "PET"])
    with pytest.raises(MedsegError, match="--channel takes a name"):
        planned(data, tmp_path / "none.json", channels=[":PT"])


def test_only_plans_of_nnunet_take_data(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="--data"):
        plan(data, tmp_path / "bundle.json", data=data, device="cpu")


def write_nnunet(
    root: Path, cases: int, channels: int = 1, **said: Any
) -> Path:
    rng = np.random.default_rng(0)
    label = np.zeros((24, 20, 16), np.uint8)
    label[4:12, 5:15, 3:13] = 1
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in range(cases):
        nib.save(
            nib.Nifti1Image(label, np.eye(4)),
            root / "labelsTr" / f"c{case}.nii.gz",
        )
        for channel in range(channels):
            image = nib.Nifti1Image(
                rng.random(label.shape, np.float32), np.eye(4)
            )
            nib.save(image, root / "imagesTr" / f"c{case}_000{channel}.nii.gz")
    listing = {
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
        **said,
    }
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


@pytest.mark.parametrize("said", [{}, {"channel_names": {"0": "T1"}}])
def test_one_case_with_a_file_too_many_does_not_cost_the_others(
    said: dict[str, Any], tmp_path: Path
) -> None:
    root = write_nnunet(tmp_path / "raw", 4, **said)
    shutil.copy(
        root / "imagesTr" / "c0_0000.nii.gz",
        root / "imagesTr" / "c0_0001.nii.gz",
    )
    made, told = planned(root, tmp_path / "bundle.json")
    assert len(made.fingerprint.cases) == 3
    assert len(made.spec.channels) == 1
    assert [one for one in told if "left out" in one and "c0" in one]


def test_channels_that_are_named_count_even_where_most_cases_lack_one(
    tmp_path: Path,
) -> None:
    names = {"0": "T1", "1": "T2"}
    root = write_nnunet(tmp_path / "raw", 3, channels=2, channel_names=names)
    for case in (1, 2):
        (root / "imagesTr" / f"c{case}_0001.nii.gz").unlink()
    made, told = planned(root, tmp_path / "bundle.json")
    assert [channel.name for channel in made.spec.channels] == ["T1", "T2"]
    assert len([one for one in told if "has only channel 0" in one]) == 2


def test_the_folds_are_those_of_the_cases_that_can_be_used(
    data: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(data, bad)
    for number in (1, 2):
        (bad / "imagesTr" / f"phantom_00{number}.nii.gz").write_bytes(
            b"no image"
        )
    made, _ = planned(bad, tmp_path / "bundle.json")
    assert made.spec.data.folds == 4


def test_a_table_of_names_may_have_more_than_a_bundle_can(
    tmp_path: Path,
) -> None:
    root = tmp_path / "study"
    label = np.zeros((24, 20, 16), np.uint16)
    label[4:12, 5:15, 3:13] = 17
    for number in (1, 2):
        for kind, array in (("T1w", label * 10.0), ("dseg", label)):
            file = (
                root / f"sub-{number}" / "anat" / f"sub-{number}_{kind}.nii.gz"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), file)
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.9.0"}'
    )
    rows = [
        f"{value}\t{'Hippocampus' if value == 17 else 'unused'}"
        for value in range(1, 1300)
    ]
    (root / "dseg.tsv").write_text("\n".join(["index\tname", *rows]) + "\n")
    made, _ = planned(root, tmp_path / "bundle.json")
    assert [(la.name, la.value) for la in made.spec.labels] == [
        ("Hippocampus", 17)
    ]


def test_what_would_be_another_plan_than_its_name_says_is_refused(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        OutputError,
        match=r"is a folder; give -o a file, such as .*bundle\.json",
    ):
        planned(data, data / "imagesTr")
    pictures = tmp_path / "pictures"
    for folder in ("images", "labels"):
        (pictures / folder).mkdir(parents=True)
        for number in (1, 2):
            array = np.full((40, 40), 20, np.uint8)
            array[10:20, 5:30] = 1
            Image.fromarray(array).save(pictures / folder / f"{number}.png")
    files = {tmp_path / "2d.json": 2, tmp_path / "3d.json": 3}
    with pytest.raises(
        MedsegError, match="holds pictures, which have two dimensions"
    ):
        plan_bundles(pictures, files, device="cpu")
    assert not (tmp_path / "2d.json").exists()


def test_a_folder_that_is_not_there_is_said_before_a_file_that_is(
    tmp_path: Path,
) -> None:
    file = tmp_path / "bundle.json"
    file.write_text("{}")
    with pytest.raises(DatasetError, match="there is no such folder"):
        plan(tmp_path / "absent", file)
