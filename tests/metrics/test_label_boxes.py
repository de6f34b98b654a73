"""Boxes around labels, whatever the order of a label map in memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import find_objects

from medseg.metrics.confusion import count_voxels
from medseg.metrics.label_boxes import find_boxes


@pytest.mark.parametrize("order", ["C", "F"])
def test_each_label_gets_the_smallest_box_in_either_order_of_memory(
    order: str,
) -> None:
    rng = np.random.default_rng(5)
    labels = np.zeros((9, 8, 7), np.uint8, order=order)
    labels[2:7, 1:4, 3:6] = rng.choice([0, 1, 3], (5, 3, 3))
    expected = find_objects(labels)
    found = find_boxes(labels, [1, 2, 3, 4])
    assert found == {1: expected[0], 3: expected[2]}


def test_an_empty_label_map_has_no_boxes_and_background_alone() -> None:
    labels = np.zeros((4, 3, 2), np.uint16)
    assert find_boxes(labels, [1]) == {}
    assert count_voxels(labels, 3).tolist() == [24, 0, 0]


def test_voxels_beyond_the_box_of_all_labels_count_as_background() -> None:
    rng = np.random.default_rng(6)
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[3:6, 2:7, 1:3] = rng.integers(0, 3, (3, 5, 2))
    expected = np.bincount(labels.ravel(), minlength=4)
    assert np.array_equal(count_voxels(labels, 4), expected)
