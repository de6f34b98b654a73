"""Tables that name the values in label files of BIDS."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import touch

from medseg.errors import DatasetError
from medseg.layouts.bids_names import BidsFile, parse_bids_file
from medseg.layouts.bids_tables import add_label_names
from medseg.layouts.contract import CaseListing

LABEL = "derivatives/manual/sub-01/anat/sub-01_desc-lesion_dseg.nii.gz"


def a_label(root: Path, name: str = LABEL) -> BidsFile:
    touch(root / name)
    file = parse_bids_file(root / name)
    assert file is not None
    return file


def a_table(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(("index\tname", *lines)))


def test_the_nearest_table_counts_and_of_these_the_most_special(
    tmp_path: Path,
) -> None:
    label, listing = a_label(tmp_path), CaseListing(tmp_path, has_fields=True)
    a_table(tmp_path / "dseg.tsv", "1\tfar")
    a_table(label.file.parent / "dseg.tsv", "1\tplain")
    a_table(
        label.file.parent / "desc-lesion_dseg.tsv",
        "0\tbackground",
        "1\tlesion",
        "2\t",
    )
    a_table(label.file.parent / "desc-other_special_dseg.tsv", "1\tother")
    add_label_names(listing, label)
    assert listing.label_names == {1: "lesion"}


def test_tables_above_the_data_set_do_not_count(tmp_path: Path) -> None:
    label, listing = (
        a_label(tmp_path / "set"),
        CaseListing(tmp_path / "set", has_fields=True),
    )
    a_table(tmp_path / "dseg.tsv", "1\tfar")
    add_label_names(listing, label)
    assert listing.label_names == {}


def test_a_value_with_two_names_keeps_the_first_and_is_told_once(
    tmp_path: Path,
) -> None:
    label, listing = a_label(tmp_path), CaseListing(tmp_path, has_fields=True)
    listing.label_names[1] = "tumour"
    a_table(tmp_path / "dseg.tsv", "1\tlesion")
    add_label_names(listing, label)
    add_label_names(listing, label)
    assert listing.label_names == {1: "tumour"}
    assert listing.warnings == [
        "the value 1 is called 'tumour' and 'lesion'; 'tumour' is used"
    ]


def test_a_mask_names_its_only_value_itself(tmp_path: Path) -> None:
    names = {
        "label-liver_mask": "liver",
        "desc-brain_mask": "brain",
        "mask": "mask",
    }
    for ending, name in names.items():
        listing = CaseListing(tmp_path, has_fields=True)
        add_label_names(listing, a_label(tmp_path, f"sub-01_{ending}.nii"))
        assert listing.label_names == {1: name}


def test_an_index_must_be_a_number(tmp_path: Path) -> None:
    label, listing = a_label(tmp_path), CaseListing(tmp_path, has_fields=True)
    a_table(tmp_path / "dseg.tsv", "1\ta", "x\tb")
    with pytest.raises(
        DatasetError, match="line 3: index must be a whole number"
    ) as caught:
        add_label_names(listing, label)
    assert caught.value.source == str(tmp_path / "dseg.tsv")
