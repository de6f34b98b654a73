"""Confidence of regions: each under its own sigmoid, judged on what the label map shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import NESTED, made_spec
from support.scores import CPU, logits

from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import ConfidenceSums
from medseg.inference.region_confidence import make_confidence, sum_by_channel
from medseg.inference.windows import Windows
from medseg.networks.decoding import choose_decoding
from medseg.networks.loading import OutputLayout
from medseg.volume import Array

LABELS = made_spec(**NESTED).label_set


def gathered(
    scores: torch.Tensor,
    planes: int,
    given: Array | None = None,
    temperatures: Sequence[float] = (1.0,),
) -> ConfidenceSums:
    shape = (scores.shape[1], scores.shape[2], scores.shape[3])
    windows = Windows((shape[0], shape[1], planes), shape, 0.25)
    sums = Accumulator(windows, len(scores), CPU)
    confidence = make_confidence(
        LABELS, shape, OutputLayout(3), given, temperatures
    )
    for corner in windows.corners():
        if not sums.has_room_for(corner):
            confidence.add_before(corner[2], sums)
            sums.drop_before(corner[2])
        sums.add(corner, scores[..., corner[2] : corner[2] + planes])
    confidence.add_before(shape[2], sums)
    return confidence.sums


def check(
    found: ConfidenceSums,
    scores: torch.Tensor,
    labels: Array,
    row: int = 0,
    temperature: float = 1.0,
) -> None:
    """Compare with the sums over the whole scan, written out."""
    p = (scores.double() / temperature).sigmoid().numpy()
    masks = np.array(
        [np.isin(labels, region.labels) for region in LABELS.regions]
    )
    got = found.expected_dice(LABELS, row)
    for region, each, mask in zip(LABELS.regions, p, masks, strict=True):
        if mask.any():
            dice = 2 * each[mask].sum() / (each.sum() + mask.sum())
            assert got[region.name] == pytest.approx(dice, abs=1e-5)
    if row == 0:
        wrong = 100 * np.abs(masks - p).max(axis=0)
        assert np.abs(found.errors - wrong).max() <= 0.51


@settings(max_examples=20)
@given(st.integers(5, 60), st.integers(3, 9), st.integers(0, 5))
def test_it_is_the_expected_dice_of_each_region(
    depth: int, planes: int, seed: int
) -> None:
    scores = logits((6, 5, depth), seed=seed)
    painting = choose_decoding(LABELS)
    labels = painting.to_labels(painting.find_winners(scores).winners.numpy())
    check(gathered(scores, min(planes, depth)), scores, labels)


@settings(max_examples=10)
@given(st.integers(5, 40), st.integers(0, 5))
def test_labels_that_are_given_are_judged_by_the_same_probabilities(
    depth: int, seed: int
) -> None:
    scores = logits((6, 5, depth), seed=seed)
    labels = (
        np.random.default_rng(seed)
        .integers(0, 4, (6, 5, depth))
        .astype(np.uint8)
    )
    check(gathered(scores, 5, labels), scores, labels)


def test_every_temperature_is_added_up_by_itself() -> None:
    scores = logits((6, 5, 12), seed=7)
    painting = choose_decoding(LABELS)
    labels = painting.to_labels(painting.find_winners(scores).winners.numpy())
    found = gathered(scores, 5, temperatures=(0.5, 2.0))
    for row, temperature in enumerate((0.5, 2.0)):
        check(found, scores, labels, row, temperature)


def test_what_is_not_there_has_no_score() -> None:
    assert (
        gathered(torch.full((3, 4, 4, 4), -9.0), 4).expected_dice(LABELS) == {}
    )


def test_voxels_of_labels_become_those_of_regions() -> None:
    assert sum_by_channel(np.array([9.0, 1, 2, 4]), LABELS).tolist() == [
        7,
        6,
        4,
    ]
    plain = np.array([9.0, 1, 2])
    assert (
        sum_by_channel(plain, made_spec().label_set).tolist() == plain.tolist()
    )
