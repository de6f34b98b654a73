"""Labels told from images by their voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.datasets import a_spec

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError
from medseg.layouts import CaseListing, list_cases
from medseg.layouts.tree import TreeLayout

NAMES = ("a", "b", "c")


def write(file: Path, values: int) -> None:
    rng = np.random.default_rng(values)
    array = rng.integers(0, values, (6, 6, 6)).astype(np.int16)
    array[0, 0, 0] = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), file)


def listed(root: Path) -> CaseListing:
    return list_cases(root, "auto")


def test_of_folders_of_equal_names_that_with_few_values_has_the_labels(
    tmp_path: Path,
) -> None:
    for name in NAMES:
        write(tmp_path / f"one/{name}.nii", 900)
        write(tmp_path / f"two/{name}.nii", 3)
    assert not TreeLayout().recognizes(tmp_path)
    listing = listed(tmp_path)
    assert {case.label.parent.name for case in listing.cases} == {"two"}
    assert listing.label_pattern == "two/**"
    assert "by their content" in listing.recognised[0]
    # The pattern finds the same without a look at a voxel.
    for file in (tmp_path / "two").iterdir():
        file.write_bytes(b"")
    found = find_cases(tmp_path, a_spec(labels=listing.label_pattern))
    assert [case.label.parent.name for case in found.cases] == ["two"] * 3


def test_in_folders_of_cases_the_name_with_few_values_is_the_label(
    tmp_path: Path,
) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}/FLAIR.nii", 900)
        write(tmp_path / f"{name}/wmh.nii", 2)
    listing = listed(tmp_path)
    assert {case.label.name for case in listing.cases} == {"wmh.nii"}
    assert listing.channel_names == ("FLAIR",)


def test_two_kinds_with_few_values_are_refused(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}/FLAIR.nii", 900)
        write(tmp_path / f"{name}/wmh.nii", 2)
        write(tmp_path / f"{name}/brain.nii", 3)
    with pytest.raises(DatasetError, match="--labels PATTERN") as caught:
        listed(tmp_path)
    assert "**/brain.*, **/wmh.*" in str(caught.value)


def test_images_alone_are_no_data_set(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}/t1.nii", 900)
        write(tmp_path / f"{name}/t2.nii", 800)
    with pytest.raises(DatasetError, match="none is called a label"):
        listed(tmp_path)
