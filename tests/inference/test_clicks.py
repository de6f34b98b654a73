"""Clicks are finite numbers inside the scan; anything else is refused in one clear sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medseg.errors import ScanError
from medseg.inference.clicks import MOST_CLICKS, find_voxels, parse_clicks
from medseg.volume import Volume

SCAN = Volume(np.zeros((1, 10, 12, 8), np.float32), np.diag([-2.0, 1, 3, 1]))
SLICE = Volume(np.zeros((1, 10, 12, 1), np.float32), np.eye(4))


@pytest.mark.parametrize(
    ("clicks", "reason"),
    [
        ("9,9,9", "must be a list"),
        (7, "must be a list"),
        ({"0": [1, 2, 3]}, "must be a list"),
        ([1, 2, 3], "three numbers"),
        ([[1, 2]], "2 numbers were sent"),
        ([[1, 2, 3, 4]], "4 numbers were sent"),
        ([[]], "0 numbers were sent"),
        ([[1, 2, "3"]], "finite numbers"),
        ([[1, 2, None]], "finite numbers"),
        ([[1, 2, True]], "finite numbers"),
        ([[1, 2, [3]]], "finite numbers"),
        (["123"], "finite numbers"),
        ([[1, 2, float("nan")]], "finite numbers"),
        ([[1, 2, float("inf")]], "finite numbers"),
        ([[1, 2, 10**400]], "finite numbers"),
        ([[-1, 2, 3]], r"\[-1\.0, 2\.0, 3\.0\] lies outside the scan"),
        ([[9.6, 2, 3]], r"\[9, 11, 7\]"),
        ([[1, 2, 1e300]], "lies outside the scan"),
        ([[1, 2, 3]] * (MOST_CLICKS + 1), "501 were sent"),
    ],
)
def test_what_is_no_click_is_refused(clicks: Any, reason: str) -> None:
    with pytest.raises(ScanError, match=reason):
        parse_clicks(clicks, SCAN)


def test_voxels_reach_half_their_size_from_their_centre() -> None:
    points = parse_clicks([[-0.5, 11.5, 7.4], [0, 0.5, 1.49]], SCAN)
    assert find_voxels(points, SCAN.shape).tolist() == [[0, 11, 7], [0, 1, 1]]
    assert parse_clicks([], SCAN).shape == (0, 3)
    assert parse_clicks(np.array([[1, 2, 3]]), SCAN).tolist() == [[1, 2, 3]]


def test_millimetres_become_voxels() -> None:
    points = parse_clicks([[-8, 5, 9]], SCAN, space="ras")
    assert points.tolist() == [[4, 5, 3]]
    with pytest.raises(ScanError, match="outside the scan"):
        parse_clicks([[8, 5, 9]], SCAN, space="ras")
    with pytest.raises(ScanError, match="'voxel' or 'ras'"):
        parse_clicks([], SCAN, space="lps")  # type: ignore[arg-type]


def test_in_a_picture_two_numbers_do() -> None:
    assert parse_clicks([[3, 4]], SLICE).tolist() == [[3, 4, 0]]
