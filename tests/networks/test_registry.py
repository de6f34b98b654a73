"""Networks by name: MONAI's, and those of packages, which must keep the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from monai.networks.nets import SegResNet, UNet
from support.networks import foreign
from support.plugins import install_package
from torch import nn

from medseg.errors import BundleError, MissingExtraError
from medseg.networks.building import build_network, try_network
from medseg.networks.definition import define_network
from medseg.networks.registry import (
    NETWORKS,
    get_network_class,
    list_monai_networks,
    maps_channels,
)
from medseg.testing.networks import NetworkContract

PACKAGE = """
from torch import nn


class Shallow(nn.Module):
    def __init__(self, spatial_dims, in_channels, out_channels, width=4):
        super().__init__()
        kind = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.body = kind(in_channels, width, 3, padding=1)
        self.head = kind(width, out_channels, 1)

    def forward(self, image):
        return self.head(self.body(image).relu())


class Deaf(nn.Module):
    def __init__(self, width):
        super().__init__()
"""


class TestUNet(NetworkContract):
    network = UNet
    patches = ((16, 16), (16, 16, 8))
    arguments: ClassVar[dict[str, Any]] = {"channels": [4, 8], "strides": [2]}


class TestSegResNet(NetworkContract):
    network = SegResNet
    patches = ((16, 16, 16),)
    arguments: ClassVar[dict[str, Any]] = {"init_filters": 8}


@pytest.fixture
def package(site: Path) -> Iterator[None]:
    """An installed package that registers networks, two of which cannot be used."""
    networks = {
        "shallow": "shallow_networks:Shallow",
        "deaf": "shallow_networks:Deaf",
        "gone": "shallow_networks:Gone",
        "UNet": "shallow_networks:Shallow",
    }
    install_package(
        site, "shallow_networks", {"medseg.networks": networks}, PACKAGE
    )
    NETWORKS.refresh()
    yield
    NETWORKS.refresh()


@pytest.mark.usefixtures("package")
def test_a_bundle_names_a_registered_network() -> None:
    spec = foreign("shallow", patch=16, width=3)
    try_network(spec)
    network = build_network(spec).eval()
    assert network(torch.randn(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
    assert define_network(spec) == {
        "_target_": "shallow_networks.Shallow",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "width": 3,
    }


@pytest.mark.usefixtures("package")
def test_no_package_can_take_a_name_of_monais() -> None:
    assert get_network_class("UNet") is UNet


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["deaf", "gone"])
def test_a_package_that_does_not_keep_the_contract_is_named(name: str) -> None:
    with pytest.raises(
        MissingExtraError,
        match=rf"network '{name}' of the package shallow_networks 1\.2",
    ):
        try_network(foreign(name, patch=16))


@pytest.mark.usefixtures("package")
def test_arguments_of_registered_networks_are_checked_too() -> None:
    with pytest.raises(BundleError, match="it has width"):
        try_network(foreign("shallow", patch=16, depth=3))
    with pytest.raises(BundleError, match="open files or addresses"):
        try_network(foreign("shallow", patch=16, checkpoint_path="x"))


def test_a_name_that_nobody_registers_is_refused_and_those_there_are_named() -> (
    None
):
    with pytest.raises(
        BundleError, match=r"'shallow' is not a network .* known: .*SegResNet"
    ):
        try_network(foreign("shallow", patch=16))


@pytest.mark.parametrize(
    "item", [None, nn.ReLU, nn.Module, int, UNet(2, 1, 1, [2, 2], [1])]
)
def test_what_cannot_be_told_its_channels_is_no_network(item: Any) -> None:
    assert not maps_channels(item)


def test_networks_that_fetch_weights_whatever_they_are_told_are_left_out() -> (
    None
):
    assert "Transchex" not in list_monai_networks()
    assert list_monai_networks()["UNet"] is UNet
