"""The box that a bundle looks at holds what it looks at, and nothing more."""

from __future__ import annotations

import numpy as np
import pytest
from support.bundles import made_spec

from medseg.errors import ScanError
from medseg.preprocessing.foreground import find_box
from medseg.volume import Volume


def scan(*places: tuple[int, int, int, int], value: float = 7.0) -> Volume:
    array = np.zeros((2, 9, 8, 7), np.float32)
    for place in places:
        array[place] = value
    return Volume(array, np.eye(4), source="scan")


def test_a_voxel_at_the_threshold_is_not_above_it() -> None:
    prep = made_spec(preprocessing={"crop_above": 7.0}).preprocessing
    volume = scan((0, 1, 1, 1))
    volume.array[0, 4, 5, 6] = 7.5
    box = find_box(volume.array, prep, volume)
    assert box == (slice(4, 5), slice(5, 6), slice(6, 7))


@pytest.mark.parametrize("value", [7.0, -7.0])
def test_what_is_not_zero_in_any_channel_is_looked_at(value: float) -> None:
    prep = made_spec(preprocessing={"crop_nonzero": True}).preprocessing
    volume = scan((0, 2, 1, 3), (1, 6, 5, 4), value=value)
    box = find_box(volume.array, prep, volume)
    assert box == (slice(2, 7), slice(1, 6), slice(3, 5))


def test_voxels_are_kept_around_the_box_as_far_as_there_are_any() -> None:
    section = {"crop_above": 0.0, "crop_margin": 2}
    prep = made_spec(preprocessing=section).preprocessing
    volume = scan((0, 4, 1, 5))
    box = find_box(volume.array, prep, volume)
    assert box == (slice(2, 7), slice(0, 4), slice(3, 7))


def test_a_scan_of_zeros_is_refused_by_the_field_at_fault() -> None:
    prep = made_spec(preprocessing={"crop_nonzero": True}).preprocessing
    with pytest.raises(ScanError, match="crop_nonzero"):
        find_box(scan().array, prep, scan())
