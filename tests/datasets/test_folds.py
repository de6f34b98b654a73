"""Folds of the cases of a data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.datasets import a_spec, an_item, an_msd_list, some_cases

from medseg.bundle.spec import DataSpec
from medseg.datasets.cases import Case, Scan, find_cases
from medseg.datasets.folds import assign_folds, split_cases
from medseg.errors import DatasetError


def test_listed_folds_win(tmp_path: Path) -> None:
    cases = some_cases(6, fold=lambda n: n % 3)

    training, validation = split_cases(cases, DataSpec(), 2)

    assert [case.name for case in validation] == ["c2", "c5"]
    assert [case.name for case in training] == ["c0", "c1", "c3", "c4"]
    with pytest.raises(DatasetError, match=r"no fold 3.*0, 1, 2"):
        split_cases(cases, DataSpec(), 3)


def test_folds_of_only_some_cases_are_not_used_and_a_person_is_told(
    tmp_path: Path,
) -> None:
    items = [an_item(f"c{n}", **({"fold": 0} if n else {})) for n in range(10)]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert "1 of 10 cases have no fold" in found.warnings[0]
    assert set(assign_folds(found.cases, DataSpec())) == {0, 1, 2, 3, 4}


def test_no_fold_trains_on_everything() -> None:
    cases = some_cases(1)

    assert split_cases(cases, DataSpec(), None) == (tuple(cases), ())


@given(
    st.lists(st.integers(1, 6), min_size=5, max_size=60),
    st.integers(0, 99),
    st.randoms(),
)
def test_groups_stay_whole_folds_are_never_empty_and_order_does_not_matter(
    sizes: list[int], seed: int, random: Any
) -> None:
    data = DataSpec(seed=seed)
    cases = [
        Case(Scan(f"{group}-{n}", ()), Path(), None, f"g{group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    ]
    folds = dict(
        zip(
            (case.name for case in cases),
            assign_folds(cases, data),
            strict=True,
        )
    )
    shuffled = list(cases)
    random.shuffle(shuffled)

    assert set(folds.values()) == set(range(5))
    assert len({(case.group, folds[case.name]) for case in cases}) == len(sizes)
    assert folds == dict(
        zip(
            (case.name for case in shuffled),
            assign_folds(shuffled, data),
            strict=True,
        )
    )


def test_folds_are_balanced_differ_by_seed_and_hardly_change_with_one_more_case() -> (
    None
):
    cases = some_cases(101)
    before = assign_folds(cases[:100], DataSpec())
    after = assign_folds(cases, DataSpec())

    assert set(Counter(before).values()) == {20}
    assert before != assign_folds(cases[:100], DataSpec(seed=1))
    assert (
        sum(one != other for one, other in zip(before, after, strict=False))
        <= 5
    )


def test_too_few_groups_say_what_can_be_done() -> None:
    with pytest.raises(
        DatasetError, match=r"1 usable case cannot be split into 5 folds; add"
    ):
        split_cases(some_cases(1), DataSpec(), 0)
    with pytest.raises(DatasetError, match=r"set data\.folds to 3 or less"):
        split_cases(some_cases(3), DataSpec(), 0)
    with pytest.raises(DatasetError, match="all 3 cases are in fold 0"):
        split_cases(some_cases(3, fold=lambda n: 0), DataSpec(), 0)
    with pytest.raises(DatasetError, match="no usable case"):
        split_cases([], DataSpec(), None)


def test_one_case_cannot_be_validated(shared_data: Path) -> None:
    cases = find_cases(shared_data / "msd_spleen_crop", a_spec()).cases

    assert [case.name for case in cases] == ["spleen_2"]
    with pytest.raises(DatasetError, match="1 usable case"):
        split_cases(cases, DataSpec(), 0)
