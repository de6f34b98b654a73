"""Which voxels show nothing, and that they stay known whatever happens to their image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import GeometryError, ScanError
from medseg.io import stack_channels, with_channels
from medseg.io.adapters import as_volume
from medseg.padding import (
    Padding,
    join_padding,
    replace_nonfinite,
    stack_padding,
)
from medseg.volume import Volume

SHAPE = (2, 3, 5, 4)


def a_mask(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Half of the voxels, but for one slice without any."""
    is_padding = np.random.default_rng(seed).random(shape) < 0.5
    is_padding[0, :, :, 1] = False
    return is_padding


def a_volume(is_padding: np.ndarray) -> Volume:
    """Values that tell where each voxel was."""
    array = np.arange(is_padding.size, dtype=np.float32)
    array = array.reshape(is_padding.shape)
    padding = Padding.from_mask(is_padding)
    return Volume(array, np.diag([1.0, 2, 3, 1]), padding=padding)


def test_a_mask_comes_back_as_it_was_put_in() -> None:
    is_padding = a_mask()
    padding = Padding.from_mask(is_padding)
    assert np.array_equal(padding.get_mask(), is_padding)
    assert np.array_equal(padding.get_channel(1), is_padding[1])
    assert np.array_equal(padding.get(2, 1), is_padding[1, :, :, 2])
    assert not Padding.from_mask(np.zeros(SHAPE, bool))


def test_two_lists_of_one_image_are_joined() -> None:
    first, second = a_mask(1), a_mask(2)
    joined = join_padding(Padding.from_mask(first), Padding.from_mask(second))
    assert joined is not None
    assert np.array_equal(joined.get_mask(), first | second)
    assert join_padding(None, joined) is joined
    assert join_padding(joined, None) is joined


def test_channels_keep_their_own_padding_where_images_are_stacked() -> None:
    is_padding = a_mask()
    plain = replace(a_volume(is_padding), padding=None)
    stacked = stack_channels([plain, a_volume(is_padding)])
    assert stacked.padding is not None
    expected = np.concatenate([np.zeros(SHAPE, bool), is_padding])
    assert np.array_equal(stacked.padding.get_mask(), expected)
    assert stack_padding([None, None], [SHAPE, SHAPE]) is None
    grey = a_volume(np.eye(4, 5, dtype=bool)[None, ..., None])
    colours = with_channels(grey, 3)
    assert colours.padding is not None
    assert grey.padding is not None
    mask = grey.padding.get_mask()
    assert np.array_equal(colours.padding.get_mask(), np.repeat(mask, 3, 0))


def test_padding_follows_its_voxels_into_another_order() -> None:
    is_padding = a_mask()
    stored = a_volume(is_padding)
    # A grid that runs along the volume's axes in another order and from other ends.
    wanted = Volume(
        np.zeros((1, 4, 3, 5), np.uint8),
        np.array([[0, -1, 0, 2], [0, 0, 2, 0], [-3, 0, 0, 9], [0, 0, 0, 1.0]]),
    )
    reordered = wanted.reorder_to_grid(stored, "the scan and another")
    assert reordered.shape == (4, 3, 5)
    assert reordered.padding is not None
    hidden = reordered.padding.get_mask()
    shown_before = sorted(stored.array[~is_padding].tolist())
    assert sorted(reordered.array[~hidden].tolist()) == shown_before


def test_padding_stays_with_other_voxels_of_the_same_image_alone() -> None:
    scan = a_volume(a_mask())
    assert scan.with_array(scan.array + 1).padding is scan.padding
    assert scan.with_array(scan.array[:1]).padding is None
    assert scan.grid.padding is None
    with pytest.raises(GeometryError, match="padding of shape"):
        replace(scan, array=scan.array[:1])


def test_what_is_shown_are_the_other_voxels() -> None:
    is_padding = a_mask()
    scan = a_volume(is_padding)
    for channel in (0, 1):
        expected = scan.array[channel][~is_padding[channel]]
        assert np.array_equal(np.sort(scan.get_shown(channel)), expected)
    plain = replace(scan, padding=None)
    assert np.shares_memory(plain.get_shown(0), plain.array)


def test_numbers_that_are_none_join_what_is_padding_already() -> None:
    is_padding = a_mask()
    scan = a_volume(is_padding)
    shown = np.argwhere(~is_padding)[0]
    scan.array[tuple(shown)] = np.nan
    padding = as_volume(scan).padding
    assert padding is not None
    expected = is_padding.copy()
    expected[tuple(shown)] = True
    assert np.array_equal(padding.get_mask(), expected)


@given(
    st.lists(
        st.floats(width=32, allow_nan=True, allow_infinity=True),
        min_size=24,
        max_size=24,
    )
)
def test_what_is_no_number_takes_the_lowest_value_and_is_counted(
    values: list[float],
) -> None:
    before = np.array(values, np.float32).reshape(2, 3, 4)
    image = before.copy()
    finite = np.isfinite(before)
    if not finite.any():
        with pytest.raises(ScanError, match="no voxel of a channel") as caught:
            replace_nonfinite(image, "a.nii")
        assert caught.value.source == "a.nii"
        return
    padding, warnings = replace_nonfinite(image)
    marked = padding.get_mask()[0] if padding else np.zeros((2, 3, 4), bool)
    assert np.array_equal(marked, ~finite)
    assert np.array_equal(image[finite], before[finite])
    assert (image[~finite] == before[finite].min()).all()
    count = np.count_nonzero(~finite)
    expected = [f"{count} of 24 voxels were not numbers"] if count else []
    assert [warning[: len(expected[0])] for warning in warnings] == expected


def test_each_channel_has_a_lowest_value_of_its_own() -> None:
    image = np.ones((3, 4, 5, 2), np.float32)
    image[..., 1] = -1024
    image[0, 0, 0], image[2, 3, 4, 1] = np.nan, -np.inf
    padding, (warning,) = replace_nonfinite(image)
    assert warning.startswith("3 of 120 voxels")
    assert image[0, 0, 0].tolist() == [1, -1024]
    assert image[2, 3, 4].tolist() == [1, -1024]
    assert padding is not None
    assert padding.shape == (2, 3, 4, 5)
    marked = np.argwhere(padding.get_mask()).tolist()
    assert marked == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 3, 4]]


def test_integers_are_left_alone() -> None:
    image = np.ones((3, 4, 5), np.int16)
    assert replace_nonfinite(image) == (None, ())
