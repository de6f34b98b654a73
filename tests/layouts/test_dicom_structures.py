"""Structures of DICOM objects, joined to one label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import dicom as made
from support.studies import a_series, label

from medseg.errors import ScanError
from medseg.labels import Label, LabelSet
from medseg.layouts.dicom_structures import DicomStructures


def one_structure(file: Path, like, name: str, labels: np.ndarray) -> Path:
    return label(
        file, like, labels, "seg", LabelSet([Label(1, name, 1, (9, 9, 9))])
    )


def test_structures_of_several_files_have_the_values_of_their_names(
    tmp_path: Path,
) -> None:
    like = a_series(tmp_path / "ct")
    first, second = np.zeros((2, *made.SHAPE), np.uint8)
    first[0], second[2] = 1, 1
    files = (
        (one_structure(tmp_path / "a", like, "liver", first), ("liver",)),
        (one_structure(tmp_path / "b", like, "skin", second), ("skin",)),
    )
    labels = DicomStructures(files, {"skin": 2, "liver": 5}).read_label_map(
        like
    )
    assert np.array_equal(labels.array[0], 5 * first + 2 * second)


def test_what_overlaps_is_refused_with_how_much(tmp_path: Path) -> None:
    like = a_series(tmp_path / "ct")
    whole = np.ones(made.SHAPE, np.uint8)
    part = np.zeros(made.SHAPE, np.uint8)
    part[1, 1] = 1
    files = (
        (one_structure(tmp_path / "a", like, "body", whole), ("body",)),
        (one_structure(tmp_path / "b", like, "skin", part), ("skin",)),
    )
    with pytest.raises(
        ScanError, match=f"other files in {made.SHAPE[2]} voxels"
    ) as caught:
        DicomStructures(files, {"skin": 2, "body": 1}).read_label_map(like)
    assert caught.value.source == str(tmp_path / "b")


def test_the_key_does_not_depend_on_the_order_of_files() -> None:
    a, b = (Path("a"), ("liver",)), (Path("b"), ("skin",))
    values = {"liver": 1, "skin": 2}
    assert (
        DicomStructures((a, b), values).key
        == DicomStructures((b, a), values).key
    )
    assert (
        DicomStructures((a, b), values).key != DicomStructures((a,), values).key
    )
