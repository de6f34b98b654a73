"""What follows from agreement: Dice of two masks, and a bound that is never too high."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.labels import Label, LabelSet
from medseg.metrics.metrics import score_case
from medseg.quality.agreement import compute_mask_dice, estimate_mask_quality
from medseg.quality.estimates import LabelQuality, Quality

LABELS = LabelSet([Label(1, "a", 1, (255, 0, 0)), Label(2, "b", 2, (0, 255, 0))])


def random_labels(seed: int, share: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.integers(1, 3, (6, 5, 4))
    return np.where(rng.random(made.shape) < share, made, 0).astype(np.uint8)


def test_dice_is_that_of_the_metrics() -> None:
    one, other = random_labels(0), random_labels(1)
    scores = score_case(one, other, LABELS, (1, 1, 1))["dice"]
    assert compute_mask_dice(one, other, LABELS) == pytest.approx(scores)
    only_a = np.where(one == 1, 1, 0).astype(np.uint8)
    assert compute_mask_dice(only_a, only_a, LABELS) == {"a": 1}
    assert compute_mask_dice(only_a, one, LABELS) == {"a": 1, "b": 0}


@given(st.integers(0, 500), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_bound_is_below_the_truth_wherever_the_bundles_own_is(
    seed: int, wrong: float, drawn: float
) -> None:
    rng = np.random.default_rng(seed)
    truth = random_labels(seed)
    own = np.where(rng.random(truth.shape) < wrong, random_labels(seed + 1), truth)
    given_mask = np.where(rng.random(truth.shape) < drawn, random_labels(seed + 2), own)
    certain = compute_mask_dice(own, truth, LABELS)
    quality = Quality(0.9, 0.8, {k: LabelQuality(v, v) for k, v in certain.items()}, True)
    alike = compute_mask_dice(given_mask, own, LABELS)
    judged = estimate_mask_quality(dict.fromkeys(alike, 0.9), alike, quality, None)
    for name, true in compute_mask_dice(given_mask, truth, LABELS).items():
        lower = judged.labels[name].lower if name in judged.labels else None
        assert lower is None or lower <= true + 1e-4
