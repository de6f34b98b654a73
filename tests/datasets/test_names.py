"""Names of cases and scans in results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.names import (
    LONGEST,
    abbreviate,
    distinct_names,
    make_left_out_name,
    make_printable,
    make_safe_name,
    make_series_name,
    split_channel,
    split_suffix,
)
from medseg.io import Series


@given(st.lists(st.text(max_size=150), max_size=30, unique=True))
def test_names_are_plain_distinct_and_do_not_depend_on_the_order(
    texts: list[str],
) -> None:
    found = distinct_names(texts, texts)

    assert len({name.casefold() for name in found}) == len(texts)
    assert all(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name)
        for name in found
    )
    assert found == distinct_names(texts[::-1], texts[::-1])[::-1]


def test_endings_are_those_that_readers_know() -> None:
    assert split_suffix("a.b.NII.GZ") == ("a.b", ".nii.gz")
    assert split_suffix("a.dcm.png") == ("a.dcm", ".png")
    assert split_suffix("a.txt") == ("a.txt", "")
    assert split_suffix(".nii") == (".nii", "")
    assert make_safe_name("../..") == "_"
    assert make_safe_name("-rf") == "rf"


def test_a_safe_name_fits_beside_a_suffix_and_says_something() -> None:
    assert len(make_safe_name("x" * 300)) == LONGEST
    assert make_safe_name("x" * 99 + ". ") == "x" * 99
    assert make_safe_name("...") == "scan"


def test_a_name_that_is_tagged_keeps_its_length() -> None:
    names = distinct_names(["x" * 200] * 2, ["a", "b"])

    assert {len(name) for name in names} == {LONGEST}
    assert names[0] != names[1]


def test_a_channel_number_has_four_digits() -> None:
    assert split_channel("liver_0001") == ("liver", 1)
    assert split_channel("liver_001") == ("liver_001", None)
    assert split_channel("_0001") == ("_0001", None)


@pytest.mark.parametrize(
    "where", ["DOE JANE/IM01", "DOE JANE", "DOE JANE/IM01.dcm", "a/DOE.txt"]
)
def test_what_may_be_dicom_and_cannot_be_used_is_named_by_a_hash(
    where: str,
) -> None:
    assert re.fullmatch(r"file-[0-9a-f]{10}", make_left_out_name(where))
    assert make_left_out_name(where) != make_left_out_name(f"{where}2")


def test_an_image_that_cannot_be_used_is_named_as_its_result_would_be() -> None:
    assert make_left_out_name("a/b.nii.gz") == "a_b"


def test_a_series_without_a_uid_is_named_by_its_path_below_what_was_searched() -> (
    None
):
    def a_series(root: Path, uid: str) -> Series:
        return Series((root / "DOE/1", root / "DOE/2"), uid, "CT")

    here, there = Path("/data"), Path("/elsewhere")

    assert make_series_name(a_series(here, ""), here) == make_series_name(
        a_series(there, ""), there
    )
    assert make_series_name(a_series(here, "1.2"), here) != make_series_name(
        a_series(here, "1.3"), here
    )
    assert "DOE" not in make_series_name(a_series(here, ""), here)


def test_commands_to_a_terminal_are_not_printable() -> None:
    assert make_printable("a\x1b[31mb\nc\udcff") == "a?[31mb\nc?"


def test_a_few_of_many_names() -> None:
    assert abbreviate("abc", 3) == "a, b, c"
    assert abbreviate("abcd", 3) == "a, b, c and 1 more"
    assert abbreviate("") == ""


def test_names_that_differ_in_capitals_alone_are_both_tagged() -> None:
    names = distinct_names(["Liver", "liver", "skin"], ["a", "b", "c"])
    assert names[2] == "skin"
    assert re.fullmatch(r"Liver-[0-9a-f]{6}", names[0])
    assert re.fullmatch(r"liver-[0-9a-f]{6}", names[1])
