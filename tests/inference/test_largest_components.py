"""Only the largest connected component of a label is kept: the one that MONAI keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from monai.transforms import get_largest_connected_component_mask

from medseg.inference.largest_components import keep_largest_components
from medseg.metrics.label_boxes import find_box_of_labels
from medseg.metrics.label_summary import summarise_labels
from medseg.volume import Array


def keep_as_monai_does(labels: Array, indices: list[int]) -> Array:
    kept = labels.copy()
    for index in indices:
        mask = torch.from_numpy(np.ascontiguousarray(labels == index))
        largest = get_largest_connected_component_mask(mask)
        kept[mask.numpy() & ~largest.numpy().astype(bool)] = 0
    return kept


# Few voxels hold a label, so that components are many, and many are of one size.
label_maps = arrays.arrays(
    np.uint8,
    st.tuples(*[st.integers(1, 7)] * 3),
    elements=st.sampled_from([0, 0, 0, 0, 1, 2, 4]),
)


@given(label_maps, st.booleans())
def test_the_component_that_monai_keeps_is_kept(
    labels: Array, is_fortran: bool
) -> None:
    if is_fortran:
        labels = np.asfortranarray(labels)
    before = labels.copy()
    kept = keep_largest_components(summarise_labels(labels, 5), [1, 3, 4])
    assert np.array_equal(kept.labels, keep_as_monai_does(labels, [1, 3, 4]))
    assert np.array_equal(labels, before), "the labels given are not changed"
    counts = np.bincount(kept.labels.ravel(), minlength=5)
    assert np.array_equal(kept.voxels, counts)
    assert kept.boxes == summarise_labels(kept.labels, 5).boxes


@pytest.mark.parametrize("seed", range(3))
def test_of_many_components_of_one_size_the_same_is_kept_as_by_monai(
    seed: int,
) -> None:
    # Long enough that numpy sorts by another algorithm than a few numbers.
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 41, 9), np.uint8)
    labels[::2, ::2, ::2] = rng.integers(0, 2, (20, 21, 5))
    kept = keep_largest_components(summarise_labels(labels, 2), [1]).labels
    assert kept.sum() == 1
    assert np.array_equal(kept, keep_as_monai_does(labels, [1]))


def test_the_box_holds_all_that_is_not_zero() -> None:
    labels = np.zeros((5, 6, 7), np.uint16)
    assert find_box_of_labels(labels) is None
    labels[1, 2, 3] = labels[3, 2, 6] = 300
    assert find_box_of_labels(labels) == np.s_[1:4, 2:3, 3:7]
