"""Validation scores whole cases as the network segments them."""

from __future__ import annotations

import pytest
import torch
from support.bundles import made_spec
from support.sessions import CPU, made_cases
from torch import nn
from torch.nn import functional

from medseg.training.validation import validate_network

SPEC = made_spec()


class Oracle(nn.Module):
    """Predicts the labels that the image shows, moved by some voxels along x."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self._shift = shift

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shown = image[:, 0].round().long().roll(self._shift, dims=1)
        return 10 * functional.one_hot(shown, 3).movedim(-1, 1).float()


def test_perfect_predictions_have_perfect_scores() -> None:
    cases = made_cases(3)
    validation = validate_network(Oracle(), cases, SPEC, CPU, torch.float32)
    assert validation.scores["dice"] == {
        "liver": 1.0,
        "kidney": 1.0,
        "mean": 1.0,
    }
    assert validation.scores["hd95"]["mean"] == 0
    assert [scores.case for scores in validation.cases] == [
        case.case_id for case in cases
    ]
    assert validation.examples == {}


def test_scores_are_means_over_cases() -> None:
    validation = validate_network(
        Oracle(shift=1), made_cases(3), SPEC, CPU, torch.float32
    )
    dice = [scores["dice"]["liver"] for scores in validation.cases]
    assert 0 < validation.scores["dice"]["liver"] < 1
    assert validation.scores["dice"]["liver"] == pytest.approx(sum(dice) / 3)


def test_predictions_of_the_first_cases_are_kept_as_examples() -> None:
    cases = made_cases(3)
    validation = validate_network(
        Oracle(), cases, SPEC, CPU, torch.float32, examples=2
    )
    assert list(validation.examples) == [case.case_id for case in cases[:2]]
    for case in cases[:2]:
        assert torch.equal(
            validation.examples[case.case_id].int(), case.label[0].int()
        )
