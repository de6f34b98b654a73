"""A part of a resampled image holds what the whole has there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg.preprocessing.grid_map import GridMap, compute_spacing_maps
from medseg.preprocessing.resampled_parts import (
    Box,
    find_reach,
    resample_part,
    resample_voxels,
)
from medseg.preprocessing.resampling import resample_linear

SHEARED = np.array(
    [[1.2, 0.3, 0.1, 0], [0, 0.9, 0.2, 0], [0, 0, 1.4, 0], [0, 0, 0, 1]]
)

spacings = st.sampled_from([0.7, 1.0, 1.3, 2.0, 3.1])
shapes = st.tuples(*[st.integers(2, 9)] * 3)


@st.composite
def maps(draw: st.DrawFn) -> GridMap:
    affine = np.diag([draw(spacings), draw(spacings), draw(spacings), 1.0])
    if draw(st.booleans()):
        affine = SHEARED
    wanted = draw(st.tuples(spacings, spacings, spacings))
    return draw(
        st.sampled_from(compute_spacing_maps(affine, draw(shapes), wanted))
    )


def draw_box(data: st.DataObject, shape: tuple[int, int, int]) -> Box:
    sides = []
    for length in shape:
        start = data.draw(st.integers(0, length - 1))
        sides.append(slice(start, data.draw(st.integers(start + 1, length))))
    return sides[0], sides[1], sides[2]


@given(maps(), st.data())
def test_a_part_holds_what_the_whole_has_there(
    grid_map: GridMap, data: st.DataObject
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 101, (2, *grid_map.source)).astype(np.uint8)
    part = draw_box(data, grid_map.target)
    whole = resample_linear(image, grid_map)
    within = resample_part(image, grid_map, part)
    assert np.array_equal(within, whole[(slice(None), *part)])


@given(maps(), st.integers(1, 99), st.permutations(range(3)))
def test_some_voxels_hold_what_the_whole_has_there(
    grid_map: GridMap, count: int, order: list[int]
) -> None:
    rng = np.random.default_rng(0)
    in_memory = [grid_map.source[axis] for axis in order]
    image = rng.integers(0, 101, in_memory).astype(np.uint8)
    image = image.transpose(np.argsort(order))
    voxels = [
        torch.from_numpy(rng.integers(0, length, count))
        for length in grid_map.target
    ]
    whole = resample_linear(image[None], grid_map)[0]
    found = resample_voxels(image, grid_map, voxels)
    assert np.array_equal(found, whole[tuple(voxels)])


@given(maps(), st.data())
def test_beyond_its_reach_a_box_has_no_say(
    grid_map: GridMap, data: st.DataObject
) -> None:
    part = draw_box(data, grid_map.source)
    image = np.zeros((1, *grid_map.source), np.float32)
    image[(0, *part)] = 1
    whole = resample_linear(image, grid_map)[0]
    reach = find_reach(part, grid_map)
    if reach is not None:
        whole[reach] = 0
    assert not whole.any()


@pytest.mark.parametrize("length", [4, 9])
def test_the_reach_is_no_larger_than_it_must_be(length: int) -> None:
    grid_map = GridMap(np.eye(4), (length, 3, 3), (length, 3, 3))
    part = np.s_[1:2, 0:3, 2:3]
    assert find_reach(part, grid_map) == part
