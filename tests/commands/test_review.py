"""Masks without references: paired with scans, judged by a bundle, the worst first."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.label_maps import in_other_order
from support.seg_nrrd import write_seg_nrrd

import medseg
from medseg.commands.review import review
from medseg.errors import DatasetError
from medseg.events import Event, Notice, Progress
from medseg.inference.segmenter import Segmenter
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(
        tmp_path_factory.mktemp("judge") / "trained", made_spec()
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judge-data")
    return (
        write_dataset(root / "data", 3, shape=(20, 18, 16), spacing=9.0)
        / "imagesTr"
    )


@pytest.fixture
def masks(bundle: Path, scans: Path, tmp_path: Path) -> Path:
    """The bundle's own masks: of scan 0 as it is, of scan 1 half wrong, of scan 2 a tenth."""
    segmenter, folder = Segmenter(bundle, "cpu"), tmp_path / "masks"
    folder.mkdir()
    for number, share in enumerate((0.0, 0.5, 0.1)):
        image = nib.load(scans / f"phantom_{number:03d}.nii.gz")
        labels = segmenter.segment(image).labels
        wrong = np.random.default_rng(number).random(labels.shape) < share
        mask = np.where(wrong, (labels + 1) % 3, labels).astype(np.uint8)
        nib.save(
            nib.Nifti1Image(mask, image.affine),
            folder / f"phantom_{number:03d}_seg.nii.gz",
        )
    return folder


def test_the_worst_mask_comes_first(
    masks: Path, bundle: Path, scans: Path, tmp_path: Path
) -> None:
    heard: list[Event] = []
    found = review(
        masks,
        scans,
        bundle,
        tmp_path / "out",
        device="cpu",
        listeners=[heard.append],
    )
    assert [one.case for one in found.cases] == [
        "phantom_001",
        "phantom_002",
        "phantom_000",
    ]
    assert not found.faults
    assert found.coverage is None
    assert Progress("reviewing masks", 3, 3) in heard
    best = found.cases[-1].quality
    assert best.mean is not None
    assert best.mean.dice == 1
    with (tmp_path / "out" / "agreement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows if row["label"] == "mean"] == [
        one.case for one in found.cases
    ]
    assert float(rows[-1]["dice_with_bundle"]) == 1
    assert rows[-1]["expected_dice"] == ""


def test_one_bad_mask_does_not_stop_the_others(
    masks: Path, bundle: Path, scans: Path
) -> None:
    good = masks / "phantom_001_seg.nii.gz"
    good.write_bytes(good.read_bytes()[:200])
    image = nib.load(masks / "phantom_002_seg.nii.gz")
    moved = image.affine.copy()
    moved[0, 3] += 5
    nib.save(
        nib.Nifti1Image(np.asarray(image.dataobj), moved),
        masks / "phantom_002_seg.nii.gz",
    )
    (masks / "phantom_000_seg.nii.gz").rename(masks / "phantom_000.nii.gz")
    nib.save(image, masks / "stranger.nii.gz")
    found = review(masks, scans, bundle, device="cpu")
    assert [one.case for one in found.cases] == ["phantom_000"]
    faults = {fault.where: fault.what for fault in found.faults}
    assert set(faults) == {"phantom_001", "phantom_002", "stranger"}
    assert "mm apart" in faults["phantom_002"]
    assert "has no scan" in faults["stranger"]


def test_scans_without_a_mask_are_mentioned(
    masks: Path, bundle: Path, scans: Path
) -> None:
    heard: list[Event] = []
    one = masks / "phantom_001_seg.nii.gz"
    found = review(one, scans, bundle, device="cpu", listeners=[heard.append])
    assert [judged.case for judged in found.cases] == ["phantom_001"]
    assert any(
        isinstance(event, Notice) and "2 scans" in event.message
        for event in heard
    )
    alone = review(one, scans / "phantom_002.nii.gz", bundle, device="cpu")
    assert [judged.case for judged in alone.cases] == ["phantom_002"]


def test_nothing_that_belongs_together_is_an_error(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "other.nii.gz")
    with pytest.raises(DatasetError, match="has the name of a scan"):
        review(tmp_path, scans, bundle, device="cpu")


def test_the_name_of_the_former_release_goes_on_working_and_warns(
    masks: Path, bundle: Path, scans: Path
) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"now review\(masks, scans, bundle\)"
    ):
        former = medseg.evaluate_without_references(
            masks, bundle, scans, device="cpu"
        )
    assert former == review(masks, scans, bundle, device="cpu")
    assert "evaluate_without_references" not in medseg.__all__


def test_a_mask_stored_in_another_order_is_judged_the_same(
    masks: Path, bundle: Path, scans: Path
) -> None:
    straight = review(masks, scans, bundle, device="cpu")
    file = masks / "phantom_001_seg.nii.gz"
    nib.save(in_other_order(nib.load(file), (1, 0, 2), (1, -1, -1)), file)
    assert review(masks, scans, bundle, device="cpu") == straight


def test_masks_go_by_the_names_of_their_segments(
    masks: Path, bundle: Path, scans: Path, tmp_path: Path
) -> None:
    by_value = review(masks, scans, bundle, device="cpu")
    named = tmp_path / "named"
    for file in masks.iterdir():
        image = nib.load(file)
        labels = np.asarray(image.dataobj)
        turned = np.array([0, 2, 1], np.uint8)[labels]
        name = file.name.replace(".nii.gz", ".nrrd")
        segments = [("KIDNEY", 1), ("Liver", 2)]
        write_seg_nrrd(named / name, turned, segments, image.affine)
    assert review(named, scans, bundle, device="cpu").rows() == by_value.rows()
    trusted = review(named, scans, bundle, device="cpu", trust_values=True)
    assert trusted.rows() != by_value.rows()


def test_a_list_beside_masks_must_say_what_the_bundle_says(
    masks: Path, bundle: Path, scans: Path
) -> None:
    said = {"labels": {"background": 0, "kidney": 1, "liver": 2}}
    (masks / "dataset.json").write_text(json.dumps(said))
    with pytest.raises(DatasetError) as refused:
        review(masks, scans, bundle, device="cpu")
    (fault,) = refused.value.faults
    assert "the masks have kidney = 1, liver = 2" in fault.what
    insisted = review(masks, scans, bundle, device="cpu", trust_values=True)
    assert len(insisted.cases) == 3
