"""Scans whose channels are files called after them."""

from __future__ import annotations

from pathlib import Path

from support.datasets import touch

from medseg.datasets.scans import find_scans

NAMES = ("flair", "t1")


def test_files_called_after_the_channels_are_one_scan(tmp_path: Path) -> None:
    for number in ("001", "002"):
        for role in ("t1", "FLAIR", "t2", "seg"):
            touch(tmp_path / f"B_{number}/B_{number}_{role}.nii.gz")
    found = find_scans(tmp_path, 2, channel_names=NAMES)
    assert [scan.name for scan in found.scans] == ["B_001", "B_002"]
    parts = [part[0].name for part in found.scans[0].parts]
    assert parts == ["B_001_FLAIR.nii.gz", "B_001_t1.nii.gz"]
    assert found.left_out == ()
    assert "4 files beside the channels" in found.notes[0]


def test_a_scan_without_one_of_its_channels_is_left_out(tmp_path: Path) -> None:
    for name in ("a_flair", "a_t1", "b_t1"):
        touch(tmp_path / f"{name}.nii.gz")
    found = find_scans(tmp_path, 2, channel_names=NAMES)
    assert [scan.name for scan in found.scans] == ["a"]
    (left_out,) = found.left_out
    assert (left_out.name, left_out.detail) == ("b", "flair")
    assert "no image of 1 of the bundle's channels" in left_out.reason


def test_names_that_are_no_channels_change_nothing(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_t1"):
        touch(tmp_path / f"{name}.nii.gz")
    assert find_scans(tmp_path, 2, channel_names=NAMES) == find_scans(
        tmp_path, 2
    )


def test_folders_may_hold_files_of_the_channels_names_alone(
    tmp_path: Path,
) -> None:
    for number in ("1", "2"):
        for role in ("T1", "FLAIR"):
            touch(tmp_path / f"P{number}/{role}.nii.gz")
    found = find_scans(tmp_path, 2, channel_names=NAMES)
    assert [scan.name for scan in found.scans] == ["P1", "P2"]
