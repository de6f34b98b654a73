"""Weights of MONAI's networks that other software saved: checked first, and only then copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medseg.errors import CheckpointError

Weights = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Tensor]
"""Name → a tensor of the right shape and kind, on the device ``meta``."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What training on several GPUs or compiling puts before names of weights."""
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_MOST_NAMED = 3
_MOST_NAME = 100


def parse_state_dict(content: Any, file: Path, what: str) -> Weights:
    """Return tensors by name, mapped from the file, without what wrapped their network.

    Args:
        content: What should hold them.
        file: For errors.
        what: How messages call it.

    Raises:
        CheckpointError: If it holds something else.
    """
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"has no {what}", source=file)
    weights: Weights = {}
    # A forged OrderedDict may have attributes that hide its methods.
    for key, value in dict.items(content):
        is_weight = isinstance(value, torch.Tensor)
        if not isinstance(key, str) or not is_weight:
            raise CheckpointError(
                f"its {what} hold something else than tensors by name",
                source=file,
            )
        while key.startswith(_WRAPPERS):
            key = key.partition(".")[2]
        weights[key] = value.detach()
    return weights


def copy_weights(
    weights: Mapping[str, torch.Tensor], wanted: Shapes, file: Path
) -> Weights:
    """Return copies of weights once their names, shapes, kinds and values are right.

    Shapes are compared before anything is copied, so a forged one takes no memory.

    Args:
        weights: As the file has them.
        wanted: Of the network that the configuration describes.
        file: For errors.

    Raises:
        CheckpointError: If a weight is missing, of another shape or kind, not known, or not finite.
    """
    faults = list(_find_faults(weights, wanted))
    if faults:
        more = f"; and {len(faults) - _MOST_NAMED} more"
        raise CheckpointError(
            "the weights are not those of the network that the configuration describes",
            source=file,
            detail="; ".join(faults[:_MOST_NAMED])
            + (more if len(faults) > _MOST_NAMED else ""),
        )
    copies: Weights = {}
    for name, shape in wanted.items():
        value = weights[name].to(shape.dtype)
        copies[name] = value.clone(memory_format=torch.contiguous_format)
        if not bool(torch.isfinite(copies[name]).all()):
            raise CheckpointError(
                "some weights are no finite numbers (NaN or infinity): the training failed, or "
                "the file is damaged",
                source=file,
                detail=name,
            )
    return copies


def reorder_outputs(
    weights: Weights, shapes: Shapes, wider: Shapes, order: Sequence[int]
) -> Weights:
    """Return weights of a network whose output channels come in another order.

    Axes that grow with the number of output channels are those of the last layers; their channels
    are all put into the new order, which turns around what the network returns and nothing else.

    Args:
        weights: By name.
        shapes: Of the network.
        wider: Of the same network with one output channel more.
        order: Which channel comes first, second, ….
    """
    index = torch.tensor(order)
    reordered = dict(weights)
    for name, shape in shapes.items():
        sizes = zip(shape.shape, wider[name].shape, strict=True)
        for axis, (size, larger) in enumerate(sizes):
            if larger != size:
                reordered[name] = reordered[name].index_select(axis, index)
    return reordered


def _find_faults(
    weights: Mapping[str, torch.Tensor], wanted: Shapes
) -> Iterator[str]:
    """Yield what is missing, wrong, or not known."""
    for name, shape in wanted.items():
        if name in weights:
            yield from _find_fault(name, weights[name], shape)
        else:
            yield f"{name} is missing"
    for name in weights:
        if name not in wanted:
            shown = "".join(filter(str.isprintable, name[:_MOST_NAME]))
            yield f"{shown} is not known"


def _find_fault(
    name: str, value: torch.Tensor, wanted: torch.Tensor
) -> Iterator[str]:
    is_plain = value.layout == torch.strided and not value.is_quantized
    kinds = _FLOATS if wanted.is_floating_point() else (wanted.dtype,)
    if value.shape != wanted.shape:
        shape = list(value.shape)
        yield f"{name} has shape {shape} instead of {list(wanted.shape)}"
    elif not is_plain or value.dtype not in kinds:
        kind = str(value.dtype).removeprefix("torch.")
        right = str(wanted.dtype).removeprefix("torch.")
        yield f"{name} holds {kind}, not plain {right}"
