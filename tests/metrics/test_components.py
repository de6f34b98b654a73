"""Components are numbered in masks of every shape."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.ndimage import label

from medseg.metrics.components import (
    count_component_voxels,
    number_components,
)


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_other_voxel_is_a_component_in_masks_of_every_shape(
    order: str,
) -> None:
    # The most components there can be; cc3d alone breaks off where a mask is thin.
    for shape in itertools.product((1, 2, 3, 6), repeat=3):
        mask = np.zeros(shape, bool, order=order)
        mask[::2, ::2, ::2] = True
        components, count = number_components(mask)
        assert count == mask.sum()
        assert components.shape == shape
        assert (components > 0).tolist() == mask.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
def test_components_are_those_of_scipy(order: str) -> None:
    rng = np.random.default_rng(3)
    mask = np.array(rng.random((9, 8, 7)) < 0.1, order=order)
    components, count = number_components(mask)
    expected, there = label(mask, np.ones((3, 3, 3)))
    assert count == there
    sizes = count_component_voxels(components, mask)
    wanted = np.bincount(expected.ravel())[1:]
    assert sizes[0] == 0
    assert sorted(sizes[1:]) == sorted(wanted)
