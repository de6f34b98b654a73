"""Sums of a few planes: as much memory as was planned, and nothing left of what was dropped."""

from __future__ import annotations

import pytest
import torch

from medseg.inference.accumulator import (
    SPARE_PLANES,
    Accumulator,
    count_bytes_held,
)
from medseg.inference.windows import Windows

CPU = torch.device("cpu")


def test_the_sums_take_the_memory_that_was_planned_and_no_more_for_a_longer_scan() -> (
    None
):
    short, long = (
        Windows((8, 8, 8), (20, 12, length), 0.5) for length in (100, 1000)
    )
    sums = Accumulator(long, 5, CPU)
    assert (
        count_bytes_held(short, 5)
        == count_bytes_held(long, 5)
        == sums.sums.nbytes + sums.weights.nbytes
    )


@pytest.mark.parametrize("step", [0, 1, 3, 7, 20, 24])
def test_planes_move_to_the_front_and_leave_zeros(step: int) -> None:
    sums = Accumulator(Windows((4, 4, 8), (4, 4, 100), 0.5), 2, CPU)
    planes = 8 + SPARE_PLANES
    sums.sums[:] = torch.arange(1.0, planes + 1)
    sums.weights[:] = torch.arange(1.0, planes + 1)
    sums.drop_before(step)
    expected = torch.cat(
        [torch.arange(step + 1.0, planes + 1), torch.zeros(step)]
    )
    assert sums.first == step
    assert torch.equal(sums.sums[1, 2, 3], expected)
    assert torch.equal(sums.weights[0, 1], expected)


def test_a_window_has_room_while_all_its_planes_are_held() -> None:
    sums = Accumulator(Windows((4, 4, 8), (4, 4, 100), 0.5), 2, CPU)
    assert sums.has_room_for((0, 0, SPARE_PLANES))
    assert not sums.has_room_for((0, 0, SPARE_PLANES + 1))
    sums.drop_before(5)
    assert sums.has_room_for((0, 0, SPARE_PLANES + 5))
    assert not sums.has_room_for((0, 0, SPARE_PLANES + 6))


def test_labels_are_taken_from_some_of_the_scores() -> None:
    shape = (4, 5, 6)
    sums = Accumulator(Windows(shape, shape, 0.0), 4, CPU, slice(2, 4))
    scores = torch.randn(4, *shape)
    sums.add((0, 0, 0), scores)
    assert torch.allclose(sums.labelled / sums.weights, scores[2:4], atol=1e-5)
