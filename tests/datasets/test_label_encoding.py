"""Label files become label indices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.label_encoding import encode_labels
from medseg.errors import ScanError
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

LABELS = LabelSet(
    [
        Label(1, "liver", value=7, colour=(255, 0, 0)),
        Label(2, "spleen", value=255, colour=(0, 255, 0)),
    ]
)


def a_volume(array: Any, affine: Any = None) -> Volume:
    return Volume(
        np.asarray(array), np.eye(4) if affine is None else affine, source="x"
    )


def values(*numbers: int, dtype: str = "uint8") -> Volume:
    return a_volume(np.array(numbers, dtype).reshape(1, -1, 1, 1))


def colours(*each: tuple[int, int, int]) -> Volume:
    return a_volume(np.array(each, np.uint8).T.reshape(3, -1, 1, 1))


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int64", "uint32"]
)
def test_values_become_indices(dtype: str) -> None:
    indices = encode_labels(values(0, 7, 255, 7, dtype=dtype), LABELS)

    assert indices.dtype == np.uint8
    assert indices.shape == (4, 1, 1)
    assert indices.ravel().tolist() == [0, 1, 2, 1]


def test_unknown_values_are_named_with_their_counts_and_what_is_known() -> None:
    with pytest.raises(
        ScanError, match=r"3 \(2 voxels\), 1 \(1 voxels\).*7 \(liver\), 255"
    ):
        encode_labels(values(0, 3, 3, 1, 7), LABELS)


@pytest.mark.parametrize("number", [-1, 1 << 30])
def test_values_far_out_of_range_are_unknown_too(number: int) -> None:
    with pytest.raises(ScanError, match=rf"holds {number} \(1 voxels\)"):
        encode_labels(values(0, number, dtype="int64"), LABELS)
    with pytest.raises(ScanError, match=rf"holds {number} \(1 voxels\)"):
        encode_labels(values(number, dtype="int64"), LABELS)


def test_a_large_label_value_is_found() -> None:
    labels = LabelSet([Label(1, "x", value=1 << 30, colour=(1, 1, 1))])

    assert encode_labels(
        values(1 << 30, 0, dtype="int64"), labels
    ).ravel().tolist() == [1, 0]


def test_many_unknown_values_are_not_all_named() -> None:
    with pytest.raises(ScanError, match="and 194 more"):
        encode_labels(values(*range(1, 202)), LABELS)


def test_many_labels_need_sixteen_bits() -> None:
    labels = LabelSet(
        [Label(n, f"l{n}", value=n, colour=(n, 0, 0)) for n in range(1, 301)]
    )

    indices = encode_labels(values(300, 0, dtype="uint16"), labels)

    assert indices.dtype == np.uint16
    assert indices.ravel().tolist() == [300, 0]


def test_colours_become_indices() -> None:
    picture = colours((0, 0, 0), (255, 0, 0), (0, 255, 0))

    assert encode_labels(picture, LABELS).ravel().tolist() == [0, 1, 2]


def test_unknown_colours_are_named() -> None:
    with pytest.raises(
        ScanError, match=r"\(1, 2, 3\) \(1 voxels\).*\(255, 0, 0\) \(liver\)"
    ):
        encode_labels(colours((0, 0, 0), (1, 2, 3)), LABELS)


def test_grey_stored_as_colour_holds_values() -> None:
    assert encode_labels(
        colours((0, 0, 0), (255, 255, 255)), LABELS
    ).ravel().tolist() == [0, 2]


def test_a_grey_colour_is_a_colour_where_no_label_has_the_value() -> None:
    labels = LabelSet([Label(1, "bone", value=1, colour=(255, 255, 255))])

    assert encode_labels(
        colours((0, 0, 0), (255, 255, 255)), labels
    ).ravel().tolist() == [0, 1]
    picture = replace(values(0, 255), source="mask.png")
    assert encode_labels(picture, labels).ravel().tolist() == [0, 1]
    with pytest.raises(ScanError, match="255"):
        encode_labels(replace(values(0, 255), source="mask.nii.gz"), labels)


def test_a_grey_that_is_a_value_and_a_colour_is_a_value() -> None:
    labels = LabelSet(
        [
            Label(1, "bone", value=255, colour=(9, 9, 9)),
            Label(2, "skin", value=7, colour=(255, 255, 255)),
        ]
    )

    assert encode_labels(
        colours((0, 0, 0), (255, 255, 255)), labels
    ).ravel().tolist() == [0, 1]


def test_other_arrays_are_no_label_maps() -> None:
    with pytest.raises(ScanError, match="2"):
        encode_labels(a_volume(np.zeros((2, 1, 1, 1), np.uint8)), LABELS)
    with pytest.raises(ScanError, match="float32"):
        encode_labels(a_volume(np.zeros((1, 1, 1, 1), np.float32)), LABELS)


def test_booleans_are_zero_and_one() -> None:
    labels = LabelSet([Label(1, "x", value=1, colour=(9, 9, 9))])
    array = np.array([True, False]).reshape(1, 2, 1, 1)

    assert encode_labels(a_volume(array), labels).ravel().tolist() == [1, 0]


@given(
    st.dictionaries(
        st.integers(1, 1 << 20), st.none(), min_size=1, max_size=20
    ),
    st.lists(st.integers(0, 1000), min_size=1, max_size=50),
)
def test_every_label_count_survives(
    known: dict[int, None], picks: list[int]
) -> None:
    labels = LabelSet(
        [
            Label(n, f"l{n}", value=v, colour=(n, 0, 0))
            for n, v in enumerate(known, start=1)
        ]
    )
    wanted = [pick % labels.channels for pick in picks]
    value_of = {index: value for value, index in labels.values.items()}

    indices = encode_labels(
        values(*(value_of[n] for n in wanted), dtype="int32"), labels
    )

    assert indices.ravel().tolist() == wanted


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_what_nobody_annotated_has_its_own_index(dtype: str) -> None:
    labels = LabelSet(tuple(LABELS), ignore=9)
    assert encode_labels(
        values(0, 7, 9, 255, dtype=dtype), labels
    ).ravel().tolist() == [0, 1, 3, 2]
    coloured = colours((255, 0, 0), (9, 9, 9), (0, 0, 0))
    assert encode_labels(coloured, labels).ravel().tolist() == [1, 3, 0]
    with pytest.raises(ScanError, match="9"):
        encode_labels(values(0, 7, 9), LABELS)


@pytest.mark.parametrize("count", [253, 254, 255])
def test_the_ignored_index_fits_beside_many_labels(count: int) -> None:
    many = [
        Label(n, f"l{n}", value=n, colour=(n, 0, 0))
        for n in range(1, count + 1)
    ]
    found = encode_labels(
        values(0, count, 999, dtype="uint16"), LabelSet(many, ignore=999)
    )
    assert found.ravel().tolist() == [0, count, count + 1]
