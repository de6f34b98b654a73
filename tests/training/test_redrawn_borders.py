"""A redrawn border bulges near a place of the border, and what it gives up is the neighbour's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from support.cases import balls

from medseg.training.redrawn_borders import MOST_BULGES, redraw_border


def test_the_border_moves_by_a_few_voxels_in_few_places() -> None:
    labels = balls(seed=0)
    is_label = labels == 1
    depth = ndimage.distance_transform_edt(is_label)
    depth += ndimage.distance_transform_edt(~is_label)
    changed = []
    for seed in range(20):
        redrawn = redraw_border(labels, 1, np.random.default_rng(seed))
        assert redrawn.shape == labels.shape
        assert redrawn.dtype == labels.dtype
        differs = (redrawn == 1) != is_label
        changed.append(differs.sum())
        assert depth[differs].max() <= 5 * MOST_BULGES
        again = redraw_border(labels, 1, np.random.default_rng(seed))
        assert np.array_equal(again, redrawn)
    assert np.mean(np.array(changed) > 10) > 0.8


def test_what_a_label_gives_up_is_its_nearest_neighbours() -> None:
    halves = np.ones((16, 16, 16), np.int64)
    halves[8:] = 2
    for seed in range(10):
        redrawn = redraw_border(halves, 1, np.random.default_rng(seed))
        # There is no background, and none comes in.
        assert set(np.unique(redrawn)) <= {1, 2}
    assert (redrawn != halves).any()


def test_a_label_that_is_not_there_has_no_border() -> None:
    empty = np.zeros((6, 6, 6), np.int64)
    assert not redraw_border(empty, 1, np.random.default_rng(3)).any()
