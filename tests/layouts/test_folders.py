"""Two folders with files of the same names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.datasets import a_spec, faults_of, touch

from medseg.datasets.cases import find_cases
from medseg.layouts.folders import FoldersLayout
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestFoldersLayout(DatasetLayoutContract):
    layout = FoldersLayout()

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        for name in names:
            touch(
                root / f"images/{name}.nii.gz",
                root / f"labels/{name}_seg.nii.gz",
            )


def test_folders_pair_by_name_and_known_label_endings(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / f"images/{name}.png"
            for name in ("a", "b", "c", "d", "x_mask", "img_0001")
        )
    )
    touch(
        tmp_path / "labels/a.png",
        tmp_path / "labels/b_seg.tif",
        tmp_path / "labels/c_label.png",
        tmp_path / "labels/d_mask.png",
        tmp_path / "labels/x_mask.png",
        tmp_path / "labels/img_0001.png",
    )

    found = find_cases(tmp_path, a_spec())

    assert found.faults == ()
    assert {case.name: case.label.name for case in found.cases} == {
        "a": "a.png",
        "b": "b_seg.tif",
        "c": "c_label.png",
        "d": "d_mask.png",
        "x_mask": "x_mask.png",
        "img_0001": "img_0001.png",
    }


def test_folders_may_hold_numbered_channels_and_folders_below(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"images/p/{name}.nii" for name in ("a_0000", "a_0001")))
    touch(tmp_path / "labels/p/a.nii")

    (case,) = find_cases(tmp_path, a_spec(2)).cases

    assert case.name == "p_a"
    assert [part[0].name for part in case.scan.parts] == [
        "a_0000.nii",
        "a_0001.nii",
    ]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    touch(tmp_path / "images/a.nii", tmp_path / "labels/a.nii")
    (tmp_path / "labels").chmod(0)
    try:
        assert "cannot be read" in " ".join(
            faults_of(tmp_path, a_spec()).values()
        )
    finally:
        (tmp_path / "labels").chmod(0o700)
