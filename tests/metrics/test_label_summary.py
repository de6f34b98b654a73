"""Where labels lie and how many voxels they have, whatever a label map's order in memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import find_objects

from medseg.metrics.label_summary import summarise_labels


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_each_label_gets_its_smallest_box_and_its_voxels(
    order: str, kind: type
) -> None:
    rng = np.random.default_rng(5)
    labels = np.zeros((9, 8, 7), kind, order=order)
    labels[2:7, 1:4, 3:6] = rng.choice([0, 1, 3, 9], (5, 3, 3))
    expected = find_objects(labels)
    found = summarise_labels(labels, 5)
    assert found.labels is labels
    assert found.boxes == {1: expected[0], 3: expected[2]}
    counts = np.bincount(labels[labels < 5], minlength=5)
    assert found.voxels[1:].tolist() == counts[1:].tolist()
    assert found.voxels.sum() == labels.size, "foreign values are background"


def test_an_empty_label_map_has_background_alone() -> None:
    found = summarise_labels(np.zeros((4, 3, 2), np.uint8), 3)
    assert found.boxes == {}
    assert found.voxels.tolist() == [24, 0, 0]


def test_a_few_voxels_of_a_high_index_are_found() -> None:
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[1, 2, 1] = 104
    labels[2, 3, 1] = 117
    found = summarise_labels(labels, 118)
    assert found.boxes == {104: np.s_[1:2, 2:3, 1:2], 117: np.s_[2:3, 3:4, 1:2]}
    assert found.voxels[[0, 104, 117]].tolist() == [58, 1, 1]


@pytest.mark.parametrize("kind", ["?", "i1", ">u2", ">i4", ">u4", "u8"])
def test_whole_numbers_of_every_type_are_summarised(kind: str) -> None:
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[1:3, 2, 1] = 1
    found = summarise_labels(labels.astype(kind), 2)
    assert found.voxels.tolist() == [58, 2]
    assert found.boxes == {1: np.s_[1:3, 2:3, 1:2]}


@pytest.mark.parametrize("kind", ["i8", ">i4"])
def test_whole_numbers_that_are_no_label_are_passed_over(kind: str) -> None:
    labels = np.zeros((5, 4, 3), kind)
    labels[1, 2, 1] = 2
    labels[0, 0, 0], labels[4, 3, 2] = -7, 2**31 - 1
    found = summarise_labels(labels, 3)
    assert found.voxels.tolist() == [59, 0, 1]
    assert found.boxes == {2: np.s_[1:2, 2:3, 1:2]}


def test_what_holds_no_label_indices_is_refused() -> None:
    with pytest.raises(ValueError, match=r"whole numbers.* got float32"):
        summarise_labels(np.zeros((2, 2, 2), np.float32), 2)
    with pytest.raises(ValueError, match=r"three dimensions.* \(2, 2\)"):
        summarise_labels(np.zeros((2, 2), np.uint8), 2)
