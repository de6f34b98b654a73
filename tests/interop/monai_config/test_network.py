"""Networks of MONAI's configs are those that MONAI has today, with numbers that networks have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medseg.errors import MedsegError
from medseg.interop.monai_config.config import Component, Config
from medseg.interop.monai_config.network import describe_network


def component(name: str, **arguments: Any) -> Component:
    return Component(name, arguments, "network_def", Config({}, Path("x.json")))


def test_arguments_that_monai_has_no_more_are_left_out() -> None:
    swin = describe_network(
        component("SwinUNETR", img_size=96, in_channels=1, out_channels=14)
    )
    assert swin.section == {"kind": "SwinUNETR", "dims": 3, "args": {}}
    assert (swin.inputs, swin.outputs) == (1, 14)
    other = describe_network(component("UNETR", img_size=96))
    assert other.section["args"] == {"img_size": 96}
    for norm in ("INSTANCE_NVFUSER", ["instance_nvfuser", {"affine": True}]):
        made = describe_network(component("SegResNetDS", norm=norm))
        assert "nvfuser" not in str(made.section).lower()


@pytest.mark.parametrize(
    "arguments",
    [
        {"out_channels": 10**9},
        {"out_channels": True},
        {"spatial_dims": 1},
        {"blocks_down": [1, 10**9]},
        {"num_res_units": 500},
        {"channels": [16] * 400},
    ],
)
def test_numbers_that_no_network_has_are_refused(
    arguments: dict[str, Any],
) -> None:
    with pytest.raises(MedsegError, match="network_def"):
        describe_network(component("UNet", **arguments))
