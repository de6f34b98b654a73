"""Lesions counted one by one."""

from __future__ import annotations

import math

import numpy as np

from medseg.labels import Label, LabelSet, Region
from medseg.metrics.lesions import LesionCounts, count_lesions, pool_lesions

TUMOUR = LabelSet([Label(1, "tumour", 1, (1, 2, 3))])


def test_found_missed_and_falsely_predicted() -> None:
    reference, prediction = np.zeros((2, 20, 20, 4), np.uint8)
    reference[1:4, 1:4] = 1  # found
    reference[8:12, 8:13] = 1  # touched by one voxel of 80, so missed
    reference[17:19, 17:19] = 1  # missed
    prediction[2:5, 2:5] = 1
    prediction[12, 13, 0] = prediction[11, 12, 0] = 1
    prediction[1, 18] = 1  # falsely predicted
    assert count_lesions(prediction, reference, TUMOUR) == {
        "tumour": LesionCounts(3, 1, 3, 1)
    }


def test_counts_add_up_and_make_rates() -> None:
    both = pool_lesions(
        [
            {"tumour": LesionCounts(3, 1, 3, 1)},
            {"tumour": LesionCounts(1, 1, 2, 0)},
        ]
    )["tumour"]
    assert both == LesionCounts(4, 2, 5, 1)
    assert both.sensitivity == 0.5
    assert both.precision == 0.8
    nothing = LesionCounts(0, 0, 0, 0)
    assert math.isnan(nothing.sensitivity)
    assert math.isnan(nothing.precision)


def test_no_lesion_is_counted_at_ignored_voxels() -> None:
    reference, prediction = np.zeros((2, 20, 20, 4), np.uint8)
    reference[1:4, 1:4] = prediction[1:4, 1:4] = 1
    reference[10:] = 2
    before = count_lesions(
        prediction, reference, LabelSet(tuple(TUMOUR), ignore=7)
    )
    prediction[12:14, 12:14] = 1
    assert (
        count_lesions(prediction, reference, LabelSet(tuple(TUMOUR), ignore=7))
        == before
    )
    assert before == {"tumour": LesionCounts(1, 1, 1, 0)}


def test_lesions_of_a_region_are_those_of_all_its_labels() -> None:
    two = [Label(1, "rim", 1, (1, 2, 3)), Label(2, "centre", 2, (4, 5, 6))]
    regions = [Region("lesion", (1, 2), 0, 1), Region("centre", (2,), 1, 2)]
    reference, prediction = np.zeros((2, 12, 12, 1), np.uint8)
    reference[1:6, 1:6] = prediction[1:6, 1:6] = 1
    reference[3, 3] = 2  # the ring around it is one lesion with it
    prediction[9, 9] = 2
    assert count_lesions(
        prediction, reference, LabelSet(two, regions=regions)
    ) == {
        "lesion": LesionCounts(1, 1, 2, 1),
        "centre": LesionCounts(1, 0, 1, 1),
    }


def test_a_lesion_is_found_from_exactly_a_tenth_of_its_voxels_on() -> None:
    reference, prediction = np.zeros((2, 20, 4, 4), np.uint8)
    reference[:10, 0, 0] = 1  # ten voxels, of which one is covered
    reference[:11, 3, 3] = 1  # eleven
    prediction[0, 0, 0] = prediction[0, 3, 3] = 1
    assert count_lesions(prediction, reference, TUMOUR) == {
        "tumour": LesionCounts(2, 1, 2, 0)
    }
