"""Names of files in BIDS."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.layouts.bids_names import BidsFile, parse_bids_file


def parsed(name: str) -> BidsFile:
    file = parse_bids_file(Path(name))
    assert file is not None
    return file


def test_a_name_is_read_into_entities_and_a_suffix() -> None:
    file = parsed("sub-01_ses-2_ce-gad_run-3_T1w.nii.gz")
    assert file.entities == {"sub": "01", "ses": "2", "ce": "gad", "run": "3"}
    assert (file.subject, file.suffix) == ("sub-01", "T1w")
    assert file.session == "sub-01_ses-2_run-3"
    assert file.channel == "ce-gad_T1w"
    assert not file.is_mask


@pytest.mark.parametrize(
    "name",
    [
        "T1w.nii.gz",
        "sub-01_T1w.json",
        "sub-_T1w.nii",
        "sub-01_odd_T1w.nii",
        "ses-1_T1w.nii",
    ],
)
def test_what_does_not_follow_bids_is_no_file_of_it(name: str) -> None:
    assert parse_bids_file(Path(name)) is None


@pytest.mark.parametrize(
    ("image", "label", "may_be"),
    [
        ("sub-1_T1w.nii", "sub-1_dseg.nii", True),
        ("sub-1_T1w.nii", "sub-2_dseg.nii", False),
        ("sub-1_ses-1_T1w.nii", "sub-1_ses-1_dseg.nii", True),
        ("sub-1_ses-1_T1w.nii", "sub-1_ses-2_dseg.nii", False),
        ("sub-1_ses-1_T1w.nii", "sub-1_dseg.nii", True),
        ("sub-1_run-1_T1w.nii", "sub-1_ses-1_run-2_dseg.nii", False),
    ],
)
def test_an_image_belongs_to_labels_of_its_session_and_run(
    image: str, label: str, may_be: bool
) -> None:
    assert parsed(image).is_image_of(parsed(label)) is may_be
