"""The verdict on a refiner: paired over cases, and only when chance is an unlikely reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case

from medseg.networks.refiner import build_refined, get_trainable_part
from medseg.training.refinement.acceptance import (
    MIN_CASES,
    decide_acceptance,
    score_coarse_and_refined,
)


def pairs(gains: list[float]) -> list[tuple[float, float]]:
    return [(0.8, 0.8 + gain) for gain in gains]


@pytest.mark.parametrize(
    ("gains", "applied"),
    [
        ([0.01, 0.02, 0.01, 0.03, 0.02], True),
        ([-0.01, -0.02, -0.01, -0.03, -0.02], False),
        ([0.1, -0.09, 0.1, -0.08, 0.05, -0.06], False),
        ([0.0] * 8, False),
        ([0.02] * (MIN_CASES - 1), False),
        ([], False),
    ],
)
def test_the_refined_mask_is_used_where_it_is_clearly_better(
    gains: list[float], applied: bool
) -> None:
    finding = decide_acceptance(pairs(gains))
    assert finding.applied is applied
    assert finding.cases == len(gains)
    assert finding.dice_gain == pytest.approx(
        float(np.mean(gains)) if gains else 0.0
    )
    assert finding.interval[0] <= finding.dice_gain + 1e-12
    assert finding.interval[1] >= finding.dice_gain - 1e-12
    assert finding == decide_acceptance(pairs(gains))


def test_both_masks_of_a_case_are_scored() -> None:
    spec = made_spec(refinement={})
    torch.manual_seed(0)
    network = build_refined(spec, both=True)
    cases = [made_case(balls(seed=seed)) for seed in range(2)]
    same = score_coarse_and_refined(spec, network, cases, torch.device("cpu"))
    assert len(same) == 2
    assert all(coarse == refined for coarse, refined in same)
    for parameter in get_trainable_part(network[1]).parameters():
        torch.nn.init.normal_(parameter)
    changed = score_coarse_and_refined(
        spec, network, cases, torch.device("cpu")
    )
    assert [one for one, _ in changed] == [one for one, _ in same]
    assert any(coarse != refined for coarse, refined in changed)
