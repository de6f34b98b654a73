"""Logits at every supervised level, each at its own size."""

from __future__ import annotations

import pytest
import torch
from support.bundles import made_spec
from support.networks import foreign

from medseg.networks.building import build_network
from medseg.networks.levels import SupervisedNetwork


@pytest.mark.parametrize("dims", [2, 3])
def test_deep_supervision_returns_every_level_at_its_own_size(
    dims: int,
) -> None:
    spec = made_spec(
        network={
            "dims": dims,
            "channels": [4, 8, 8, 8],
            "strides": [1, 2, 2, 2],
        },
        training={"patch": [16] * dims},
    )
    network = build_network(spec).train()
    levels = SupervisedNetwork(network)(torch.randn(2, 1, *spec.training.patch))
    assert [tuple(level.shape) for level in levels] == [
        (2, 3, *[16 // by] * dims) for by in (1, 2, 4)
    ]
    sum(level.mean() for level in levels).backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_without_deep_supervision_there_is_one_level() -> None:
    for spec in (
        made_spec(network={"deep_supervision": False}),
        foreign("BasicUNet", patch=32, features=[4, 4, 4, 4, 4, 4]),
    ):
        levels = SupervisedNetwork(build_network(spec).train())(
            torch.randn(1, 1, *spec.training.patch)
        )
        assert [tuple(level.shape[2:]) for level in levels] == [
            tuple(spec.training.patch)
        ]
