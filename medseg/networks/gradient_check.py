"""Whether a processor computes the gradients of a network's convolutions in bf16 as they are.

PyTorch 2.13 on a CPU reads memory that nobody wrote when it computes the bf16 gradient of some
convolutions' weights: the gradient is noise, sometimes NaN, and nothing says so. Seen were
``Conv3d`` with kernels of 3 and 2 voxels along the first axis, of 4 and 3, of 5 and 2 to 4 (with
AVX512, without AMX), and ``Conv2d`` with kernel 3 and stride 2 on one pixel (with AMX). Pooling,
interpolation, norms, activations, transposed convolutions and linear layers were tried alike and
were sound. Which shapes are hit depends on processor and release, so no rule is kept here: each
convolution that will learn is tried at the size it will have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

LARGEST_DIFFERENCE = 0.1
"""Largest relative distance of a bf16 gradient from float32's; sound layers stay near 0.003."""

_DIRT = (float("nan"), 1e30)
"""What memory is filled with before each of two tries: whoever reads it gives two answers."""


def find_unsound_layers(
    network: nn.Module, inputs: Sequence[torch.Tensor]
) -> list[str]:
    """Find the convolutions whose bf16 gradients are not what they should be.

    Each computes its gradients twice in bf16, over memory that was filled with other
    values in between, and once in float32. Two answers that differ, or one that is far from
    float32's, make it unsound.

    Args:
        network: On the CPU; fresh, as its norms and buffers may change.
        inputs: What it is called with, float32, at real sizes. One item of a batch is enough: in
            all that was tried, the batch made no difference.

    Returns:
        One text per unsound convolution: its name, kind and input shape. Empty if all are sound.
    """
    unsound: list[str] = []
    verdicts: dict[tuple[str, torch.Size], bool] = {}

    def try_layer(name: str, layer: _ConvNd, given: torch.Tensor) -> None:
        # Equal layers at equal sizes are tried once.
        key = (
            repr(layer),
            given.shape,
        )
        if key not in verdicts:
            copied = _copy_convolution(layer)
            verdicts[key] = has_sound_gradients(copied, given.detach())
        if not verdicts[key]:
            unsound.append(_describe(name, layer, given))

    # Each is tried as it is reached, so that no more than one is in memory twice; under autocast,
    # so that it is given numbers as coarse as in training.
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with _hooks(network, try_layer), torch.no_grad(), autocast:
        network(*inputs)
    return unsound


def _describe(name: str, layer: _ConvNd, given: torch.Tensor) -> str:
    kind = _plain_class(layer).__name__
    size = "×".join(str(length) for length in given.shape[2:])
    return f"{name} ({kind} on {size})"


def has_sound_gradients(layer: nn.Module, given: torch.Tensor) -> bool:
    """Tell whether a layer's gradients in bf16 are equal twice and near those in float32.

    Args:
        layer: Its gradients are overwritten.
        given: What it is called with, as coarse as it is in training.
    """
    attempts = []
    for dirt in _DIRT:
        _dirty_memory(dirt, given.numel())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attempts.append(_gradients(layer, given))
    first, second = attempts
    pairs = zip(first, second, strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        return False
    with torch.autocast("cpu", enabled=False):
        exact = _gradients(layer, given.float())
    return all(
        _is_near(one, other) for one, other in zip(first, exact, strict=True)
    )


@contextlib.contextmanager
def _hooks(network: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    """Call ``hook(name, layer, given)`` before each convolution of a network computes."""

    def before(name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        hook(name, layer, arguments[0])

    handles = [
        layer.register_forward_pre_hook(partial(before, name))
        for name, layer in _convolutions(network)
    ]
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # it refuses to learn from one value, and a batch of one may have no more
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _convolutions(network: nn.Module) -> Iterator[tuple[str, _ConvNd]]:
    for name, module in network.named_modules():
        if isinstance(module, _ConvNd):
            yield name or type(module).__name__, module


def _copy_convolution(layer: _ConvNd) -> nn.Module:
    """Copy a convolution without its hooks, and with its weight where that is computed.

    Spectral norm computes the weight anew at each call, which would be tried along.
    """
    arguments: dict[str, Any] = {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }
    if isinstance(layer, _ConvTransposeNd):
        arguments["output_padding"] = layer.output_padding
    plain: nn.Module = _plain_class(layer)(**arguments)
    weights = {"weight": layer.weight.detach()}
    if layer.bias is not None:
        weights["bias"] = layer.bias.detach()
    plain.load_state_dict(weights)
    return plain


def _plain_class(layer: nn.Module) -> Any:
    """Return the class of PyTorch's that a layer is of, whatever was put on top of it."""
    return next(
        kind
        for kind in type(layer).__mro__
        if kind.__module__ == _ConvNd.__module__
    )


def _gradients(layer: nn.Module, given: torch.Tensor) -> list[torch.Tensor]:
    """Return the gradients of input and weights of a fixed weighted sum of the outputs."""
    layer.zero_grad(set_to_none=True)
    leaf = given.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = layer(leaf)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator)
    output.backward(weights.to(output.dtype))
    gradients = []
    for tensor in (leaf, *layer.parameters()):
        if tensor.grad is not None:
            gradients.append(tensor.grad.float().clone())
    return gradients


def _dirty_memory(value: float, size: int) -> None:
    """Fill memory with a value and free it, so that the next to come finds it there."""
    sizes = [1 << power for power in range(8, 21, 2)] + [size, 2 * size]
    blocks = [
        torch.full((length,), value) for length in sizes for _ in range(4)
    ]
    del blocks


def _is_near(gradient: torch.Tensor, exact: torch.Tensor) -> bool:
    if not bool(torch.isfinite(gradient).all()):
        return False
    distance = float((gradient - exact).norm())
    return distance <= LARGEST_DIFFERENCE * float(exact.norm()) + 1e-6
