"""What names of channels say."""

from __future__ import annotations

import pytest

from medseg.layouts.channel_names import (
    find_channels,
    guess_modality,
    is_same_channel,
    read_modality,
    read_sequence,
)


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("CT", "CT"),
        ("portal CT", "CT"),
        ("MRI", "MR"),
        ("T1w", "MR"),
        ("T2-FLAIR", "MR"),
        ("PET", "PT"),
        ("zscore", None),
        ("noNorm", None),
        ("nonCT", None),
        ("non-CT", None),
        ("post", None),
        ("red", None),
    ],
)
def test_a_modality_is_read_where_the_name_states_it(
    name: str, modality: str | None
) -> None:
    assert read_modality(name) == modality


def test_a_guess_goes_by_hints_that_are_not_certain() -> None:
    assert guess_modality("cine") == "MR"
    assert read_modality("cine") is None


@pytest.mark.parametrize(
    ("name", "other", "is_same"),
    [
        ("T1", "T1w", True),
        ("T1", "t1n", True),
        ("t1ce", "T1 Gd", True),
        ("ce-gad_T1w", "T1+C", True),
        ("FLAIR", "t2f", True),
        ("MRI", "mr", True),
        ("PET", "PT", True),
        ("T1", "T1c", False),
        ("T1", "T2", False),
        ("T2", "FLAIR", False),
        ("MRI", "T1", False),
        ("CT arterial", "CT venous", False),
        ("T1 axial", "T1 sagittal", False),
        ("zscore", "noNorm", False),
    ],
)
def test_other_words_for_one_channel(
    name: str, other: str, is_same: bool
) -> None:
    assert is_same_channel(name, other) is is_same
    assert is_same_channel(other, name) is is_same


def test_contrast_is_part_of_a_sequence() -> None:
    assert str(read_sequence("t1gd")) == "T1 with contrast"
    assert str(read_sequence("MPRAGE")) == "T1"
    assert read_sequence("CT") is None
    assert read_sequence("T1 FLAIR") is None
    assert str(read_sequence("T2 FLAIR")) == "FLAIR"


def test_channels_are_found_by_any_word_for_them_if_only_one_is_meant() -> None:
    assert find_channels(["T1", "FLAIR"], ["FLAIR", "T1w"]) == ("T1w", "FLAIR")
    assert find_channels(["T1w"], ["T1", "T1w"]) == ("T1w",)
    assert find_channels(["t1n"], ["T1", "T1w"]) is None
    assert find_channels(["T1", "t1n"], ["T1w"]) is None
    assert find_channels(["T2"], ["T1w"]) is None
