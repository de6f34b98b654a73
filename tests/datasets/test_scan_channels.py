"""Scans whose channels are files called after them, as training finds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import touch

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import ScanList, find_scans

NAMES = ("flair", "t1")
BRATS = ("FLAIR", "T1w", "T1gd", "T2w")


def find(root: Path, names: tuple[str, ...] = NAMES) -> ScanList:
    specs = [ChannelSpec(name=name) for name in names]
    return find_scans(root, len(names), channel_specs=specs)


def parts(found: ScanList) -> dict[str, list[str]]:
    return {
        scan.name: [part[0].name for part in scan.parts] for scan in found.scans
    }


def test_files_called_after_the_channels_are_one_scan(tmp_path: Path) -> None:
    for number in ("001", "002"):
        for role in ("t1", "FLAIR", "t2", "seg"):
            touch(tmp_path / f"B_{number}/B_{number}_{role}.nii.gz")
    found = find(tmp_path)
    assert list(parts(found)) == ["B_001", "B_002"]
    assert parts(found)["B_001"] == ["B_001_FLAIR.nii.gz", "B_001_t1.nii.gz"]
    assert found.left_out == ()
    assert "4 files beside the channels" in found.notes[0]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        # BraTS 2020 and 2023, a folder per case
        (["HGG/B1/B1_flair", "HGG/B1/B1_t1", "HGG/B1/B1_t1ce", "HGG/B1/B1_t2"], "HGG_B1"),
        (["B-5-1/B-5-1-t2f", "B-5-1/B-5-1-t1n", "B-5-1/B-5-1-t1c", "B-5-1/B-5-1-t2w"], "B-5-1"),
        # names alone
        (["a_FLAIR", "a_T1", "a_T1post", "a_T2"], "a"),
        # a folder per channel
        (["FLAIR/p1", "T1/p1", "T1c/p1", "T2/p1"], "p1"),
        # BIDS, with entities and several folders
        (
            [
                "sub-1/ses-2/anat/sub-1_ses-2_FLAIR",
                "sub-1/ses-2/anat/sub-1_ses-2_T1w",
                "sub-1/ses-2/anat/sub-1_ses-2_ce-gad_T1w",
                "sub-1/ses-2/other/sub-1_ses-2_T2w",
            ],
            "sub-1_ses-2",
        ),
    ],
)  # fmt: skip
def test_other_words_for_a_channel_are_known_as_in_training(
    tmp_path: Path, files: list[str], name: str
) -> None:
    touch(*(tmp_path / f"{file}.nii.gz" for file in files))
    names = (*BRATS[:2], "ce-gad_T1w", *BRATS[3:])
    found = find(tmp_path, names if name.startswith("sub") else BRATS)
    expected = [f"{Path(file).name}.nii.gz" for file in files]
    assert parts(found) == {name: expected}
    assert (found.left_out, found.notes) == ((), ())


def test_the_runs_of_a_session_share_what_was_taken_once(
    tmp_path: Path,
) -> None:
    for end in ("run-1_T1w", "run-2_T1w", "FLAIR"):
        touch(tmp_path / f"sub-1/anat/sub-1_{end}.nii.gz")
    touch(tmp_path / "sub-2/func/sub-2_task-rest_bold.nii.gz")
    found = find(tmp_path, ("FLAIR", "T1w"))
    flair = "sub-1_FLAIR.nii.gz"
    assert parts(found) == {
        "sub-1_run-1": [flair, "sub-1_run-1_T1w.nii.gz"],
        "sub-1_run-2": [flair, "sub-1_run-2_T1w.nii.gz"],
    }
    assert found.left_out == ()
    assert "bold" in found.notes[0]


def test_a_subject_is_a_folder_to_search_too(tmp_path: Path) -> None:
    for end in ("T1w", "FLAIR"):
        touch(tmp_path / f"sub-1/ses-1/anat/sub-1_ses-1_{end}.nii.gz")
    found = find(tmp_path / "sub-1", ("FLAIR", "T1w"))
    assert list(parts(found)) == ["sub-1_ses-1"]


def test_a_missing_channel_leaves_out_that_case_alone_and_says_how(
    tmp_path: Path,
) -> None:
    for name in ("a_flair", "a_t1", "b_t1", "c_t1", "c_T1w", "c_flair"):
        touch(tmp_path / f"{name}.nii.gz")
    found = find(tmp_path, ("FLAIR", "T1 weighted"))
    assert list(parts(found)) == ["a"]
    missing, doubled = found.left_out
    assert (missing.name, doubled.name) == ("b", "c")
    assert missing.detail == "its files are b_t1.nii.gz"
    expected = "has no image of the channel FLAIR (found: T1 weighted); give"
    assert missing.reason.startswith(expected)
    assert "(_FLAIR, _T1 weighted)" in missing.reason
    assert "_0000 to _0001" in missing.reason
    assert "the columns FLAIR,T1 weighted" in missing.reason
    assert "several images that may be the channel T1 w" in doubled.reason


def test_cases_that_all_lack_a_channel_fail_once_each(tmp_path: Path) -> None:
    for case in ("a", "b"):
        for role in ("flair", "t1", "t1ce"):
            touch(tmp_path / f"{case}/{case}_{role}.nii.gz")
    found = find(tmp_path, BRATS)
    assert found.scans == ()
    assert [entry.name for entry in found.left_out] == ["a", "b"]
    assert "no image of the channel T2w" in found.left_out[0].reason


def test_a_name_that_goes_on_is_no_case_of_its_own(tmp_path: Path) -> None:
    for role in ("T1", "FLAIR", "post_T1"):
        touch(tmp_path / f"a_{role}.nii.gz")
    found = find(tmp_path)
    assert list(parts(found)) == ["a"]
    assert found.left_out == ()


def test_another_visit_is_a_case_of_its_own(tmp_path: Path) -> None:
    for name in ("p1_T1", "p1_FLAIR", "p1_2_T1", "q/T1", "q/FLAIR", "q/old_T1"):
        touch(tmp_path / f"{name}.nii.gz")
    found = find(tmp_path)
    assert list(parts(found)) == ["p1", "q"]
    assert [entry.name for entry in found.left_out] == ["p1_2"]
    assert found.notes[0].endswith("old_T1.nii.gz")


def test_what_was_derived_is_no_scan_beside_its_own(tmp_path: Path) -> None:
    for folder in ("", "derivatives/prep/"):
        for end in ("T1w", "FLAIR"):
            touch(tmp_path / f"{folder}sub-1/anat/sub-1_{end}.nii.gz")
    touch(tmp_path / "dataset_description.json")
    assert list(parts(find(tmp_path))) == ["sub-1"]
    derived = find(tmp_path / "derivatives")
    assert list(parts(derived)) == ["prep_sub-1"]


def test_names_that_are_no_channels_change_nothing(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_t1"):
        touch(tmp_path / f"{name}.nii.gz")
    assert parts(find(tmp_path)) == parts(find_scans(tmp_path, 2))


def test_folders_may_hold_files_of_the_channels_names_alone(
    tmp_path: Path,
) -> None:
    for number in ("1", "2"):
        for role in ("T1", "FLAIR"):
            touch(tmp_path / f"P{number}/{role}.nii.gz")
    assert list(parts(find(tmp_path))) == ["P1", "P2"]
    assert list(parts(find(tmp_path / "P1"))) == ["P1"]


# --- numbers ------------------------------------------------------------------------------


def test_numbers_fail_once_for_each_case(tmp_path: Path) -> None:
    for name in ("a_0000", "a_0001", "b_0001", "c_0000"):
        touch(tmp_path / f"{name}.nii.gz")
    found = find(tmp_path)
    assert list(parts(found)) == ["a"]
    b, c = found.left_out
    assert (b.name, c.name) == ("b", "c")
    assert b.reason.startswith(
        "has no channel _0000; the bundle has 2 channels (flair, t1); give"
    )
    assert "has no channel _0001" in c.reason


def test_numbers_beyond_the_bundle_need_names(tmp_path: Path) -> None:
    root = tmp_path / "imagesTs"
    for number in range(4):
        touch(root / f"a_000{number}.nii.gz")
    (left_out,) = find(root).left_out
    assert "channels up to _0003, and no dataset.json says" in left_out.reason
    listing = tmp_path / "dataset.json"
    listing.write_text(
        '{"channel_names": {"0": "T1", "1": "T1Gd", "2": "T2", "3": "FLAIR"},'
        ' "labels": {"background": 0, "tumour": 1}}'
    )
    found = find(root)
    assert parts(found) == {"a": ["a_0003.nii.gz", "a_0000.nii.gz"]}
    assert "a_0001.nii.gz, a_0002.nii.gz" in found.notes[0]
    listing.write_text("{")
    assert "cannot be understood" in find(root).notes[0]
