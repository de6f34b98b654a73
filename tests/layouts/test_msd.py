"""The lists of the Medical Segmentation Decathlon."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.datasets import a_spec, an_item, an_msd_list, texts_of, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError
from medseg.layouts.msd import MsdLayout
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestMsdLayout(DatasetLayoutContract):
    layout = MsdLayout()

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        an_msd_list(root, [an_item(name, patient=name) for name in names])


def test_an_msd_list_gives_sorted_cases_with_folds_and_groups(
    tmp_path: Path,
) -> None:
    root = an_msd_list(
        tmp_path,
        [an_item("b", fold=1, patient="p1"), an_item("a", fold=0, patient=7)],
    )

    found = find_cases(root, a_spec())

    assert found.faults == ()
    assert [(case.name, case.fold, case.group) for case in found.cases] == [
        ("a", 0, "7"),
        ("b", 1, "p1"),
    ]
    assert found.cases[0].scan.parts == ((root / "imagesTr/a.nii.gz",),)
    assert found.cases[0].label == root / "labelsTr/a.nii.gz"


def test_the_channels_of_a_case_keep_their_listed_order(tmp_path: Path) -> None:
    item = {"image": ["x_0001.nii", "x_0000.nii"], "label": "y.nii"}

    (case,) = find_cases(an_msd_list(tmp_path, [item]), a_spec(2)).cases

    assert [part[0].name for part in case.scan.parts] == [
        "x_0001.nii",
        "x_0000.nii",
    ]


def test_missing_files_and_malformed_items_are_named_and_the_rest_is_used(
    tmp_path: Path,
) -> None:
    items = [an_item("good"), an_item("gone"), an_item("no_label")]
    root = an_msd_list(tmp_path, items)
    (root / "imagesTr/gone.nii.gz").unlink()
    (root / "labelsTr/no_label.nii.gz").unlink()
    broken: list[Any] = [
        "imagesTr/a.nii",
        {"image": 3, "label": "x"},
        {"image": "a\0b", "label": "x"},
        {"image": [], "label": "x"},
        {"image": "x" * 5000, "label": "x"},
        {"image": "\ud800", "label": "x"},
        None,
    ]
    an_msd_list(root, items + broken, make_files=False)

    found = find_cases(root, a_spec())
    faults = texts_of(found.faults)

    assert [case.name for case in found.cases] == ["good"]
    assert "an image does not exist" in faults["gone"]
    assert "imagesTr/gone.nii.gz" in faults["gone"]
    assert "the label does not exist" in faults["no_label"]
    assert "labelsTr/no_label.nii.gz" in faults["no_label"]
    assert {
        "training.3",
        "training.4",
        "training.5",
        "training.6",
        "training.8",
        "training.9",
    } <= (set(faults))


def test_files_that_the_list_omits_are_mentioned_and_hidden_ones_are_not(
    tmp_path: Path,
) -> None:
    root = an_msd_list(tmp_path, [an_item("a")])
    touch(
        root / "imagesTr/extra.nii.gz",
        root / "imagesTr/._a.nii.gz",
        root / "imagesTr/notes.txt",
    )

    found = find_cases(root, a_spec())

    assert [case.name for case in found.cases] == ["a"]
    assert len(found.warnings) == 1
    assert "1 of the image files" in found.warnings[0]
    assert "extra.nii.gz" in found.warnings[0]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner)
    ),
    max_leaves=6,
)

KEYS = st.sampled_from(["image", "label", "fold", "group", "patient"])


@given(st.lists(st.dictionaries(KEYS, JSON) | JSON, max_size=5))
def test_no_list_of_any_kind_is_more_than_faults(items: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = an_msd_list(Path(folder), items, make_files=False)
        if not items:
            with pytest.raises(DatasetError):
                find_cases(root, a_spec())
            return
        found = find_cases(root, a_spec())

        assert found.cases == ()
        assert len({fault.where for fault in found.faults}) >= 1


def test_labelled_cases_for_validation_are_held_out(tmp_path: Path) -> None:
    validation = [an_item("d"), an_item("e")]
    root = an_msd_list(tmp_path, [an_item("a"), an_item("b")])
    an_msd_list(tmp_path, validation)  # makes their files
    an_msd_list(tmp_path, [an_item("a"), an_item("b")], validation=validation)
    found = find_cases(root, a_spec())
    assert found.warnings == ()
    folds = {case.name: case.fold for case in found.cases}
    assert folds == {"a": 1, "b": 1, "d": 0, "e": 0}
    # Where cases name their folds, those count.
    items = [an_item("a", fold=0), an_item("b", fold=1)]
    an_msd_list(tmp_path, items, validation=validation)
    folds = {case.name: case.fold for case in find_cases(root, a_spec()).cases}
    assert folds == {"a": 0, "b": 1}


def test_a_list_for_validation_and_cases_without_a_patient_are_told(
    tmp_path: Path,
) -> None:
    items = [
        an_item("a", patient="P1"),
        an_item("b", patient="P1"),
        an_item("c", patient=""),
    ]
    without_label = {"image": "./imagesTr/d.nii.gz"}
    root = an_msd_list(tmp_path, items, validation=[without_label])
    said = find_cases(root, a_spec()).warnings
    assert [one for one in said if "lists 1 cases under 'validation'" in one]
    assert [
        one for one in said if one.startswith("1 of 3 cases have no 'patient'")
    ]
    alone = an_msd_list(tmp_path / "alone", [an_item("a"), an_item("b")])
    assert find_cases(alone, a_spec()).warnings == ()
