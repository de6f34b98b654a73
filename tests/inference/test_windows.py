"""Windows lie and weigh as MONAI's do, and come one after the other in bounded memory."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from torch import nn

from medseg.inference.accumulator import Accumulator, count_planes_held
from medseg.inference.windows import Windows, cut_window

CPU = torch.device("cpu")
OUTSIDE = -0.7


def network() -> nn.Module:
    """Sees its neighbours and the window's border, so that every position gives other scores."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Tanh()).eval()


def summed(image: torch.Tensor, windows: Windows) -> torch.Tensor:
    """Return all scores, collected plane by plane as a label writer sees them."""
    net = network()
    sums = Accumulator(windows, 3, CPU)
    done = torch.full((3, *windows.shape), torch.nan)

    def collect(first: int, stop: int) -> None:
        held = slice(first - sums.first, stop - sums.first)
        done[..., first:stop] = sums.sums[..., held] / sums.weights[..., held]

    for corner in windows.corners():
        scores = net(cut_window(image, windows, corner, OUTSIDE)[None])[0]
        if not sums.has_room_for(corner):
            collect(sums.first, corner[2])
            sums.drop_before(corner[2])
        sums.add(corner, scores)
    collect(sums.first, windows.shape[2])
    return done


@settings(max_examples=25, deadline=None)
@given(
    # Several windows along the last axis, so that planes are dropped on the way.
    st.tuples(st.integers(3, 20), st.integers(3, 20), st.integers(3, 50)),
    st.tuples(*[st.sampled_from([4, 9, 16])] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.8]),
)
def test_scores_are_those_of_monai(
    shape: tuple[int, int, int], size: tuple[int, int, int], overlap: float
) -> None:
    image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    inferer = SlidingWindowInferer(
        size, sw_batch_size=4, overlap=overlap, mode="gaussian", padding_mode="constant",
        cval=OUTSIDE,
    )  # fmt: skip
    with torch.inference_mode():
        wanted = inferer(image[None], network())[0]
        got = summed(image, Windows(size, shape, overlap))
    assert torch.allclose(got, wanted, atol=1e-5)


def test_windows_come_plane_by_plane() -> None:
    corners = Windows((8, 8, 8), (20, 12, 30), 0.5).corners()
    assert [z for *_, z in corners] == sorted(z for *_, z in corners)
    assert len(set(corners)) == len(corners)


def test_a_small_scan_is_centred_in_its_window() -> None:
    image = torch.ones(2, 3, 8, 9)
    windows = Windows((8, 8, 8), (3, 8, 9), 0.5)
    first = cut_window(image, windows, windows.corners()[0], OUTSIDE)
    assert first.shape == (2, 8, 8, 8)
    assert (first[:, 2:5] == 1).all()
    assert (first[:, [0, 1, 5, 6, 7]] == OUTSIDE).all()


def test_the_outermost_voxels_may_lie_around_a_small_scan() -> None:
    image = torch.arange(1.0, 4).reshape(1, 3, 1, 1).expand(2, 3, 8, 9)
    windows = Windows((8, 8, 8), (3, 8, 9), 0.5)
    corner = windows.corners()[0]
    window = cut_window(image, windows, corner, OUTSIDE, repeats_border=True)
    assert window[0, :, 0, 0].tolist() == [1, 1, 1, 2, 3, 3, 3, 3]


def test_even_steps_look_at_each_slice_once() -> None:
    windows = Windows((16, 16, 1), (40, 40, 10), 0.5, are_even=True)
    assert windows.starts(0) == [0, 8, 16, 24]
    assert windows.starts(2) == list(range(10))


def test_windows_in_nnunets_order_come_by_the_first_axis_and_hold_all_planes() -> (
    None
):
    windows = Windows((4, 4, 4), (6, 4, 40), 0.5, keep_order=True)
    corners = windows.corners()
    assert corners == sorted(corners)
    streamed = Windows((4, 4, 4), (6, 4, 40), 0.5)
    assert sorted(streamed.corners()) == corners
    assert streamed.corners() != corners
    assert count_planes_held(windows) == 40
    assert count_planes_held(streamed) < 40
