"""What the names of folders say of the files in them."""

from __future__ import annotations

import pytest

from medseg.layouts.tree_names import strip_place


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("case1_flair", "flair"),
        ("case1flair", "flair"),
        ("case10_flair", "case10_flair"),
        ("case1", ""),
        ("flair", "flair"),
    ],
)
def test_a_folder_gives_its_name_to_no_file_of_another_number(
    text: str, left: str
) -> None:
    assert strip_place(text, ("HGG", "case1")) == left
    assert strip_place(text, ()) == text
