"""Labels that files hold by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import DatasetError
from medseg.layouts.contract import CaseListing
from medseg.layouts.label_names import (
    find_known,
    number_names,
    select_labels,
)


def a_listing() -> CaseListing:
    return CaseListing(Path("data"), has_fields=True)


def test_capitals_and_spaces_around_a_name_do_not_count() -> None:
    assert find_known(["LIVER ", "spleen"], {"Liver": 3}) == {"LIVER ": 3}


def test_labels_that_the_bundle_does_not_name_are_told_and_left_out() -> None:
    listing = a_listing()
    assert select_labels(
        ["liver", "skin", "spleen"], {"Liver": 3}, listing, "mask"
    ) == {"liver": 3}
    (warning,) = listing.warnings
    assert (
        warning
        == "masks that the bundle does not name count as background: skin, spleen"
    )


def test_a_data_set_with_none_of_the_labels_is_an_error_that_quotes_them_apart() -> (
    None
):
    with pytest.raises(DatasetError, match="holds no mask") as caught:
        select_labels(["skin"], {"Liver": 3}, a_listing(), "mask")
    assert "Liver" in caught.value.message
    assert "skin" not in caught.value.message
    assert caught.value.detail == "those there are skin"


def test_names_get_the_value_they_have_or_the_next_free_one() -> None:
    numbers = number_names(["Liver", "kidney", "LIVER", "skin"], {4: "kidney"})
    assert numbers == {"Liver": 5, "kidney": 4, "LIVER": 5, "skin": 6}
    assert number_names(["b", "a"], {}) == {"b": 1, "a": 2}
