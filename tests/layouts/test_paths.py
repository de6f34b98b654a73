"""Paths that lists of cases hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medseg.errors import ScanError
from medseg.layouts.paths import parse_path


def test_a_path_is_relative_to_its_list_unless_it_says_otherwise() -> None:
    assert parse_path(Path("/data"), "image", "a/b.nii") == Path(
        "/data/a/b.nii"
    )
    assert parse_path(Path("/data"), "image", "/other/b.nii") == Path(
        "/other/b.nii"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "'label' must be a path, is nothing"),
        (3, "'label' must be a path, is a number"),
        (["a"], "'label' must be a path, is a list"),
        (" ", "'label' must be a path"),
        ("a\0b", "'label' must be a path"),
        ("a\nb", "'label' must be a path"),
    ],
)
def test_what_is_no_path_is_refused_and_not_quoted_in_the_message(
    text: Any, message: str
) -> None:
    with pytest.raises(ScanError) as caught:
        parse_path(Path("/data"), "label", text)
    assert caught.value.message == message
