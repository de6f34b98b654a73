"""What a network sees of clicks: a Gaussian at each, and nothing where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.networks.click_inputs import (
    WithoutClicks,
    append_no_clicks,
    draw_click_inputs,
    draw_clicks,
)


def test_a_click_is_a_gaussian_and_of_two_the_higher_counts() -> None:
    drawn = draw_clicks([(2, 3), (2, 6)], (5, 9), sigma=1.5)
    assert drawn[2, 3] == drawn[2, 6] == drawn.max() == 1
    assert drawn[3, 3].item() == pytest.approx(0.8007, abs=1e-4)
    assert drawn[0, 3].item() == pytest.approx(0.4111, abs=1e-4)
    assert drawn[2, 4] == drawn[2, 5] == drawn[2, 2]
    assert not draw_clicks([], (5, 9), sigma=1.5).any()


def test_inside_outside_and_mask_follow_each_other() -> None:
    mask = torch.zeros(4, 5, 6, dtype=torch.bool)
    mask[1:3] = True
    drawn = draw_click_inputs([(1, 1, 1)], [(3, 4, 5)], mask, sigma=1)
    assert drawn.shape == (3, 4, 5, 6)
    assert drawn[0, 1, 1, 1] == drawn[1, 3, 4, 5] == 1
    assert torch.equal(drawn[2], mask.float())


def test_only_what_is_missing_is_added_and_it_is_empty() -> None:
    images = torch.rand(2, 1, 4, 4)
    filled = append_no_clicks(images, 4)
    assert torch.equal(filled[:, :1], images)
    assert not filled[:, 1:].any()
    assert append_no_clicks(filled, 4) is filled
    network = nn.Conv2d(4, 2, 3).eval()
    wrapped = WithoutClicks(network, 4)
    assert not wrapped.training
    assert torch.equal(wrapped(images), network(filled))
