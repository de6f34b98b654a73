"""Cubic resampling by small matrices is skimage's ``resize``, on every shape and type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from medseg.bundle.spec import ResamplingSpec
from medseg.preprocessing.cubic import compute_bands, resample_cubic
from medseg.preprocessing.extent import (
    ExtentMap,
    compute_extent_maps,
    find_coarse_axis,
)
from medseg.volume import Array

CUBIC = ResamplingSpec(interpolation="cubic", grid="extent")


def map_to(shape: Any, target: Any) -> ExtentMap:
    spacing = tuple(t / n for n, t in zip(shape, target, strict=True))
    to_network, _ = compute_extent_maps(spacing, shape, (1, 1, 1), CUBIC)
    assert to_network.target == target
    return to_network


def by_skimage(array: Array, target: Any) -> Array:
    made = [
        resize(
            channel.astype(float),
            target,
            order=3,
            mode="edge",
            anti_aliasing=False,
        )
        for channel in array
    ]
    return np.stack(made)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(1, 150), st.integers(1, 40), st.integers(1, 40)),
    st.permutations([0, 1, 2]),
    st.sampled_from([np.int16, np.float32, ">f4", np.float64]),
)
def test_values_are_those_of_skimage(
    shape: Any, target: Any, order: list[int], dtype: Any
) -> None:
    shape = tuple(shape[axis] for axis in order)
    target = tuple(target[axis] for axis in order)
    rng = np.random.default_rng(sum(shape))
    array = rng.normal(0, 500, (2, *shape)).astype(dtype)
    # As a reader lays it out, and turned around, as a reoriented scan is.
    scan = np.asfortranarray(array)[:, ::-1]
    got = resample_cubic(scan, map_to(shape, target)).numpy()
    np.testing.assert_allclose(got, by_skimage(scan, target), atol=2e-3)


def test_values_stay_in_the_range_of_the_image() -> None:
    array = np.zeros((1, 12, 12, 12), np.float32)
    array[0, 6:] = 1000  # a step, which splines overshoot
    got = resample_cubic(array, map_to((12, 12, 12), (30, 30, 30)))
    assert (got.min(), got.max()) == (0, 1000)


def test_the_coarse_axis_takes_the_nearest_slice_within_its_own_range() -> None:
    shape = (10, 11, 6)
    apart = ResamplingSpec(
        interpolation="cubic", grid="extent", coarse_axis_ratio=3
    )
    rng = np.random.default_rng(0)
    # Slices whose values do not overlap: what leaks from one to another shows.
    array = rng.uniform(0, 1, (1, *shape)) + 10 * np.arange(6)
    to_network, back = compute_extent_maps(
        (1, 1, 5), shape, (0.6, 0.7, 3), apart
    )
    assert to_network.nearest_axis == back.nearest_axis == 2
    got = resample_cubic(array, to_network).numpy()[0]
    rows, columns, slices = to_network.target
    assert (rows, columns, slices) == (17, 16, 10)
    for k in range(slices):
        nearest = int(np.floor(0.6 * (k + 0.5)))
        (wanted,) = by_skimage(array[..., nearest], (rows, columns))
        np.testing.assert_allclose(got[..., k], wanted, atol=1e-4)


def test_scores_come_back_to_slices_that_are_there() -> None:
    _, back = compute_extent_maps(
        (1, 1, 5),
        (4, 4, 6),
        (1, 1, 2.5),
        ResamplingSpec(grid="extent", coarse_axis_ratio=3),
    )
    taps = back.axis_taps(2)
    assert taps.lower.tolist() == [1, 3, 5, 7, 9, 11]  # halves go up
    assert torch.equal(taps.lower, taps.upper)


@pytest.mark.parametrize(
    ("spacing", "new_spacing", "axis"),
    [
        ((1, 1, 3.1), (1, 1, 1), 2),
        ((1, 1, 3.0), (1, 1, 3.0), None),  # not more than three times
        ((1, 1, 1), (4, 1, 1), 0),  # what it shall become counts, too
        ((5, 1, 1), (1, 1, 5), 0),  # but less than what it is
        ((4, 4, 1), (1, 1, 5), None),  # two axes are not treated apart
    ],
)
def test_the_coarse_axis_is_nnunets(
    spacing: Any, new_spacing: Any, axis: int | None
) -> None:
    assert find_coarse_axis(spacing, new_spacing, 3) == axis
    assert find_coarse_axis(spacing, new_spacing, None) is None


def test_matrices_are_small_and_free_of_denormal_numbers() -> None:
    bands = compute_bands(2000, 2600)
    assert sum(band.weights.numel() for band in bands) < 300_000
    for band in bands:
        held = band.weights[band.weights != 0].abs()
        assert held.min() > 1e-12
        torch.testing.assert_close(
            band.weights.sum(dim=1), torch.ones(len(band.weights))
        )
