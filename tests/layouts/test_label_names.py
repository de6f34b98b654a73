"""Names of labels as they are compared."""

from __future__ import annotations

import pytest

from medseg.layouts.label_names import (
    find_known,
    normalize_label,
    number_names,
)


@pytest.mark.parametrize(
    "name",
    [
        "Left Kidney",
        "kidney_left",
        "KIDNEY-L",
        "kidney (lt)",
        "LeftKidney",
        "leftkidney",
        " l kidney ",
    ],
)
def test_a_side_may_be_written_in_many_ways(name: str) -> None:
    assert normalize_label(name) == normalize_label("left kidney")
    assert normalize_label(name) != normalize_label("right kidney")
    assert normalize_label(name) != normalize_label("kidney")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("vertebrae L1", "vertebrae_L2"),
        ("liver", "liver tumor"),
        ("lobe 1", "lobe 11"),
        ("bright spot", "right spot"),
        ("肝", "腎"),
        ("+", "-"),
        ("", "liver"),
    ],
)
def test_other_structures_stay_others(name: str, other: str) -> None:
    assert normalize_label(name) != normalize_label(other)


def test_equal_names_come_before_names_that_are_alike() -> None:
    wanted = {"lesion-1": 1, "lesion_1": 2}
    assert find_known(["LESION-1", "lesion_1"], wanted) == {
        "LESION-1": 1,
        "lesion_1": 2,
    }
    assert find_known(["Tumour", "x"], {"tumor": 3}) == {"Tumour": 3}


def test_names_that_are_alike_get_one_number() -> None:
    names = ["kidney_L", "Left kidney", "liver"]
    assert number_names(names, {4: "liver"}) == {
        "kidney_L": 5,
        "Left kidney": 5,
        "liver": 4,
    }
