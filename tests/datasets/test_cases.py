"""The cases of a data set: their groups and their folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.datasets import a_spec, an_item, an_msd_list, some_cases, touch

from medseg.bundle.spec import DataSpec
from medseg.datasets.cases import Case, Scan, assign_folds, find_cases, split_cases
from medseg.errors import DatasetError


def test_group_by_wins_and_must_exist(tmp_path: Path) -> None:
    items = [an_item("a", group=1, Site="x"), an_item("b", group=2, Site="x"), an_item("c")]
    root = an_msd_list(tmp_path, items)

    found = find_cases(root, a_spec(group_by="Site"))

    assert [case.group for case in found.cases] == ["x", "x"]
    assert "data.group_by" in found.faults[0].what
    with pytest.raises(DatasetError, match="its fields are group, site"):
        find_cases(root, a_spec(group_by="patient"))


def test_group_by_is_refused_where_no_case_can_have_fields(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.nii", tmp_path / "labels/a.nii")

    with pytest.raises(DatasetError, match="group_pattern"):
        find_cases(tmp_path, a_spec(group_by="patient"))


def test_group_pattern_takes_the_group_from_the_name(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("p1_left"), an_item("p1_right"), an_item("other")])

    found = find_cases(root, a_spec(group_pattern=r"^(p\d+)_"))

    assert [case.group for case in found.cases] == ["other", "p1", "p1"]
    assert "1 of 3 names" in found.warnings[0]


def test_listed_folds_win(tmp_path: Path) -> None:
    cases = some_cases(6, fold=lambda n: n % 3)

    training, validation = split_cases(cases, DataSpec(), 2)

    assert [case.name for case in validation] == ["c2", "c5"]
    assert [case.name for case in training] == ["c0", "c1", "c3", "c4"]
    with pytest.raises(DatasetError, match=r"no fold 3.*0, 1, 2"):
        split_cases(cases, DataSpec(), 3)


def test_folds_of_only_some_cases_are_not_used_and_a_person_is_told(tmp_path: Path) -> None:
    items = [an_item(f"c{n}", **({"fold": 0} if n else {})) for n in range(10)]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert "1 of 10 cases have no fold" in found.warnings[0]
    assert set(assign_folds(found.cases, DataSpec())) == {0, 1, 2, 3, 4}


def test_no_fold_trains_on_everything() -> None:
    cases = some_cases(1)

    assert split_cases(cases, DataSpec(), None) == (tuple(cases), ())


@given(st.lists(st.integers(1, 6), min_size=5, max_size=60), st.integers(0, 99), st.randoms())
def test_groups_stay_whole_folds_are_never_empty_and_order_does_not_matter(
    sizes: list[int], seed: int, random: Any
) -> None:
    data = DataSpec(seed=seed)
    cases = [
        Case(Scan(f"{group}-{n}", ()), Path(), None, f"g{group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    ]
    folds = dict(zip((case.name for case in cases), assign_folds(cases, data), strict=True))
    shuffled = list(cases)
    random.shuffle(shuffled)

    assert set(folds.values()) == set(range(5))
    assert len({(case.group, folds[case.name]) for case in cases}) == len(sizes)
    assert folds == dict(
        zip((case.name for case in shuffled), assign_folds(shuffled, data), strict=True)
    )


def test_folds_are_balanced_differ_by_seed_and_hardly_change_with_one_more_case() -> None:
    cases = some_cases(101)
    before = assign_folds(cases[:100], DataSpec())
    after = assign_folds(cases, DataSpec())

    assert set(Counter(before).values()) == {20}
    assert before != assign_folds(cases[:100], DataSpec(seed=1))
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 5


def test_too_few_groups_say_what_can_be_done() -> None:
    with pytest.raises(DatasetError, match=r"1 usable case cannot be split into 5 folds; add"):
        split_cases(some_cases(1), DataSpec(), 0)
    with pytest.raises(DatasetError, match=r"set data\.folds to 3 or less"):
        split_cases(some_cases(3), DataSpec(), 0)
    with pytest.raises(DatasetError, match="all 3 cases are in fold 0"):
        split_cases(some_cases(3, fold=lambda n: 0), DataSpec(), 0)
    with pytest.raises(DatasetError, match="no usable case"):
        split_cases([], DataSpec(), None)


def test_the_hippocampus_set_has_195_cases_in_its_own_folds(shared_data: Path) -> None:
    found = find_cases(shared_data / "hippocampus", a_spec())

    assert len(found.cases) == 195
    assert found.faults == ()
    assert found.warnings == ()
    assert sorted(Counter(case.fold for case in found.cases).items()) == [
        (0, 35), (1, 43), (2, 36), (3, 45), (4, 36),
    ]  # fmt: skip
    assert len({case.group for case in found.cases}) < 195


def test_one_case_cannot_be_validated(shared_data: Path) -> None:
    cases = find_cases(shared_data / "msd_spleen_crop", a_spec()).cases

    assert [case.name for case in cases] == ["spleen_2"]
    with pytest.raises(DatasetError, match="1 usable case"):
        split_cases(cases, DataSpec(), 0)


def test_a_value_to_ignore_that_the_bundle_does_not_have_is_told(tmp_path: Path) -> None:
    said = {"0": "background", "1": "thing", "2": "ignore"}
    root = an_msd_list(tmp_path, [an_item("a")], labels=said)
    (warning,) = find_cases(root, a_spec()).warnings
    assert "set data.ignore to 2" in warning
    (warning,) = find_cases(root, a_spec(ignore=3)).warnings
    assert "the bundle has 3; set data.ignore to 2" in warning
    assert find_cases(root, a_spec(ignore=2)).warnings == ()


def test_a_listed_group_wins_over_the_group_pattern(tmp_path: Path) -> None:
    items = [an_item("p1_left", patient="anna"), an_item("p1_right", patient="bert")]
    root = an_msd_list(tmp_path, [*items, an_item("p2_left"), an_item("p2_right")])

    found = find_cases(root, a_spec(group_pattern=r"^(p\d+)_"))

    assert [case.group for case in found.cases] == ["anna", "bert", "p2", "p2"]


def test_the_field_group_goes_before_the_field_patient(tmp_path: Path) -> None:
    items = [an_item("a", patient="p", group="g"), an_item("b", patient="p", group="h")]

    assert [c.group for c in find_cases(an_msd_list(tmp_path, items), a_spec()).cases] == ["g", "h"]


def test_listed_folds_that_split_a_group_are_warned_of(tmp_path: Path) -> None:
    items = [an_item("a", patient="p", fold=0), an_item("b", patient="p", fold=1)]
    (warning,) = find_cases(an_msd_list(tmp_path / "torn", items), a_spec()).warnings
    assert "split 1 groups" in warning
    items = [an_item("a", patient="p", fold=0), an_item("b", patient="q", fold=1)]
    assert find_cases(an_msd_list(tmp_path / "whole", items), a_spec()).warnings == ()


def test_a_scan_is_a_picture_if_all_of_its_files_are() -> None:
    picture = Scan("a", ((Path("a.png"),), (Path("b.png"),)))
    assert picture.is_picture
    assert picture.files == (Path("a.png"), Path("b.png"))
    assert not Scan("a", ((Path("a.png"),), (Path("b.nii"),))).is_picture
