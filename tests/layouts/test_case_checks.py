"""Names of listed cases, and what is wrong with them by their files' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.datasets import a_spec, an_item, an_msd_list, faults_of, touch

from medseg.datasets.cases import find_cases


def test_a_wrong_number_of_channel_files_is_a_fault(tmp_path: Path) -> None:
    item = {"image": ["x_0000.nii", "x_0001.nii"], "label": "y.nii"}

    found = find_cases(an_msd_list(tmp_path, [item]), a_spec(3))

    assert found.cases == ()
    assert "2 channel files and the bundle 3" in found.faults[0].what
    assert found.faults[0].where == "x"


def test_equal_file_names_are_told_apart_by_their_folders(
    tmp_path: Path,
) -> None:
    items = [
        {
            "image": f"scans/{patient}/ct.nii",
            "label": f"scans/{patient}/mask.nii",
        }
        for patient in ("p1", "p2")
    ]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert [case.name for case in found.cases] == ["p1_ct", "p2_ct"]


def test_links_in_circles_and_folders_for_labels_are_faults(
    tmp_path: Path,
) -> None:
    root = an_msd_list(tmp_path, [an_item("a"), an_item("b")])
    for file in ("imagesTr/a.nii.gz", "labelsTr/b.nii.gz"):
        (root / file).unlink()
    (root / "imagesTr/a.nii.gz").symlink_to(root / "imagesTr/a.nii.gz")
    (root / "labelsTr/b.nii.gz").mkdir()

    faults = faults_of(root, a_spec())

    assert "does not exist" in faults["a"]
    assert "is a folder" in faults["b"]


def test_a_file_used_twice_is_a_fault_of_the_later_case(tmp_path: Path) -> None:
    again = {
        "image": "imagesTr/../imagesTr/a.nii.gz",
        "label": "labelsTr/b.nii.gz",
    }
    same = {"image": "imagesTr/c.nii.gz", "label": "imagesTr/c.nii.gz"}

    found = find_cases(
        an_msd_list(tmp_path, [an_item("a"), again, same]), a_spec()
    )

    assert [case.label.name for case in found.cases] == ["a.nii.gz"]
    assert any(
        "the case a uses a.nii.gz" in fault.detail for fault in found.faults
    )
    assert any("lists one file twice" in fault.what for fault in found.faults)


@pytest.mark.parametrize("fold", [-1, 1.5, True, "one", [0]])
def test_a_fold_must_be_a_whole_number(tmp_path: Path, fold: Any) -> None:
    assert (
        "fold"
        in faults_of(
            an_msd_list(tmp_path, [an_item("a", fold=fold)]), a_spec()
        )["a"]
    )


def test_names_from_a_table_become_plain_file_names(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.nii", "b.nii", "la.nii", "lb.nii")))
    (tmp_path / "cases.csv").write_text(
        "image,label,name\na.nii,la.nii,../../etc/x\nb.nii,lb.nii,..\n"
    )

    names = [case.name for case in find_cases(tmp_path, a_spec()).cases]

    assert names == ["_.._etc_x", "scan"]


def test_patients_with_equal_file_names_get_names_of_their_own(
    shared_data: Path,
) -> None:
    found = find_cases(shared_data / "sts_ct_mr_pet", a_spec())

    assert found.cases[0].name == "STS_002_CT_image"
    assert "40 of the image files" in found.warnings[0]
