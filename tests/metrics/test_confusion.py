"""Voxel counts: rows and columns, regions, and ignored voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.labels import Label, LabelSet, Region
from medseg.metrics.confusion import (
    clear_ignored,
    count_confusion,
    count_voxels,
    dice_from_confusion,
    extract_region,
)

TWO = LabelSet(
    [Label(1, "liver", 1, (1, 2, 3)), Label(2, "tumour", 2, (4, 5, 6))]
)


def random_labels(
    seed: int, shape: tuple[int, int, int] = (7, 6, 5)
) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(7, 6, 5), (1, 1, 40), (3, 3, 1)])
def test_pairs_are_counted_with_the_first_label_map_as_rows(
    shape, order
) -> None:
    rows, columns = (
        random_labels(0, shape),
        np.asarray(random_labels(1, shape), order=order),
    )
    confusion = count_confusion(rows, columns, 3)
    for row in range(3):
        for column in range(3):
            assert (
                confusion[row, column]
                == ((rows == row) & (columns == column)).sum()
            )


def test_voxels_of_each_label_are_counted() -> None:
    labels = random_labels(2)
    assert count_voxels(labels, 4).tolist() == [
        (labels == index).sum() for index in range(4)
    ]


def test_dice_follows_from_the_pairs() -> None:
    confusion = np.array([[50, 4, 0], [2, 10, 0], [0, 0, 0]])
    dice = dice_from_confusion(confusion, TWO)
    assert dice["liver"] == pytest.approx(2 * 10 / (12 + 14))
    assert math.isnan(dice["tumour"])


def test_confused_labels_of_one_region_agree() -> None:
    regions = [Region("organ", (1, 2), 0, 1), Region("tumour", (2,), 1, 2)]
    confusion = np.array([[50, 1, 0], [0, 10, 5], [0, 0, 4]])
    dice = dice_from_confusion(confusion, LabelSet(list(TWO), regions=regions))
    assert dice["organ"] == pytest.approx(2 * 19 / (19 + 20))
    assert dice["tumour"] == pytest.approx(2 * 4 / (4 + 9))


def test_a_region_is_all_its_labels() -> None:
    labels = random_labels(3)
    assert np.array_equal(
        extract_region(labels, Region("both", (1, 2), 0, 1)), labels > 0
    )
    assert np.array_equal(
        extract_region(labels, Region("two", (2,), 0, 2)), labels == 2
    )


def test_ignored_voxels_become_background_on_both_sides() -> None:
    prediction, reference = random_labels(4), random_labels(5)
    reference[0] = 3
    cleared = clear_ignored(
        prediction, reference, LabelSet(list(TWO), ignore=9)
    )
    for before, after in zip((prediction, reference), cleared, strict=True):
        assert not after[0].any()
        assert np.array_equal(after[1:], before[1:])
    untouched = clear_ignored(prediction, reference, TWO)
    assert untouched[0] is prediction
    assert untouched[1] is reference
