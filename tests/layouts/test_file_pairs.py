"""Pairs of images and label maps."""

from __future__ import annotations

from pathlib import Path

from support.datasets import a_spec, faults_of, touch

from medseg.datasets.cases import find_cases


def test_every_half_pair_of_folders_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "images/alone.nii", tmp_path / "labels/orphan.nii")
    touch(
        tmp_path / "images/twice.nii",
        tmp_path / "images/twice.nrrd",
        tmp_path / "labels/twice.nii",
    )
    touch(
        tmp_path / "images/two.nii",
        tmp_path / "labels/two.nii",
        tmp_path / "labels/two_seg.nii",
    )
    (tmp_path / "images/dangling.nii").symlink_to(tmp_path / "nowhere")

    faults = faults_of(tmp_path, a_spec())

    assert "has no label" in faults["alone"]
    assert "has no image" in faults["orphan"]
    assert "several files" in faults["twice"]
    assert "several files" in faults["two"]
    assert (
        "link to something that does not exist" in faults["images/dangling.nii"]
    )


def test_the_half_pairs_of_the_dirty_hippocampus_folder_are_named(
    shared_data: Path,
) -> None:
    found = find_cases(shared_data / "hippocampus" / "dirty", a_spec())

    assert found.cases == ()
    assert {fault.where: fault.what.split()[-1] for fault in found.faults} == {
        "hippocampus_010": "image",
        "hippocampus_118": "label",
        "hippocampus_281": "image",
    }
