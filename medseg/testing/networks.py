"""The contract of a network (``medseg.networks.registry``), as a test suite to subclass.

A package that adds a network tests it like this::

    from medseg.testing.networks import NetworkContract

    class TestMyNetwork(NetworkContract):
        network = MyNetwork
        patches = ((16, 16), (16, 16, 16))

and, where its constructor needs more than its channels, sets ``arguments``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from medseg.networks.levels import SupervisedNetwork, list_levels
from medseg.networks.registry import (
    DIMENSION_NAMES,
    INPUT_NAMES,
    OUTPUT_NAMES,
    list_parameters,
    maps_channels,
)

_CHANNELS, _CLASSES = 2, 3


class NetworkContract:
    """What every network promises; subclass it as ``Test…`` in a test module.

    Attributes:
        network: The class under test.
        patches: Sizes that it takes, in 2D, 3D or both.
        arguments: What its constructor needs besides channels and dimensions.
    """

    network: ClassVar[type[nn.Module]]
    patches: ClassVar[tuple[tuple[int, ...], ...]] = ((16, 16, 16),)
    arguments: ClassVar[Mapping[str, Any]] = {}

    def build(self, dims: int) -> nn.Module:
        """Build the network, the same weights each time."""
        parameters = list_parameters(self.network)
        given = dict(self.arguments)
        for names, value in (
            (DIMENSION_NAMES, dims),
            (INPUT_NAMES, _CHANNELS),
            (OUTPUT_NAMES, _CLASSES),
        ):
            given |= {name: value for name in names if name in parameters}
        torch.manual_seed(0)
        return self.network(**given)

    def image(self, patch: tuple[int, ...]) -> torch.Tensor:
        """Return two random patches, ``(2, channels, *patch)``."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(2, _CHANNELS, *patch, generator=generator)

    def test_it_can_be_told_its_channels(self) -> None:
        assert maps_channels(self.network)

    def test_it_gives_one_logit_per_class_and_voxel(self) -> None:
        for patch in self.patches:
            network = self.build(len(patch)).eval()
            with torch.no_grad():
                output = network(self.image(patch))
            assert isinstance(output, torch.Tensor), (
                "one tensor is needed where labels are made"
            )
            assert output.shape == (2, _CLASSES, *patch)
            assert output.isfinite().all()

    def test_while_training_it_gives_levels_from_fine_to_coarse(self) -> None:
        for patch in self.patches:
            levels = SupervisedNetwork(self.build(len(patch)).train())(
                self.image(patch)
            )
            assert levels[0].shape == (2, _CLASSES, *patch)
            sizes = [level.shape[2:].numel() for level in levels]
            assert sizes == sorted(sizes, reverse=True)
            assert all(level.shape[:2] == (2, _CLASSES) for level in levels)

    def test_every_weight_learns(self) -> None:
        for patch in self.patches:
            network = self.build(len(patch)).train()
            levels = list_levels(SupervisedNetwork(network)(self.image(patch)))
            total = torch.stack(
                [level.square().mean() for level in levels]
            ).sum()
            total.backward()  # type: ignore[no-untyped-call]
            names = [
                name
                for name, weight in network.named_parameters()
                if weight.grad is None
            ]
            assert names == [], "these weights have no gradient"

    def test_its_items_do_not_depend_on_each_other(self) -> None:
        for patch in self.patches:
            network, image = self.build(len(patch)).eval(), self.image(patch)
            with torch.no_grad():
                together = network(image)
                alone = network(image[:1])
            assert torch.allclose(together[:1], alone, atol=1e-4)

    def test_its_weights_can_be_kept_as_tensors_alone(self) -> None:
        for patch in self.patches:
            network = self.build(len(patch)).eval()
            file = io.BytesIO()
            torch.save(network.state_dict(), file)
            file.seek(0)
            other = self.build(len(patch)).eval()
            for weight in other.parameters():
                nn.init.zeros_(weight)
            other.load_state_dict(torch.load(file, weights_only=True))
            with torch.no_grad():
                assert torch.equal(
                    other(self.image(patch)), network(self.image(patch))
                )

    def test_it_is_built_without_opening_anything(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise AssertionError(
                "a network must open no file and no address when it is built"
            )

        monkeypatch.setattr("builtins.open", refuse)
        monkeypatch.setattr("socket.socket.connect", refuse)
        self.build(len(self.patches[0]))
