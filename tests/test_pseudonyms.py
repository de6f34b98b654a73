"""Names that do not tell whose scan it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medseg.io import Series
from medseg.pseudonyms import make_left_out_name, make_series_name


@pytest.mark.parametrize(
    "where",
    [
        *("DOE JANE/IM01", "DOE JANE", "DOE JANE/IM01.dcm", "a/DOE.txt"),
        *("DOE JANE/ct.nii.gz", "1/DOE JANE/ct.mha"),
    ],
)
def test_what_may_be_dicom_and_cannot_be_used_is_named_by_a_hash(
    where: str,
) -> None:
    assert re.fullmatch(r"file-[0-9a-f]{10}", make_left_out_name(where))
    assert make_left_out_name(where) != make_left_out_name(f"{where}2")


def test_an_image_that_cannot_be_used_is_named_as_its_result_would_be() -> None:
    assert make_left_out_name("a b.nii.gz") == "a_b"


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
