"""The box of all labels, and what is counted in it."""

from __future__ import annotations

import numpy as np

from medseg.metrics.confusion import count_voxels
from medseg.metrics.label_boxes import find_box_of_labels


def test_an_empty_label_map_has_no_box_and_background_alone() -> None:
    labels = np.zeros((4, 3, 2), np.uint16)
    assert find_box_of_labels(labels) is None
    assert count_voxels(labels, 3).tolist() == [24, 0, 0]


def test_voxels_beyond_the_box_of_all_labels_count_as_background() -> None:
    rng = np.random.default_rng(6)
    labels = np.zeros((9, 8, 7), np.uint8)
    labels[3:6, 2:7, 1:3] = rng.integers(0, 3, (3, 5, 2))
    expected = np.bincount(labels.ravel(), minlength=4)
    assert np.array_equal(count_voxels(labels, 4), expected)
