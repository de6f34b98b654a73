"""How a network computes in inference: in which precision and memory layout, with which layers.

Nothing here changes what a network computes beyond rounding.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence

import torch
from torch import nn

from medseg.engine.networks.unet import levels_of

_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


class Predictor:
    """A trained network, laid out for fast inference on one device.

    Args:
        network: In evaluation mode; a copy is changed, not the network.
        dims: 2 for networks that see slices, else 3.
        device: Where to compute.
        precision: float32, bfloat16 or float16.
        mirror_axes: Axes along which windows are also flipped; the scores of all combinations
            are averaged.
    """

    def __init__(
        self,
        network: nn.Module,
        dims: int,
        device: torch.device,
        precision: torch.dtype,
        mirror_axes: Sequence[int] = (),
    ) -> None:
        self._dims, self._device, self.precision = dims, device, precision
        self._layout = _best_layout(network, dims, device, precision)
        network = copy.deepcopy(network).to(device)
        if device.type == "cpu":
            _use_group_norm(network)
        self._network = network.to(memory_format=self._layout).eval()  # type: ignore[call-overload]
        self._flips = _combinations([axis for axis in mirror_axes if axis < dims])

    def arithmetic(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to call: entered once per scan, weights are cast once."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self.precision)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, x, y, z)`` to scores ``(batch, classes, x, y, z)``.

        A 2D network gets windows of one plane, ``z = 1``.
        """
        if self._dims == 2:
            return self._mirrored(windows.squeeze(-1)).unsqueeze(-1)
        return self._mirrored(windows)

    @torch.inference_mode()
    def rounding_error(self, windows: torch.Tensor) -> float:
        """Return how far scores are from those of float32, relative to their size.

        Rounding gives a few percent. Far more comes from a fault of hardware or libraries: some
        versions of cuDNN return wrong 3D convolutions in bfloat16.
        """
        exact = self(windows).float()
        with self.arithmetic():
            coarse = self(windows).float()
        return float((coarse - exact).norm() / exact.norm())

    def _mirrored(self, windows: torch.Tensor) -> torch.Tensor:
        first, *others = self._flips
        scores = self._scores(windows, first)
        if others:
            scores = scores.float()
            for flip in others:
                scores += self._scores(windows, flip)
            scores /= len(self._flips)
        return scores

    def _scores(self, windows: torch.Tensor, flip: Sequence[int]) -> torch.Tensor:
        axes = [2 + axis for axis in flip]
        given = (windows.flip(axes) if axes else windows).contiguous(memory_format=self._layout)
        scores = levels_of(self._network(given))[0]
        return scores.flip(axes) if axes else scores


def _combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for axis in axes:
        found += [(*flip, axis) for flip in found]
    return found


def _best_layout(
    network: nn.Module, dims: int, device: torch.device, precision: torch.dtype
) -> torch.memory_format:
    """Return the layout convolutions are fastest in, where normalisation stays exact in it."""
    channels_last = torch.channels_last if dims == 2 else torch.channels_last_3d
    if precision != torch.float32:
        return channels_last
    # Group norm in float32 and channels-last loses digits on a CPU: it sums squares directly.
    exact = not any(
        isinstance(layer, (nn.GroupNorm, *_INSTANCE_NORMS)) for layer in network.modules()
    )
    return channels_last if device.type == "cpu" and exact else torch.contiguous_format


def _use_group_norm(network: nn.Module) -> None:
    """Replace instance norms by group norms of one channel each: the same, and faster on a CPU."""
    for name, layer in network.named_children():
        if isinstance(layer, _INSTANCE_NORMS) and not layer.track_running_stats:
            norm = nn.GroupNorm(
                layer.num_features, layer.num_features, layer.eps, affine=layer.affine
            )
            norm.weight, norm.bias = layer.weight, layer.bias
            setattr(network, name, norm)
        else:
            _use_group_norm(layer)
