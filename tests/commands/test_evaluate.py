"""``medseg evaluate``: pairs are scored, and what cannot be scored is named."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.label_maps import AFFINE, TWO, in_other_order, phantom, save

from medseg.bundle.spec import BundleSpec
from medseg.commands.evaluate import evaluate
from medseg.errors import DatasetError, MedsegError
from medseg.events import Event, Notice, Progress
from medseg.labels import Label, LabelSet, default_colour
from medseg.metrics.metrics import score_case


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Three cases: perfect, shifted, and with the tumour missed."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case, prediction in {
        "a": phantom(),
        "b": phantom(1),
        "c": phantom(tumour=False),
    }.items():
        save(predictions / f"{case}.nii.gz", prediction)
        save(references / f"{case}.nii.gz", phantom())
    return predictions, references


def test_each_case_is_scored_in_mm_on_its_grid(folders):
    found = evaluate(*folders, labels=TWO)
    assert [case.case for case in found.cases] == ["a", "b", "c"]
    assert not found.faults
    expected = score_case(phantom(1), phantom(), TWO, (1.0, 2.0, 2.5), case="b")
    for name, scores in expected.labels.items():
        assert asdict(found.cases[1].labels[name]) == pytest.approx(
            asdict(scores)
        )
    assert found.cases[1].labels["liver"].reference_ml == pytest.approx(
        (8 * 7 * 7 - 27) * 5 / 1000
    )
    assert found.cases[2].labels["tumour"].missed
    assert found.scores["dice"]["tumour"] == pytest.approx(2 / 3)


def test_a_bundle_gives_its_labels(folders):
    bundle = BundleSpec.model_validate(
        {
            "name": "x",
            "channels": [{"name": "CT"}],
            "labels": [
                {"index": 1, "name": "liver"},
                {"index": 2, "name": "tumour"},
            ],
            "training": {"patch": [16, 16, 16]},
        }
    )
    assert evaluate(*folders, labels=bundle) == evaluate(*folders, labels=TWO)


def test_a_slip_in_the_other_method_is_told_before_anything_is_scored(
    folders, tmp_path
):
    told = []
    with pytest.raises(DatasetError, match="does not exist"):
        evaluate(*folders, versus=tmp_path / "gone", listeners=[told.append])
    assert told == []


def test_the_other_method_may_name_its_files_otherwise(tmp_path):
    for case in ("a", "b"):
        save(tmp_path / "references" / f"{case}_gt.nii.gz", phantom())
        save(tmp_path / "ours" / f"{case}.nii.gz", phantom())
        save(tmp_path / "theirs" / f"{case}_gt_v2.nii.gz", phantom(1))
    found = evaluate(
        tmp_path / "ours", tmp_path / "references", versus=tmp_path / "theirs"
    )
    assert {one.n for one in found.differences} == {2}
    assert [case.case for case in found.cases] == ["a", "b"]
    one = evaluate(
        tmp_path / "ours" / "a.nii.gz",
        tmp_path / "references" / "a_gt.nii.gz",
        versus=tmp_path / "theirs" / "a_gt_v2.nii.gz",
    )
    assert {one.n for one in one.differences} == {1}


def test_a_comparison_of_nothing_says_so(folders, tmp_path):
    predictions, references = folders
    (predictions / "c.nii.gz").unlink()
    save(tmp_path / "other" / "c.nii.gz", phantom())
    heard: list[Event] = []
    evaluate(
        predictions,
        references,
        labels=TWO,
        versus=tmp_path / "other",
        listeners=[heard.append],
    )
    assert [e.message for e in heard if isinstance(e, Notice)] == [
        "nothing is compared: no case has scores on both sides"
    ]


def test_folders_may_be_given_as_text(folders, tmp_path):
    predictions, references = map(str, folders)
    out = tmp_path / "out"
    found = evaluate(predictions, references, str(out), versus=predictions)
    assert len(found.cases) == 3
    assert (out / "evaluation.csv").is_file()


@pytest.mark.parametrize("value", [0, -1])
def test_an_ignore_label_that_label_maps_cannot_hold_is_refused(folders, value):
    predictions, references = folders
    with pytest.raises(MedsegError, match=f"above 0.* got {value}"):
        evaluate(predictions, references, ignore=value)


@pytest.mark.skipif(os.name == "nt", reason="there, too long a name is none")
def test_a_place_where_nobody_may_look_is_refused(folders, tmp_path):
    """A name that is too long stands for a folder that may not be read, which root always may."""
    predictions, references = folders
    closed = tmp_path / ("x" * 3000)
    for sides in ((closed, references), (predictions, closed)):
        with pytest.raises(DatasetError, match="cannot be read: "):
            evaluate(*sides)


def test_a_tolerance_without_end_is_refused(folders):
    with pytest.raises(
        MedsegError,
        match=r"--tolerance takes a length in mm, 0 or more; got inf",
    ):
        evaluate(*folders, labels=TWO, tolerance_mm=math.inf)


def test_bad_pairs_are_named_and_the_others_go_on(folders):
    predictions, references = folders
    moved = AFFINE.copy()
    moved[0, 3] += 3
    save(predictions / "a.nii.gz", phantom(), moved)
    save(predictions / "b.nii.gz", phantom()[:, :, :-1])
    save(references / "d.nii.gz", phantom())
    (predictions / "e.nii.gz").write_bytes(
        (predictions / "c.nii.gz").read_bytes()[:150]
    )
    save(references / "e.nii.gz", phantom())
    save(predictions / "f.nii.gz", phantom() * 100)
    save(references / "f.nii.gz", phantom())
    save(predictions / "g.nii.gz", phantom())
    save(references / "g.nii.gz", phantom() + 1)
    events: list[Event] = []
    save(predictions / "extra.nii.gz", phantom())
    found = evaluate(
        predictions, references, labels=TWO, listeners=[events.append]
    )
    assert [case.case for case in found.cases] == ["c"]
    faults = {fault.where: fault.what for fault in found.faults}
    assert faults.keys() == set("abdefg")
    assert "3.00 mm" in faults["a"]
    assert "(16, 14, 12) and (16, 14, 11) voxels" in faults["b"]
    assert "no prediction" in faults["d"]
    assert "up to 200; label indices 0 to 2" in faults["f"]
    assert "3 (" in faults["g"]
    assert found.without_reference == ("extra",)
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("extra: this prediction has no reference and is not scored")
    ]
    assert Progress("evaluating", 6, 6) in events


def test_references_may_hold_other_values(folders, tmp_path):
    predictions, _ = folders
    for case in "abc":
        save(
            tmp_path / "r" / f"{case}.nii.gz",
            np.array([0, 255, 7], np.int16)[phantom()],
        )
    labels = LabelSet(
        [
            Label(1, "liver", 255, default_colour(1)),
            Label(2, "tumour", 7, default_colour(2)),
        ]
    )
    assert evaluate(predictions, tmp_path / "r", labels=labels).cases == (
        evaluate(*folders, labels=TWO).cases
    )


def test_without_labels_each_value_is_one(folders):
    predictions, references = folders
    save(references / "a.nii.gz", phantom(tumour=False) * 12)
    save(predictions / "a.nii.gz", phantom(tumour=False) * 12)
    found = evaluate(predictions, references)
    assert list(found.scores["dice"]) == [
        "label 1",
        "label 2",
        "label 12",
        "mean",
    ]
    assert found.statistics["dice"]["label 12"].n == 1
    assert found.statistics["dice"]["label 2"].n == 2
    assert found.scores["dice"]["label 12"] == 1
    assert len(found.rows()) == 9


def test_values_without_a_common_one_are_refused_rather_than_scored_0(tmp_path):
    save(tmp_path / "p" / "a.nii.gz", phantom(tumour=False))
    save(tmp_path / "r" / "a.nii.gz", phantom(tumour=False) * 255)
    with pytest.raises(
        DatasetError, match=r"predictions hold label 1 .* label 255"
    ):
        evaluate(tmp_path / "p", tmp_path / "r")


def test_an_empty_prediction_is_a_score_not_a_refusal(tmp_path):
    save(tmp_path / "p" / "a.nii.gz", phantom() * 0)
    save(tmp_path / "r" / "a.nii.gz", phantom())
    assert evaluate(tmp_path / "p", tmp_path / "r").scores["dice"]["mean"] == 0


def test_images_are_no_label_maps(tmp_path):
    noise = np.arange(16 * 14 * 12, dtype=np.int16).reshape(16, 14, 12)
    save(tmp_path / "p" / "a.nii.gz", phantom())
    save(tmp_path / "r" / "a.nii.gz", noise)
    found = evaluate(tmp_path / "p", tmp_path / "r")
    assert "too many for label maps" in found.faults[0].what
    assert found.summary_rows()[1:] == [("mean", "0", "0", "–", "–", "–", "–")]


def test_an_image_of_few_grey_values_is_no_label_map(tmp_path):
    random = np.random.default_rng(0)
    image = np.minimum(random.normal(60, 15, (16, 14, 12)).clip(0), 117)
    save(tmp_path / "p" / "a.nii.gz", image.astype(np.uint8))
    save(tmp_path / "r" / "a.nii.gz", phantom())
    labels = [Label(n, f"l{n}", n, default_colour(n)) for n in range(1, 118)]
    for label_set in (None, LabelSet(labels)):
        found = evaluate(tmp_path / "p", tmp_path / "r", labels=label_set)
        assert "as grey values of an image do" in found.faults[0].what
        assert not found.cases


def test_pictures(tmp_path):
    truth = np.zeros((40, 30), np.uint8)
    truth[10:25, 5:20] = 255
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.stack([truth] * 3, -1)).save(tmp_path / "r" / "a.png")
    Image.fromarray(np.roll(truth // 255, 2, 0)).save(tmp_path / "p" / "a.png")
    labels = LabelSet([Label(1, "ventricle", 255, default_colour(1))])
    scores = (
        evaluate(tmp_path / "p", tmp_path / "r", labels=labels)
        .cases[0]
        .labels["ventricle"]
    )
    assert scores.dice == pytest.approx(13 / 15)
    assert scores.hd95 == pytest.approx(2)


def test_a_tilted_stack_has_its_own_voxel_volume(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.0
    for folder in ("p", "r"):
        save(tmp_path / folder / "a.nii.gz", phantom(), sheared)
    scores = (
        evaluate(tmp_path / "p", tmp_path / "r", labels=TWO)
        .cases[0]
        .labels["tumour"]
    )
    assert scores.reference_ml == pytest.approx(27 * 5 / 1000)


def test_a_real_case_against_itself(shared_data, tmp_path):
    labels = shared_data / "hippocampus" / "labelsTr"
    for path in sorted(labels.glob("*.nii.gz"))[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = evaluate(tmp_path, shared_data / "hippocampus")
    assert found.scores["dice"]["mean"] == 1
    assert len(found.faults) == len(list(labels.glob("*.nii.gz"))) - 2


def test_what_nobody_annotated_is_not_scored(folders):
    predictions, references = folders
    for name in "abc":
        reference = phantom()
        reference[:, 9:] = 9  # where the shifted prediction sticks out
        save(references / f"{name}.nii.gz", reference)
    for labels in (None, TWO):
        found = evaluate(
            predictions, references, labels=labels, ignore=9, lesions=True
        )
        liver = "liver" if labels else "label 1"
        assert not found.faults
        assert list(found.cases[0].labels) == [
            liver,
            "tumour" if labels else "label 2",
        ]
        assert found.cases[0].labels[liver].dice == 1
        for name in "abc":
            changed = (
                nibabel.load(predictions / f"{name}.nii.gz")
                .get_fdata()
                .astype(np.uint8)
            )
            changed[:, 9:] = np.random.default_rng(0).integers(
                0, 3, changed[:, 9:].shape
            )
            save(predictions.with_name("changed") / f"{name}.nii.gz", changed)
        other = evaluate(
            predictions.with_name("changed"),
            references,
            labels=labels,
            ignore=9,
            lesions=True,
        )
        assert repr(other.cases) == repr(found.cases)
        assert other.lesions == found.lesions


def test_a_prediction_that_holds_the_ignored_value_is_a_fault(folders):
    predictions, references = folders
    reference, prediction = phantom(), phantom()
    reference[0] = prediction[0] = 9
    save(references / "a.nii.gz", reference)
    save(predictions / "a.nii.gz", prediction)
    (fault,) = evaluate(predictions, references, ignore=9).faults
    assert "swapped" in fault.what


def test_a_dataset_says_itself_what_nobody_annotated(folders, tmp_path):
    predictions, _ = folders
    root = tmp_path / "data"
    reference = phantom()
    reference[12:] = 9
    save(root / "labelsTr" / "a.nii.gz", reference)
    (root / "dataset.json").write_text(
        json.dumps({"labels": {"liver": 1, "ignore": 9}})
    )
    for name in "bc":
        (predictions / f"{name}.nii.gz").unlink()
    (case,) = evaluate(predictions, root).cases
    assert list(case.labels) == ["label 1", "label 2"]


def test_faults_of_the_other_method_are_told_apart(folders, tmp_path):
    predictions, references = folders
    other = tmp_path / "other"
    save(other / "a.nii.gz", phantom())
    found = evaluate(predictions, references, labels=TWO, versus=other)
    assert [fault.where for fault in found.faults] == ["b (other)", "c (other)"]
    assert {difference.n for difference in found.differences} == {1}


def test_a_prediction_stored_in_another_order_scores_the_same(folders):
    straight = evaluate(*folders, labels=TWO)
    for name in ("a", "b"):
        file = folders[0] / f"{name}.nii.gz"
        stored = in_other_order(nibabel.load(file), (2, 1, 0), (-1, 1, -1))
        nibabel.save(stored, file)
    assert evaluate(*folders, labels=TWO) == straight


def test_lengths_in_micrometres_are_scored_in_mm(folders):
    in_mm = evaluate(*folders, labels=TWO)
    for folder in folders:
        for file in folder.iterdir():
            image = nibabel.load(file)
            image.header.set_xyzt_units("micron")
            nibabel.save(image, file)
    found = evaluate(*folders, labels=TWO, tolerance_mm=0.001)
    assert not found.faults
    for name, scores in found.cases[1].labels.items():
        expected = in_mm.cases[1].labels[name]
        assert scores.dice == expected.dice
        assert scores.hd95 == pytest.approx(expected.hd95 / 1000)
        assert scores.reference_ml == pytest.approx(expected.reference_ml / 1e9)
