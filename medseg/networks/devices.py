"""Devices and precisions: where a network is computed, and in which arithmetic."""

from __future__ import annotations

import os

import torch

from medseg.errors import MedsegError

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Precisions by the names that people use."""

CPU_BF16 = "MEDSEG_CPU_BF16"
"""Environment variable: ``1`` or ``0`` says whether the CPU counts as one that computes in bf16."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device a person asked for; ``auto`` is the first GPU, else the CPU.

    Raises:
        MedsegError: If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)  # names of absent devices are valid, too
    except (RuntimeError, AssertionError) as error:
        raise MedsegError(
            f"device '{name}' cannot be used; choose auto, cpu, or cuda:N with a GPU that is there",
            detail=str(error).splitlines()[0],
        ) from error
    return device


def get_precision_name(precision: torch.dtype) -> str:
    """Return what people call a precision."""
    names = {dtype: name for name, dtype in PRECISIONS.items()}
    names[torch.int8] = "int8"  # of a network that is quantised, not of scans
    return names[precision]


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for a precision's name; ``auto`` is bf16 where hardware has it.

    Raises:
        MedsegError: If there is no such precision, or not on this device.
    """
    if name == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    if name not in PRECISIONS:
        raise MedsegError(
            f"'{name}' is not a precision; choose auto, {', '.join(PRECISIONS)}"
        )
    if name == "fp16" and device.type == "cpu":
        raise MedsegError(
            "precision fp16 needs a GPU; choose auto, bf16 or fp32 on a CPU"
        )
    return PRECISIONS[name]


def _computes_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies in bf16; the one place that is asked."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    forced = os.environ.get(CPU_BF16, "")
    if forced:
        return forced != "0"
    return bool(
        torch.cpu._is_avx512_bf16_supported()
        or torch.cpu._is_amx_tile_supported()
    )
