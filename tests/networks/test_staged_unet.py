"""nnU-Net's own U-Nets: built as asked for, trained on every level, stated for MONAI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.errors import BundleError
from medseg.networks.building import build_network, try_network
from medseg.networks.definition import define_network
from medseg.networks.levels import SupervisedNetwork

FLAT = {
    "kind": "resenc",
    "dims": 2,
    "channels": [4, 8, 8],
    "strides": [1, [1, 2], 2],
    "kernel_sizes": [[1, 3], 3, 3],
    "blocks": [1, 3, 2],
    "decoder_convolutions": [1, 2],
}


def spec_with(**network: Any) -> BundleSpec:
    return made_spec(network=FLAT | network, training={"patch": [16, 16]})


@pytest.mark.parametrize("kind", ["resenc", "plainconv"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_every_level_is_scored_while_training_and_the_finest_alone_later(
    kind: str, norm: str
) -> None:
    spec = spec_with(kind=kind, norm=norm)
    try_network(spec)
    network = build_network(spec)
    image = torch.randn(2, len(spec.channels), 16, 16)
    levels = SupervisedNetwork(network.train())(image)
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 16), (16, 8)]
    sum(level.sum() for level in levels).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(image).shape == levels[0].shape


def test_blocks_and_convolutions_are_as_many_as_asked_for() -> None:
    state = build_network(spec_with()).state_dict()
    blocks = {".".join(name.split(".")[:5]) for name in state}
    for level, count in enumerate((1, 3, 2)):
        prefix = f"encoder.stages.{level}.blocks."
        assert sum(name.startswith(prefix) for name in blocks) == count
    assert "decoder.stages.1.convs.1.conv.weight" in state
    assert "decoder.stages.0.convs.1.conv.weight" not in state


def test_a_new_residual_block_adds_nothing() -> None:
    network = build_network(spec_with())
    state = network.state_dict()
    ends = [name for name in state if name.endswith("conv2.norm.weight")]
    assert ends
    assert not any(state[name].any() for name in ends)


def test_nnunets_class_is_stated_with_its_arguments() -> None:
    definition = define_network(spec_with(kind="plainconv"), supervised=False)
    assert definition["_target_"] == (
        "dynamic_network_architectures.architectures.unet.PlainConvUNet"
    )
    assert definition["n_conv_per_stage"] == [1, 3, 2]
    assert definition["kernel_sizes"] == [[1, 3], [3, 3], [3, 3]]
    assert definition["conv_op"] == "$torch.nn.Conv2d"
    assert not definition["deep_supervision"]


def test_too_few_numbers_of_blocks_are_refused() -> None:
    for field, said in (
        ("blocks", "blocks has 2 numbers; 3 are needed"),
        ("decoder_convolutions", "has 1 numbers; 2 are needed"),
    ):
        numbers = [1] * (2 if field == "blocks" else 1)
        with pytest.raises(BundleError, match=said):
            spec_with(**{field: numbers})
