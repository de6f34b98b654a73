"""A network computed by PyTorch, in the memory layout and with the layers that are fastest."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from medseg.bundle.bundle import Bundle
from medseg.networks.levels import list_levels
from medseg.networks.loading import load_network

_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


class TorchBackend:
    """Computes networks by PyTorch, on any device and in any precision that it knows."""

    def load(
        self,
        bundle: Bundle,
        files: Sequence[Path],
        device: torch.device,
        precision: torch.dtype,
    ) -> list[TorchMember]:
        """Load networks of a trained bundle.

        Args:
            bundle: A trained bundle.
            files: The weights to use, of its members.
            device: Where to compute.
            precision: Of the arithmetic.

        Raises:
            CheckpointError: If weights are absent, damaged, or of another network.
        """
        dims = bundle.spec.network.dims
        networks = [load_network(bundle, file) for file in files]
        return [
            TorchMember(network, dims, device, precision)
            for network in networks
        ]


class TorchMember:
    """A network laid out for fast inference on one device: the same scores up to rounding.

    Args:
        network: In evaluation mode; a copy is changed, not the network.
        dims: 2 for networks that see slices, else 3.
        device: Where to compute.
        precision: float32, bfloat16 or float16.
    """

    def __init__(
        self,
        network: nn.Module,
        dims: int,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.precision = precision
        self._device = device
        self._layout = _choose_layout(network, dims, device, precision)
        network = copy.deepcopy(network).to(device)
        if device.type == "cpu":
            _use_group_norm(network)
        self._network = network.to(memory_format=self._layout).eval()  # type: ignore[call-overload]

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to call: entered once per scan, weights are cast once."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self.precision)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *size)`` to scores ``(batch, classes, *size)``."""
        given = windows.contiguous(memory_format=self._layout)
        return list_levels(self._network(given))[0]


def _choose_layout(
    network: nn.Module, dims: int, device: torch.device, precision: torch.dtype
) -> torch.memory_format:
    """Return the layout convolutions are fastest in, where normalisation stays exact in it."""
    channels_last = torch.channels_last if dims == 2 else torch.channels_last_3d
    if precision != torch.float32:
        return channels_last
    # Group norm in float32 and channels-last loses digits on a CPU: it sums squares directly.
    if device.type == "cpu" and not _normalises_by_group(network):
        return channels_last
    return torch.contiguous_format


def _normalises_by_group(network: nn.Module) -> bool:
    """Tell whether a network has group norms, or instance norms, which become group norms."""
    group_norms = (nn.GroupNorm, *_INSTANCE_NORMS)
    return any(isinstance(layer, group_norms) for layer in network.modules())


def _use_group_norm(network: nn.Module) -> None:
    """Replace instance norms by group norms of one channel each: the same, and faster on a CPU."""
    for name, layer in network.named_children():
        if not isinstance(layer, _INSTANCE_NORMS) or layer.track_running_stats:
            _use_group_norm(layer)
            continue
        channels = layer.num_features
        norm = nn.GroupNorm(channels, channels, layer.eps, affine=layer.affine)
        norm.weight, norm.bias = layer.weight, layer.bias
        setattr(network, name, norm)
