"""Windows lie and weigh as MONAI's do, and come one after the other in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from torch import nn

from medseg.inference.accumulator import Accumulator, bytes_held
from medseg.inference.windows import Scorer, Windows, cut

CPU = torch.device("cpu")
OUTSIDE = -0.7


def network() -> nn.Module:
    """Sees its neighbours and the window's border, so that every position gives other scores."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh()).eval()


def summed(image: torch.Tensor, windows: Windows, batch_size: int) -> torch.Tensor:
    """Return all scores, collected plane by plane as a labeller sees them."""
    scored = Scorer(network(), CPU, batch_size, OUTSIDE)(image, windows)
    sums = Accumulator(windows, 3, CPU)
    done = torch.full((3, *windows.shape), torch.nan)

    def collect(first: int, stop: int) -> None:
        held = slice(first - sums.first, stop - sums.first)
        done[..., first:stop] = sums.sums[..., held] / sums.weights[..., held]

    for corner, scores in scored:
        if not sums.has_room_for(corner):
            collect(sums.first, corner[2])
            sums.drop_before(corner[2])
        sums.add(corner, scores)
    collect(sums.first, windows.shape[2])
    return done


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(3, 26), st.integers(3, 26), st.integers(3, 70)),
    st.tuples(*[st.sampled_from([4, 9, 16])] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    st.integers(1, 5),
)
def test_scores_are_those_of_monai(
    shape: tuple[int, int, int], size: tuple[int, int, int], overlap: float, batch_size: int
) -> None:
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    inferer = SlidingWindowInferer(
        size, sw_batch_size=4, overlap=overlap, mode="gaussian", padding_mode="constant",
        cval=OUTSIDE,
    )  # fmt: skip
    with torch.inference_mode():
        wanted = inferer(image[None], network())[0]
        got = summed(image, Windows(size, shape, overlap), batch_size)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_windows_come_plane_by_plane() -> None:
    corners = Windows((8, 8, 8), (20, 12, 30), 0.5).corners()
    assert [z for *_, z in corners] == sorted(z for *_, z in corners)
    assert len(set(corners)) == len(corners)


def test_a_small_scan_is_centred_in_its_window() -> None:
    image = torch.ones(2, 3, 8, 9)
    windows = Windows((8, 8, 8), (3, 8, 9), 0.5)
    first = cut(image, windows, windows.corners()[0], OUTSIDE)
    assert first.shape == (2, 8, 8, 8)
    assert (first[:, 2:5] == 1).all()
    assert (first[:, [0, 1, 5, 6, 7]] == OUTSIDE).all()


def test_the_sums_take_what_was_said_and_no_more_for_a_longer_scan() -> None:
    short, long = (Windows((8, 8, 8), (20, 12, length), 0.5) for length in (100, 1000))
    sums = Accumulator(long, 5, CPU)
    assert bytes_held(short, 5) == bytes_held(long, 5) == sums.sums.nbytes + sums.weights.nbytes


class Hungry(nn.Module):
    """Stands for a network on a small GPU: more windows at a time than ``most`` do not fit."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.batches = most, []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        if len(windows) > self.most:
            raise torch.OutOfMemoryError("no memory")
        self.batches.append(len(windows))
        return windows


def test_fewer_windows_at_a_time_where_memory_is_short(caplog: Any) -> None:
    windows = Windows((4, 4, 4), (8, 8, 8), 0.0)
    image = torch.randn(1, 8, 8, 8)
    hungry = Hungry(3)
    found = list(Scorer(hungry, CPU, 8, 0.0)(image, windows))
    assert [corner for corner, _ in found] == windows.corners()
    assert all(torch.equal(score, cut(image, windows, at, 0.0)) for at, score in found)
    assert hungry.batches == [2, 2, 2, 2]
    assert "going on with 2" in caplog.text


def test_too_little_memory_for_one_window_is_an_error() -> None:
    scorer = Scorer(Hungry(0), CPU, 4, 0.0)
    with pytest.raises(torch.OutOfMemoryError):
        list(scorer(torch.zeros(1, 4, 4, 4), Windows((4, 4, 4), (4, 4, 4), 0.0)))
