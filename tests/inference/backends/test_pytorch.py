"""Networks are laid out for speed, and the network that was given stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medseg.inference.backends.pytorch import TorchMember

CPU = torch.device("cpu")


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), norm, nn.Conv3d(4, 2, 1)
    ).eval()


@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm3d(4, affine=True),
        nn.InstanceNorm3d(4),
        nn.BatchNorm3d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm3d(4, track_running_stats=True),
    ],
)
def test_scores_are_those_of_the_network_whatever_it_normalises_by(
    norm: nn.Module,
) -> None:
    given = network(norm)
    before = copy.deepcopy(given)
    windows = torch.randn(2, 1, 8, 8, 8)
    with torch.inference_mode():
        scores = TorchMember(given, 3, CPU, torch.float32)(windows)
        assert torch.allclose(scores, before(windows), atol=1e-5)
    assert [type(layer) for layer in given] == [type(layer) for layer in before]
    for name, value in given.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])


def test_instance_norms_become_group_norms_on_a_cpu() -> None:
    member = TorchMember(
        network(nn.InstanceNorm3d(4, affine=True)), 3, CPU, torch.float32
    )
    assert isinstance(member._network[1], nn.GroupNorm)
    assert member._network[1].num_groups == 4
    tracking = network(nn.InstanceNorm3d(4, track_running_stats=True))
    kept = TorchMember(tracking, 3, CPU, torch.float32)
    assert isinstance(kept._network[1], nn.InstanceNorm3d)


def test_coarse_arithmetic_is_entered_as_a_context() -> None:
    member = TorchMember(network(nn.BatchNorm3d(4)), 3, CPU, torch.bfloat16)
    windows = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert member(windows).dtype == torch.float32
        with member.arithmetic():
            assert member(windows).dtype == torch.bfloat16
        assert member(windows).dtype == torch.float32
        member.precision = torch.float32
        with member.arithmetic():
            assert member(windows).dtype == torch.float32
