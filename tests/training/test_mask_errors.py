"""Errors in masks: each kind does what it says, leaves most voxels, and is all chance's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.cases import balls

from medseg.training import mask_errors
from medseg.training.mask_errors import (
    MASK_ERRORS,
    corrupt_mask,
    soften_mask,
)


def chance(seed: int) -> tuple[np.random.Generator, torch.Generator]:
    return np.random.default_rng(seed), torch.Generator().manual_seed(seed)


def label_of(dims: int) -> torch.Tensor:
    label = torch.from_numpy(balls()).long()
    return (
        label
        if dims == 3
        else label[..., int((label > 0).sum((0, 1)).argmax())]
    )


def square() -> torch.Tensor:
    """Return one square of 5 voxels in the middle of 15."""
    label = torch.zeros(15, 15).long()
    label[5:10, 5:10] = 1
    return label


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "put_error", MASK_ERRORS, ids=lambda error: error.__name__
)
def test_each_error_changes_some_voxels_and_leaves_most(
    put_error: Any, dims: int
) -> None:
    label = label_of(dims)
    kept = label.clone()
    changed = 0
    for seed in range(10):
        wrong = put_error(label, 3, *chance(seed))
        assert torch.equal(wrong, put_error(label, 3, *chance(seed)))
        assert wrong.shape == label.shape
        assert wrong.dtype == torch.int64
        assert 0 <= int(wrong.min()) <= int(wrong.max()) <= 2
        assert (wrong != label).float().mean() < 0.35
        changed += not torch.equal(wrong, label)
    assert changed >= 8
    assert torch.equal(label, kept)


def test_growing_and_shrinking_move_the_border_by_one_or_two_voxels() -> None:
    grown = {
        int(mask_errors._grow(square(), 2, *chance(n)).sum()) for n in range(20)
    }
    shrunk = {
        int(mask_errors._shrink(square(), 2, *chance(n)).sum())
        for n in range(20)
    }
    assert grown == {7**2, 9**2}
    assert shrunk == {3**2, 1}


def test_a_shift_moves_the_whole_structure_by_at_most_three_voxels() -> None:
    offsets = set()
    for seed in range(60):
        moved = mask_errors._shift(square(), 2, *chance(seed)).nonzero()
        assert len(moved) == 25
        low = moved.min(dim=0).values
        assert torch.equal(moved.max(dim=0).values - low, torch.tensor([4, 4]))
        offsets |= set((low - 5).tolist())
    assert offsets == {-3, -2, -1, 0, 1, 2, 3}


def test_what_leaves_the_patch_does_not_come_back_at_the_other_side() -> None:
    mask = torch.ones(4, 4, dtype=torch.bool)
    assert mask_errors._translate(mask, [1, 0])[0].tolist() == [False] * 4
    assert mask_errors._translate(mask, [-1, 0])[-1].tolist() == [False] * 4
    assert not mask_errors._translate(mask, [0, 5]).any()


def test_an_error_makes_a_ragged_border_and_leaves_the_inside() -> None:
    ragged = mask_errors._roughen(square(), 2, *chance(1))
    assert (ragged[6:9, 6:9] == 1).all()
    assert not ragged[:4].any()
    assert not torch.equal(ragged, square())


@pytest.mark.parametrize("dims", [2, 3])
def test_errors_take_away_and_add(dims: int) -> None:
    label = label_of(dims)
    wrong = [corrupt_mask(label, 3, *chance(seed)) for seed in range(40)]
    lost = [bool(((mask == 0) & (label > 0)).any()) for mask in wrong]
    added = [bool(((mask > 0) & (label == 0)).any()) for mask in wrong]
    assert 10 < sum(lost) < 40
    assert 10 < sum(added) < 40


def test_an_empty_patch_gets_false_structures_or_stays_empty() -> None:
    wrong = [
        corrupt_mask(torch.zeros(8, 8, 8).long(), 3, *chance(seed))
        for seed in range(20)
    ]
    assert 0 < sum(bool(mask.any()) for mask in wrong) < 20


@pytest.mark.parametrize("dims", [2, 3])
def test_soft_masks_are_log_probabilities_that_are_never_quite_sure(
    dims: int,
) -> None:
    label = label_of(dims)
    for seed in range(10):
        logits = soften_mask(label, 3, np.random.default_rng(seed))
        assert logits.shape == (3, *label.shape)
        assert torch.allclose(
            logits.exp().sum(0), torch.ones(label.shape), atol=1e-5
        )
        assert logits.exp().max() < 1
        assert (logits.argmax(0) == label).float().mean() > 0.95
