"""Weights are checked before they are copied; outputs come in the order that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import SegResNet, UNet
from torch import nn

from medseg.errors import CheckpointError
from medseg.interop.state_dicts import (
    copy_weights,
    parse_state_dict,
    reorder_outputs,
)

FILE = Path("model.pt")


def build(kind: str, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    if kind == "SegResNet":
        return SegResNet(
            init_filters=8,
            out_channels=outputs,
            blocks_down=(1, 1),
            blocks_up=(1,),
        ).eval()
    return UNet(
        3, 1, outputs, channels=(4, 8), strides=(2,), num_res_units=2
    ).eval()


@pytest.mark.parametrize("kind", ["SegResNet", "UNet"])
def test_outputs_are_reordered_and_stay_what_they_are(kind: str) -> None:
    network, wider = build(kind, 3), build(kind, 4)
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        before = network(image)
        weights = reorder_outputs(
            network.state_dict(),
            network.state_dict(),
            wider.state_dict(),
            (1, 0, 2),
        )
        network.load_state_dict(weights)
        after = network(image)
    torch.testing.assert_close(after, before[:, [1, 0, 2]])


def test_weights_of_another_network_are_refused_before_they_are_copied() -> (
    None
):
    with torch.device("meta"):
        wanted = {"a": torch.empty(2), "b": torch.empty(3, dtype=torch.int64)}
    right = {"a": torch.ones(2).half(), "b": torch.arange(3)}
    copied = copy_weights(right, wanted, FILE)
    assert copied["a"].dtype == torch.float32
    huge = torch.ones(1).expand(1 << 40)
    for changed, said in (
        ({"a": huge}, "a has shape"),
        ({"b": torch.ones(3)}, "b holds float32, not plain int64"),
        ({"c": torch.ones(1)}, "c is not known"),
        ({"a": torch.tensor([1.0, torch.inf])}, "a"),
    ):
        with pytest.raises(CheckpointError, match=said):
            copy_weights(right | changed, wanted, FILE)
    with pytest.raises(CheckpointError, match="b is missing"):
        copy_weights({"a": right["a"]}, wanted, FILE)
    for wrapped in ("module.a", "module._orig_mod.a", "_orig_mod.module.a"):
        assert parse_state_dict({wrapped: right["a"]}, FILE, "x").keys() == {
            "a"
        }
