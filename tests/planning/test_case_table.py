"""Tables of cases, drafted to be filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import a_spec, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError
from medseg.layouts import Selection, list_cases
from medseg.planning.case_table import draft_case_table


def test_what_was_found_is_a_table_that_lists_the_same(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in ("001", "002"):
        for role in ("t1", "t2", "seg"):
            touch(root / f"P{number}/P{number}_{role}.nii.gz")
    draft = draft_case_table(root, tmp_path, Selection())
    assert (draft.lines, draft.is_complete) == (2, True)
    table = tmp_path / "cases.csv"
    table.write_text(draft.text)
    direct = find_cases(root, a_spec(2)).cases
    through = find_cases(table, a_spec(2)).cases
    assert [case.name for case in through] == ["P001", "P002"]
    for one, other in zip(direct, through, strict=True):
        assert [file.resolve() for file in one.scan.files] == [
            file.resolve() for file in other.scan.files
        ]
        assert one.label.resolve() == other.label.resolve()


def test_masks_have_a_column_for_each_structure(tmp_path: Path) -> None:
    for number in ("1", "2"):
        touch(tmp_path / f"s{number}/ct.nii")
        for organ in ("liver", "spleen"):
            touch(tmp_path / f"s{number}/masks/{organ}.nii")
    (tmp_path / "s2/masks/spleen.nii").unlink()
    draft = draft_case_table(tmp_path, tmp_path, Selection())
    assert draft.text.splitlines()[0] == "name,image,label_liver,label_spleen"
    table = tmp_path / "mine.csv"
    table.write_text(draft.text)
    assert list_cases(table, "auto").label_names == {1: "liver", 2: "spleen"}


def test_images_without_labels_leave_the_column_open(tmp_path: Path) -> None:
    touch(tmp_path / "b/2.png", tmp_path / "b/1.png", tmp_path / "notes.txt")
    draft = draft_case_table(tmp_path, tmp_path, Selection())
    assert draft.text == "image,label\nb/1.png,\nb/2.png,\n"
    assert not draft.is_complete


def test_a_folder_without_images_has_no_table(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(DatasetError, match="no list of cases"):
        draft_case_table(tmp_path, tmp_path, Selection())
