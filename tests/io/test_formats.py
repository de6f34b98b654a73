"""An image format is stated in a way that files are found by, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medseg.errors import ScanError
from medseg.io.formats import check_format, single_file
from medseg.io.nifti import NIFTI
from medseg.io.registry import IMAGE_FORMATS


@pytest.mark.parametrize("name", ["nifti", "itk", "picture", "dicom"])
def test_shipped_formats_are_well_formed(name):
    check_format(IMAGE_FORMATS.get(name))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"suffixes": ()}, "at least one suffix"),
        ({"suffixes": (".NII",)}, r"lower-case .* got '\.NII'"),
        ({"suffixes": ("nii",)}, "begins with a dot"),
        ({"suffixes": (".",)}, "begins with a dot"),
        ({"label_suffixes": (".mha",)}, "among the suffixes"),
        ({"write_labels": None}, "given together"),
        ({"label_suffixes": ()}, "given together"),
    ],
)
def test_suffixes_that_nothing_would_match_are_refused(change, why):
    with pytest.raises(ValueError, match=why):
        check_format(replace(NIFTI, **change))


def test_what_is_no_format_is_refused():
    with pytest.raises(TypeError, match=r"medseg\.io\.Format, got function"):
        check_format(check_format)
    with pytest.raises(TypeError, match="must be functions"):
        check_format(replace(NIFTI, read="read"))
    with pytest.raises(TypeError, match="must be functions"):
        check_format(replace(NIFTI, read_labels=None))


def test_one_file_per_volume_is_read():
    assert single_file([Path("a.nii")], "NIfTI") == Path("a.nii")
    with pytest.raises(
        ScanError, match="NIfTI: one file per volume is read, got 2"
    ):
        single_file([Path("a.nii"), Path("b.nii")], "NIfTI")
    with pytest.raises(ScanError, match="got 0"):
        single_file([], "NIfTI")
