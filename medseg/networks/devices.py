"""Devices and precisions: where a network is computed, and in which arithmetic."""

from __future__ import annotations

import torch

from medseg.bundle.spec import BundleSpec, UNetSpec
from medseg.errors import MedsegError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device a person asked for; ``auto`` is the first GPU, else the CPU.

    Raises:
        MedsegError: If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MedsegError(
            f"device '{name}' cannot be used: {str(error).splitlines()[0]}; "
            "choose auto, cpu or cuda:N with a GPU that is there"
        ) from error
    return device


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_name(precision: torch.dtype) -> str:
    """Return what people call a precision."""
    return next(name for name, dtype in PRECISIONS.items() if dtype == precision)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for a precision's name; ``auto`` is bf16 where hardware has it.

    Raises:
        MedsegError: If there is no such precision, or not on this device.
    """
    if name == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise MedsegError(f"no precision '{name}'; choose auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise MedsegError("precision fp16 needs a GPU; choose auto, bf16 or fp32 on a CPU")
    return PRECISIONS[name]


def training_precision(spec: BundleSpec, device: torch.device) -> torch.dtype:
    """Return the arithmetic to train in; ``auto`` avoids bf16 where its gradients are wrong.

    PyTorch 2.13 on a CPU reads memory that nobody wrote when it computes the bf16 gradient of a
    3D convolution whose input has two voxels along the first axis: the gradient is noise, and
    sometimes NaN.

    Raises:
        MedsegError: If the bundle asks for bf16 there.
    """
    precision = choose_precision(spec.training.precision, device)
    if device.type != "cpu" or precision != torch.bfloat16 or _has_sound_gradients(spec):
        return precision
    if spec.training.precision == "auto":
        return torch.float32
    raise MedsegError(
        "training.precision bf16 gives wrong gradients for this network and patch on a CPU; "
        "choose auto or fp32"
    )


def _has_sound_gradients(spec: BundleSpec) -> bool:
    if spec.network.dims == 2:
        return True
    if not isinstance(spec.network, UNetSpec):
        return False  # the sizes inside a foreign network are not known
    size = spec.training.patch[0]
    for stride in spec.network.level_strides:
        size //= stride[0]
        if size == 2:
            return False
    return True


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
