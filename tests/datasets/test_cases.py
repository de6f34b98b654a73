"""The cases of a data set, their groups, and what is odd about them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.datasets import a_spec, an_item, an_msd_list, touch

from medseg.datasets.cases import Scan, find_cases
from medseg.errors import DatasetError


def test_group_by_wins_and_must_exist(tmp_path: Path) -> None:
    items = [
        an_item("a", group=1, Site="x"),
        an_item("b", group=2, Site="x"),
        an_item("c"),
    ]
    root = an_msd_list(tmp_path, items)

    found = find_cases(root, a_spec(group_by="Site"))

    assert [case.group for case in found.cases] == ["x", "x"]
    assert "data.group_by" in found.faults[0].what
    with pytest.raises(DatasetError, match="its fields are group, site"):
        find_cases(root, a_spec(group_by="patient"))


def test_group_by_is_refused_where_no_case_can_have_fields(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "images/a.nii", tmp_path / "labels/a.nii")

    with pytest.raises(DatasetError, match="group_pattern"):
        find_cases(tmp_path, a_spec(group_by="patient"))


def test_group_pattern_takes_the_group_from_the_name(tmp_path: Path) -> None:
    root = an_msd_list(
        tmp_path, [an_item("p1_left"), an_item("p1_right"), an_item("other")]
    )

    found = find_cases(root, a_spec(group_pattern=r"^(p\d+)_"))

    assert [case.group for case in found.cases] == ["other", "p1", "p1"]
    assert "1 of 3 names" in found.warnings[0]


def test_the_hippocampus_set_has_195_cases_in_its_own_folds(
    shared_data: Path,
) -> None:
    found = find_cases(shared_data / "hippocampus", a_spec())

    assert len(found.cases) == 195
    assert found.faults == ()
    assert found.warnings == ()
    assert sorted(Counter(case.fold for case in found.cases).items()) == [
        (0, 35), (1, 43), (2, 36), (3, 45), (4, 36),
    ]  # fmt: skip
    assert len({case.group for case in found.cases}) < 195


def test_a_value_to_ignore_that_the_bundle_does_not_have_is_told(
    tmp_path: Path,
) -> None:
    said = {"0": "background", "1": "thing", "2": "ignore"}
    root = an_msd_list(tmp_path, [an_item("a")], labels=said)
    (warning,) = find_cases(root, a_spec()).warnings
    assert "set data.ignore to 2" in warning
    (warning,) = find_cases(root, a_spec(ignore=3)).warnings
    assert "the bundle has 3; set data.ignore to 2" in warning
    assert find_cases(root, a_spec(ignore=2)).warnings == ()


def test_a_listed_group_wins_over_the_group_pattern(tmp_path: Path) -> None:
    items = [
        an_item("p1_left", patient="anna"),
        an_item("p1_right", patient="bert"),
    ]
    root = an_msd_list(
        tmp_path, [*items, an_item("p2_left"), an_item("p2_right")]
    )

    found = find_cases(root, a_spec(group_pattern=r"^(p\d+)_"))

    assert [case.group for case in found.cases] == ["anna", "bert", "p2", "p2"]


def test_the_field_group_goes_before_the_field_patient(tmp_path: Path) -> None:
    items = [
        an_item("a", patient="p", group="g"),
        an_item("b", patient="p", group="h"),
    ]

    assert [
        c.group
        for c in find_cases(an_msd_list(tmp_path, items), a_spec()).cases
    ] == ["g", "h"]


def test_listed_folds_that_split_a_group_are_warned_of(tmp_path: Path) -> None:
    items = [
        an_item("a", patient="p", fold=0),
        an_item("b", patient="p", fold=1),
    ]
    (warning,) = find_cases(
        an_msd_list(tmp_path / "torn", items), a_spec()
    ).warnings
    assert "split 1 groups" in warning
    items = [
        an_item("a", patient="p", fold=0),
        an_item("b", patient="q", fold=1),
    ]
    assert (
        find_cases(an_msd_list(tmp_path / "whole", items), a_spec()).warnings
        == ()
    )


def test_a_scan_is_a_picture_if_all_of_its_files_are() -> None:
    picture = Scan("a", ((Path("a.png"),), (Path("b.png"),)))
    assert picture.is_picture
    assert picture.files == (Path("a.png"), Path("b.png"))
    assert not Scan("a", ((Path("a.png"),), (Path("b.nii"),))).is_picture


def test_one_patient_in_two_forms_of_unicode_is_one_group(
    tmp_path: Path,
) -> None:
    items = [
        an_item("a", patient="M\u00fcller"),
        an_item("b", patient="Mu\u0308ller"),
    ]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert {case.group for case in found.cases} == {"M\u00fcller"}


def test_cases_keep_their_letters_and_stay_in_the_folds_they_were_in(
    tmp_path: Path,
) -> None:
    items = [an_item(name) for name in ("Müller 1", "肝", "脾", "plain")]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    names = [case.name for case in found.cases]
    assert names == ["Müller_1", "plain", "肝", "脾"]
    groups = [case.group for case in found.cases]
    assert groups[:2] == ["M_ller_1", "plain"]
    assert all(group.startswith("_-") for group in groups[2:])


def test_one_name_in_two_forms_of_unicode_is_listed_twice(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"{name}.nii" for name in "abcd"))
    (tmp_path / "cases.csv").write_text(
        "name,image,label\n\u00e9,a.nii,b.nii\ne\u0301,c.nii,d.nii\n",
        encoding="utf-8",
    )

    found = find_cases(tmp_path, a_spec())

    assert len(found.faults) == 2
    assert "2 cases have this name" in found.faults[0].what


def test_files_are_found_whatever_form_of_unicode_a_list_has(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "Mu\u0308ller/i\u0308.nii", tmp_path / "Müller_seg.nii")
    (tmp_path / "cases.csv").write_text(
        "image,label\nM\u00fcller/\u00ef.nii,Mu\u0308ller_seg.nii\n",
        encoding="utf-8",
    )

    found = find_cases(tmp_path, a_spec())

    assert found.faults == ()
    assert found.cases[0].name == "\u00ef"
    assert found.cases[0].label.is_file()


def test_an_image_and_its_label_pair_in_any_form_of_unicode(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "images/Mu\u0308.nii", tmp_path / "labels/M\u00fc.nii")

    found = find_cases(tmp_path, a_spec())

    assert [case.name for case in found.cases] == ["M\u00fc"]
    assert found.faults == ()
