"""The cases of a training: every bad one named, the split, the fingerprint."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import made_spec

from medseg.datasets.cases import find_cases
from medseg.datasets.dataset import Dataset, open_dataset
from medseg.errors import DatasetError
from medseg.events import Event, Notice, Progress
from medseg.testing import write_dataset

SPEC = made_spec(preprocessing={"spacing_mm": [8, 8, 8]}, data={"folds": 2})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), 4)


def opened(
    root: Path, cache: Path, fold: int | None = 0, **keywords: Any
) -> Dataset:
    return open_dataset(root, SPEC, fold, cache, **keywords)


def test_folds_hold_back_different_cases_and_together_all(
    data: Path, tmp_path: Path
) -> None:
    folds = [opened(data, tmp_path, fold) for fold in (0, 1)]
    held = [{case.case_id for case in found.validation} for found in folds]
    learned = [{case.case_id for case in found.training} for found in folds]
    assert held[0] | held[1] == learned[0] | held[0]
    assert not held[0] & held[1]
    assert not learned[0] & held[0]
    assert [len(found.held_out) for found in folds] == [
        len(one) for one in held
    ]
    every = opened(data, tmp_path, None)
    assert len(every.training) == 4
    assert not every.validation


def test_cases_that_were_found_are_not_looked_for_again(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 4)
    found = find_cases(root, SPEC)
    (root / "dataset.json").unlink()
    assert (
        len(open_dataset(found, SPEC, None, tmp_path / "cache").training) == 4
    )


def test_the_fingerprint_is_of_content(data: Path, tmp_path: Path) -> None:
    first = opened(data, tmp_path / "a").content_hash
    assert opened(data, tmp_path / "b", fold=1).content_hash == first
    other = write_dataset(tmp_path / "other", 4, seed=50)
    assert opened(other, tmp_path / "a").content_hash != first
    renamed = write_dataset(tmp_path / "renamed", 4)
    (renamed / "dataset.json").unlink()
    for number, path in enumerate(sorted(renamed.glob("*/*"))):
        path.rename(path.with_name(f"case_{number % 4}.nii.gz"))
    assert (
        opened(renamed, tmp_path / "c", None).content_hash
        == opened(data, tmp_path / "a", None).content_hash
    )


def test_what_is_learned_from_is_normalised_without_padding(
    tmp_path: Path,
) -> None:
    spec = made_spec(preprocessing={"intensity": "zscore"}, data={"folds": 2})
    plain = write_dataset(tmp_path / "plain", 2, shape=(24, 20, 16), spacing=9)
    padded = tmp_path / "padded"
    shutil.copytree(plain, padded)
    for file in padded.glob("imagesTr/*.nii.gz"):
        framed = nib.load(file).get_fdata(dtype=np.float32)
        framed[:3] = np.nan
        nib.save(nib.Nifti1Image(framed, nib.load(file).affine), file)
    images = []
    for root in (plain, padded):
        (case, _) = open_dataset(root, spec, None, tmp_path / "cache").training
        images.append(case.image.float().numpy())
    # The voxels' axes are the patient's, but for their directions.
    whole, normalised = images
    hidden = np.isclose(normalised, normalised.min())
    frames = [np.s_[:, :3], np.s_[:, -3:]]
    (frame,) = [one for one in frames if hidden[one].all()]
    shown = np.ones(whole.shape, bool)
    shown[frame] = False
    of_shown = (whole - whole[shown].mean()) / whole[shown].std()
    assert np.allclose(normalised[shown], of_shown[shown], atol=0.02)


def test_the_fingerprint_is_of_labels_and_folds_too(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 4)
    first = opened(root, tmp_path / "cache").content_hash
    label = sorted((root / "labelsTr").iterdir())[0]
    other = sorted((root / "labelsTr").iterdir())[1]
    before = label.read_bytes()
    label.write_bytes(other.read_bytes())
    assert opened(root, tmp_path / "cache").content_hash != first
    label.write_bytes(before)
    assert opened(root, tmp_path / "cache").content_hash == first
    listing = json.loads((root / "dataset.json").read_text())
    for number, case in enumerate(listing["training"]):
        case["fold"] = number % 2
    (root / "dataset.json").write_text(json.dumps(listing))
    listed = opened(root, tmp_path / "cache").content_hash
    listing["training"][0]["fold"] = 1
    (root / "dataset.json").write_text(json.dumps(listing))
    assert opened(root, tmp_path / "cache").content_hash != listed


def test_an_unchanged_case_is_read_once_and_for_all(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 4)
    events: list[Event] = []
    first = opened(root, tmp_path / "cache", None, listeners=[events.append])
    assert [event.done for event in events if isinstance(event, Progress)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    # The file's size and time, not its content, say whether it has changed.
    image = sorted((root / "imagesTr").iterdir())[0]
    time = image.stat().st_mtime_ns
    image.write_bytes(bytes(image.stat().st_size))
    os.utime(image, ns=(time, time))
    again = opened(root, tmp_path / "cache", None)
    assert [c.case_id for c in again.training] == [
        c.case_id for c in first.training
    ]
    os.utime(image, ns=(time + 1, time + 1))
    with pytest.raises(DatasetError):
        opened(root, tmp_path / "cache", None)


def test_every_bad_case_is_named_and_may_be_left_out(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 5)
    images = sorted((root / "imagesTr").iterdir())
    images[1].write_bytes(images[1].read_bytes()[:500])
    labels = sorted((root / "labelsTr").iterdir())
    labels[3].write_bytes(b"nothing")
    with pytest.raises(DatasetError) as caught:
        opened(root, tmp_path / "cache")
    assert [fault.where for fault in caught.value.faults] == [
        "phantom_001",
        "phantom_003",
    ]
    assert "--skip-bad-cases" in str(caught.value)
    events: list[Event] = []
    found = opened(
        root,
        tmp_path / "cache",
        None,
        skip_bad_cases=True,
        listeners=[events.append],
    )
    assert len(found.training) == 3
    said = [event.message for event in events if isinstance(event, Notice)]
    left_out = [message for message in said if message.startswith("left out: ")]
    assert [message.split(":")[1].strip() for message in left_out] == [
        "phantom_001",
        "phantom_003",
    ]
