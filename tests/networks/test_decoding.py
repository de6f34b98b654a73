"""Regions are painted in order; on any grid as if all logits were resampled first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import NESTED, made_spec
from support.scores import CPU, blobs

from medseg.errors import MedsegError
from medseg.inference.accumulator import Accumulator
from medseg.inference.label_writer import LabelWriter
from medseg.inference.windows import Windows
from medseg.networks.decoding import Decoding, choose_decoding
from medseg.preprocessing.grid_map import GridMap, compute_spacing_maps
from medseg.preprocessing.resampling import resample_linear
from medseg.volume import Array


def painted(logits: torch.Tensor, paints: tuple[int, ...]) -> Array:
    """Paint whole label maps, one region after the other."""
    labels: Array = np.zeros(logits.shape[1:], np.uint8)
    for region, value in zip(logits.sigmoid().numpy(), paints, strict=True):
        labels[region > 0.5] = value
    return labels


def labelled(
    logits: torch.Tensor, back: GridMap, planes: int, painting: Decoding
) -> Array:
    shape = (logits.shape[1], logits.shape[2], logits.shape[3])
    windows = Windows((shape[0], shape[1], planes), shape, 0.0)
    labels: Array = np.full(back.target, 99, np.uint8)
    writer = LabelWriter(back, labels, CPU, painting)
    sums = Accumulator(windows, len(logits), CPU)
    for corner in windows.corners():
        if not sums.has_room_for(corner):
            sums.drop_before(writer.write_before(corner[2], sums))
        sums.add(corner, logits[..., corner[2] : corner[2] + planes])
    writer.write_before(shape[2], sums)
    return labels


def test_a_later_region_is_painted_over_an_earlier_one() -> None:
    logits = torch.tensor(
        [[5.0, 5.0, 5.0, -1.0, -1.0], [-1.0, 5.0, 5.0, -1.0, 3.0]]
    )
    logits = torch.cat([logits, torch.tensor([[-1.0, -1.0, 0.1, 0.0, -2.0]])])
    painting = choose_decoding(made_spec(**NESTED).label_set)
    found = painting.to_labels(painting.find_winners(logits).winners.numpy())
    assert found.tolist() == [1, 2, 3, 0, 2]  # 0 is in no region


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60)),
    st.tuples(*[st.floats(0.4, 2.5)] * 3),
    st.sampled_from([(1,), (3, 1, 2), (2, 2, 1)]),
    st.sampled_from([0.5, 3.0]),
    st.sampled_from([0.0, 0.0, 0.4]),
)
def test_label_maps_are_those_of_all_logits_resampled_and_painted(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    paints: tuple[int, ...],
    roughness: float,
    shear: float,
) -> None:
    affine = np.eye(4)
    affine[1, 2] = affine[0, 1] = shear
    there, back = compute_spacing_maps(affine, shape, spacing)
    # Of one number there is no spread.
    logits = blobs(there.target, len(paints) + 1, roughness)[1:]
    on_scan = resample_linear(logits.numpy(), back)
    got = labelled(logits, back, min(5, there.target[2]), Decoding(paints))
    close = (on_scan.abs() < 1e-5).any(dim=0).numpy()
    assert not ((got != painted(on_scan, paints)) & ~close).any()


@pytest.mark.parametrize("count", [254, 255, 300])
def test_many_regions(count: int) -> None:
    back = GridMap(np.diag([0.5, 0.5, 0.5, 1]), (4, 4, 4), (7, 7, 7))
    logits = blobs((4, 4, 4), count, 3.0) - 2
    logits[-1, 1] += 9
    paints = tuple(1 + place % 7 for place in range(count))
    on_scan = resample_linear(logits.numpy(), back)
    assert np.array_equal(
        labelled(logits, back, 4, Decoding(paints)), painted(on_scan, paints)
    )


def test_logits_that_are_no_numbers_are_an_error() -> None:
    logits = torch.full((2, 4, 4, 4), -1.0)
    logits[0, 2, 2, 2] = float("nan")
    same = GridMap(np.eye(4), (4, 4, 4), (4, 4, 4))
    with pytest.raises(MedsegError, match="fp32"):
        labelled(logits, same, 4, Decoding((1, 2)))
