"""Clicks that the network does not follow are obeyed; those that it follows change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.inference.click_field import REACH, obey_clicks

EVEN = (1.0, 1.0, 1.0)
NONE = np.empty((0, 3))


def scores_of(margin: Any) -> Any:
    """Return scores of background, a label and another one, which the second leads by a margin."""
    scores = np.zeros((3, *margin.shape), np.float32)
    scores[1] = margin
    scores[2] = -50
    return scores


def points(*voxels: tuple[float, float, float]) -> Any:
    return np.array(voxels, float)


def test_a_click_that_is_followed_changes_nothing() -> None:
    scores = scores_of(np.full((9, 9, 9), 3.0))
    assert not obey_clicks(scores, 1, points((4, 4, 4)), NONE, EVEN).any()
    assert not obey_clicks(scores, 0, NONE, points((4, 4, 4)), EVEN).any()
    assert not obey_clicks(scores, 1, NONE, NONE, EVEN).any()


def test_a_border_moves_as_far_behind_a_click_as_it_was_before_it() -> None:
    along = np.arange(24.0)
    margin = np.broadcast_to((9.5 - along)[:, None, None], (24, 21, 21))
    scores = scores_of(margin)
    scores[1] += obey_clicks(scores, 1, points((12, 10, 10)), NONE, EVEN)
    found = scores.argmax(0) == 1
    middle = int(found[:, 10, 10].sum())
    assert 13 <= middle <= 15
    # Far from the click it stays where it was.
    assert found[:, 0, 0].sum() == 10


@settings(max_examples=30)
@given(
    clicks=st.lists(
        st.tuples(*[st.integers(0, 7)] * 3), min_size=1, max_size=6, unique=True
    ),
    seed=st.integers(0, 99),
    split=st.integers(0, 6),
)
def test_every_click_is_obeyed(clicks: Any, seed: int, split: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 4, (3, 8, 8, 8))
    scores = noise.astype(np.float32)
    inside, outside = clicks[:split], clicks[split:]
    field = obey_clicks(
        scores,
        1,
        np.array(inside).reshape(-1, 3),
        np.array(outside).reshape(-1, 3),
        EVEN,
    )
    scores[1] += field
    winners = scores.argmax(0)
    assert all(winners[voxel] == 1 for voxel in inside)
    assert all(winners[voxel] != 1 for voxel in outside)


def test_opposite_clicks_side_by_side_do_not_reach_beyond_themselves() -> None:
    scores = scores_of(np.full((21, 21, 21), -2.0))
    inside, outside = points((10, 10, 10)), points((11, 10, 10))
    field = obey_clicks(scores, 1, inside, outside, EVEN)
    assert np.abs(field).max() == pytest.approx(4.0, abs=0.1)


def test_a_click_reaches_as_far_in_mm_along_every_axis() -> None:
    scores = scores_of(np.full((31, 31, 31), -2.0))
    field = obey_clicks(scores, 1, points((15, 15, 15)), NONE, (1, 1, 3))
    assert field[15 + 3, 15, 15] == pytest.approx(field[15, 15, 15 + 1])
    ratio = field[15 + int(REACH), 15, 15] / field[15, 15, 15]
    assert ratio == pytest.approx(np.exp(-1))


def test_clicks_outside_the_window_are_left_out() -> None:
    scores = scores_of(np.full((9, 9, 9), -2.0))
    far = points((40, 4, 4), (-3, 4, 4))
    assert not obey_clicks(scores, 1, far, NONE, EVEN).any()


def test_two_clicks_on_one_voxel_are_no_error() -> None:
    scores = scores_of(np.full((9, 9, 9), -2.0))
    twice = points((4, 4, 4), (4, 4, 4))
    field = obey_clicks(scores, 1, twice, points((4, 4, 4)), EVEN)
    assert np.isfinite(field).all()
