"""nnU-Net's weights under the names that a bundle's network has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.nn import functional

from medseg.errors import CheckpointError

Shapes = Mapping[str, torch.Size]
Weights = dict[str, torch.Tensor]

_ALIASES = (".all_modules.", "decoder.encoder.")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNTER = "num_batches_tracked"
_MOST_NAMED = 3


def has_batch_norm(weights: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether a network normalises over batches, whatever its plans say.

    nnU-Net's trainer BN changes the network its plans state.
    """
    return any(name.endswith(".norm.running_mean") for name in weights)


def take_weights(
    weights: Mapping[str, torch.Tensor], wanted: Shapes, source: Path
) -> Weights:
    """Return copies of nnU-Net's weights once their names, shapes and values are right.

    Shapes are compared before anything is copied, so a forged one takes no memory.

    Args:
        weights: By nnU-Net's names, as the file has them.
        wanted: Name → shape of the network that the plans state, nnU-Net's names.
        source: The file, for errors.

    Raises:
        CheckpointError: If a weight is missing, of another shape or kind, not known, or not finite.
    """
    own = {name: value for name, value in weights.items() if _is_own(name)}
    needed = {name: shape for name, shape in wanted.items() if _is_own(name)}
    faults = list(_find_faults(own, needed))
    if faults:
        shown = "; ".join(faults[:_MOST_NAMED])
        more = f"; and {len(faults) - _MOST_NAMED} more"
        raise CheckpointError(
            "the weights are not those of the network that plans.json describes",
            source=source,
            detail=shown + (more if len(faults) > _MOST_NAMED else ""),
        )
    taken: Weights = {}
    for name, shape in needed.items():
        if name not in own:
            taken[name] = torch.zeros(shape)
            continue
        is_counter = name.endswith(_COUNTER)
        value = own[name].to(torch.int64 if is_counter else torch.float32)
        taken[name] = value.clone(memory_format=torch.contiguous_format)
        if not is_counter and not bool(torch.isfinite(taken[name]).all()):
            raise CheckpointError(
                "some weights are no finite numbers (NaN or infinity): the training failed, or "
                "the file is damaged",
                source=source,
                detail=name,
            )
    return taken


def add_aliases(weights: Weights, wanted: Shapes) -> Weights:
    """Return weights with nnU-Net's second names for them; the tensors are shared."""
    named = dict(weights)
    for alias in wanted:
        if alias not in named:
            own = alias.replace("decoder.encoder.", "encoder.")
            own = own.replace(".all_modules.0.", ".conv.")
            own = own.replace(".all_modules.1.", ".norm.")
            named[alias] = weights[own]
    return named


def rename_for_unet(weights: Weights, levels: int, wanted: Shapes) -> Weights:
    """Return the weights of ``PlainConvUNet`` under the names of MONAI's DynUNet.

    A convolution's bias before an instance norm cancels; before a batch norm it moves the running
    mean. A kernel that is smaller than DynUNet's lies in the middle of zeros.

    Args:
        weights: Of two convolutions a level, nnU-Net's names.
        levels: How many there are.
        wanted: Name → shape in DynUNet, aliases included.
    """
    renamed: Weights = {}
    for theirs, ours in _pair_blocks(levels):
        for number in (0, 1):
            unit = f"{theirs}.convs.{number}"
            renamed |= _rename_unit(weights, unit, ours, number + 1)
    for step in range(levels - 1):
        for part in ("weight", "bias"):
            value = weights[f"decoder.transpconvs.{step}.{part}"]
            renamed[f"upsamples.{step}.transp_conv.conv.{part}"] = value
    for part in ("weight", "bias"):
        value = weights[f"decoder.seg_layers.{levels - 2}.{part}"]
        renamed[f"output_block.conv.conv.{part}"] = value
    return {
        name: _lay_into(value, wanted[name]) for name, value in renamed.items()
    }


def _is_own(name: str) -> bool:
    """Tell a weight's first name from nnU-Net's other names for the same."""
    return not any(alias in name for alias in _ALIASES)


def _find_faults(
    own: Mapping[str, torch.Tensor], needed: Shapes
) -> Iterator[str]:
    """Yield what is missing, wrong, or not known."""
    # Without conv_bias there are no biases but those of heads and norms; zeros take their place.
    has_biases = any(name.endswith(".conv.bias") for name in own)
    for name, shape in needed.items():
        may_lack = not has_biases and _is_convolution_bias(name)
        if name in own:
            yield from _find_fault(name, own[name], shape)
        elif not may_lack:
            yield f"{name} is missing"
    for name in own:
        if name not in needed:
            yield f"{name[:100]} is not known"


def _find_fault(
    name: str, value: torch.Tensor, shape: torch.Size
) -> Iterator[str]:
    is_plain = value.layout == torch.strided and not value.is_quantized
    is_number = value.dtype in _FLOATS or name.endswith(_COUNTER)
    if value.shape != shape:
        yield f"{name} has shape {list(value.shape)} instead of {list(shape)}"
    elif not (is_plain and is_number):
        kind = str(value.dtype).removeprefix("torch.")
        yield f"{name} holds {kind}, not plain floats"


def _is_convolution_bias(name: str) -> bool:
    is_transposed = ".transpconvs." in name and name.endswith(".bias")
    return is_transposed or name.endswith(".conv.bias")


def _pair_blocks(levels: int) -> Iterator[tuple[str, str]]:
    """Yield nnU-Net's and DynUNet's names of the blocks of a U-Net."""
    yield "encoder.stages.0.0", "input_block"
    for level in range(1, levels - 1):
        yield f"encoder.stages.{level}.0", f"downsamples.{level - 1}"
    yield f"encoder.stages.{levels - 1}.0", "bottleneck"
    for step in range(levels - 1):
        yield f"decoder.stages.{step}", f"upsamples.{step}.conv_block"


def _rename_unit(
    weights: Weights, unit: str, block: str, number: int
) -> Weights:
    """Return a convolution and its norm under DynUNet's names."""
    named = {
        f"{block}.conv{number}.conv.weight": weights[f"{unit}.conv.weight"]
    }
    norm = f"{block}.norm{number}"
    for part in ("weight", "bias", "running_var", _COUNTER):
        if f"{unit}.norm.{part}" in weights:
            named[f"{norm}.{part}"] = weights[f"{unit}.norm.{part}"]
    mean = weights.get(f"{unit}.norm.running_mean")
    if mean is not None:
        named[f"{norm}.running_mean"] = mean - weights[f"{unit}.conv.bias"]
    return named


def _lay_into(value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a kernel in the middle of a larger one of zeros."""
    if value.shape == shape:
        return value
    margins: list[int] = []
    for size, wanted in zip(value.shape[:1:-1], shape[:1:-1], strict=True):
        margins += [(wanted - size) // 2] * 2
    return functional.pad(value, margins)
