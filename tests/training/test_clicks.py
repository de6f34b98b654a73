"""Simulated clicks hit the largest error, see what the network sees, and repeat exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec
from support.cases import balls
from torch import nn

from medseg.training.clicks import ClickSimulator, find_next_click

ITEMS = range(6)


def spec_of(**clicks: Any) -> Any:
    training = {"patch": [24, 28, 20], "clicks": {"share": 0.9, **clicks}}
    return made_spec(training=training)


class Fixed(nn.Module):
    """Segments whatever it sees as one label map, and notes what it sees."""

    def __init__(self, labels: Any) -> None:
        super().__init__()
        self.labels = torch.from_numpy(labels).long()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.clone())
        one_hot = nn.functional.one_hot(self.labels, 3).movedim(-1, 0)
        return one_hot.float().expand(len(images), -1, -1, -1, -1)


def simulate(
    labels: Any, network: nn.Module, spec: Any, step: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.from_numpy(labels).long().expand(len(ITEMS), 1, -1, -1, -1)
    images = torch.rand(len(ITEMS), 1, *labels.shape)
    simulator = ClickSimulator(network, spec, lambda image, net: net(image))
    inputs, told = simulator(images, truth, step, ITEMS)
    assert torch.equal(truth, torch.from_numpy(labels).long().expand_as(truth))
    return inputs, told


def test_the_middle_of_the_largest_error_is_clicked_on() -> None:
    reference = np.zeros((20, 20), bool)
    reference[2:9, 2:9] = True
    mask = np.zeros_like(reference)
    mask[2:9, 2:5] = True
    mask[12:15, 12:15] = True
    click = find_next_click(mask, reference)
    assert click is not None
    assert click.is_inside
    assert click.point == (5, 6)
    mask[11:19, 11:19] = True
    wrong = find_next_click(mask, reference)
    assert wrong is not None
    assert not wrong.is_inside
    assert wrong.point == (14, 14)
    assert find_next_click(reference, reference) is None
    rng = np.random.default_rng(0)
    drawn = {find_next_click(mask, reference, rng).point for _ in range(30)}  # type: ignore[union-attr]
    assert len(drawn) > 3
    assert all(12 <= x < 18 and 12 <= y < 18 for x, y in drawn)


def test_clicks_lie_where_the_mask_that_is_shown_errs() -> None:
    truth, found = balls(seed=0), balls(seed=1)
    inputs, told = simulate(truth, Fixed(found), spec_of(most=3))
    clicked = 0
    for image, (true,) in zip(inputs, told.numpy(), strict=True):
        inside, outside, mask = (channel.numpy() for channel in image[1:])
        if not inside.any() and not outside.any():
            assert not mask.any()
            continue
        clicked += 1
        matches = []
        for label in (1, 2):
            is_label = true == label
            is_right = is_label[inside == 1].all()
            is_right &= not is_label[outside == 1].any()
            matches.append(is_right)
        assert any(matches)
        count = (inside == 1).sum() + (outside == 1).sum()
        assert 1 <= count <= 3
    assert clicked >= 4


def test_the_network_sees_each_click_before_the_next() -> None:
    truth, found = balls(seed=0), balls(seed=1)
    network = Fixed(found)
    network.train()
    simulate(truth, network, spec_of(most=4))
    assert network.training
    assert len(network.seen) >= 3
    first, *later = network.seen
    assert not first[:, 1:].any()
    for seen in later:
        assert seen[:, 1:3].amax((1, 2, 3, 4)).eq(1).all()


def test_the_same_step_and_item_get_the_same_clicks() -> None:
    truth, found = balls(seed=0), balls(seed=1)
    first, again, other = (
        simulate(truth, Fixed(found), spec_of(), step)[0][:, 1:]
        for step in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_share_of_patches_is_left_without_clicks() -> None:
    truth = balls(seed=0)
    has_clicks = []
    for step in range(20):
        inputs, _ = simulate(
            truth, Fixed(balls(seed=1)), spec_of(share=0.5, most=1), step
        )
        has_clicks += inputs[:, 1:3].amax((1, 2, 3, 4)).tolist()
    assert np.mean(has_clicks) == pytest.approx(0.5, abs=0.12)


def test_voxels_that_nobody_annotated_are_no_errors() -> None:
    spec = made_spec(
        training={"patch": [24, 28, 20], "clicks": {"share": 0.99, "most": 1}},
        data={"ignore": 9},
    )
    truth = np.full((24, 28, 20), spec.label_set.ignore_index)
    inputs, told = simulate(truth, Fixed(balls(seed=1)), spec)
    assert not inputs[:, 1:].any()
    assert (told == spec.label_set.ignore_index).all()


def test_on_half_of_the_clicked_patches_alone_the_truth_is_redrawn() -> None:
    truth = balls(seed=0)
    redrawn, plain = 0, 0
    for step in range(20):
        network = Fixed(balls(seed=1))
        inputs, told = simulate(truth, network, spec_of(share=0.5), step)
        for image, (true,) in zip(inputs, told.numpy(), strict=True):
            is_clicked = bool(image[1:3].any())
            is_redrawn = not np.array_equal(true, truth)
            assert is_clicked or not is_redrawn
            redrawn += is_redrawn
            plain += is_clicked and not is_redrawn
    assert redrawn / (redrawn + plain) == pytest.approx(0.5, abs=0.15)
