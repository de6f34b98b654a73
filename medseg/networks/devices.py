"""Devices and precisions: where a network is computed, and in which arithmetic."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

import torch

from medseg._support.memory import is_out_of_memory
from medseg.errors import MedsegError

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Precisions by the names that people use."""

CPU_BF16 = "MEDSEG_CPU_BF16"
"""Environment variable: ``1`` or ``0`` says whether the CPU counts as one that computes in bf16."""

_KINDS = ("cpu", "cuda")
"""Kinds of devices that medseg was made and tested for."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device a person asked for; ``auto`` is the first GPU, else the CPU.

    Raises:
        MedsegError: If there is no such device, medseg does not compute on its kind, or its
            memory is taken.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in _KINDS:
            raise MedsegError(
                f"medseg does not compute on a device of the kind '{device.type}'; choose auto, "
                "cpu, or cuda:N with a GPU that is there"
            )
        # Names of absent devices are valid, too, and a GPU may be too old for this PyTorch.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        detail = str(error).splitlines()[0]
        if is_out_of_memory(error):
            raise MedsegError(
                f"the memory of device '{name}' is taken; end what else uses it, or choose another",
                detail=detail,
            ) from error
        raise MedsegError(
            f"device '{name}' cannot be used; choose auto, cpu, or cuda:N with a GPU that is there",
            detail=detail,
        ) from error
    return device


def choose_devices(names: str = "auto") -> tuple[torch.device, ...]:
    """Return the devices a person asked for; they share the work.

    Args:
        names: What ``choose_device`` takes, ``cuda:0,1`` for several GPUs, or ``all`` for every
            one there is.

    Raises:
        MedsegError: As ``choose_device``; or if a device is named twice, or a CPU is among several.
    """
    devices = [choose_device(name) for name in _list_names(names)]
    if len(devices) > 1:
        _check_several(devices, names)
    return tuple(devices)


def _list_names(names: str) -> list[str]:
    """Return the name of each device."""
    if names == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise MedsegError(
                "device 'all' means every GPU, and there is none; choose auto or cpu"
            )
        return [f"cuda:{index}" for index in range(count)]
    first, *others = [name.strip() for name in names.split(",")]
    listed = [first]
    for name in others:
        listed.append(f"cuda:{name}" if name.isdecimal() else name)
    return listed


def _check_several(devices: Sequence[torch.device], names: str) -> None:
    """Refuse devices that cannot share work, or were named twice."""
    kinds = {device.type for device in devices}
    indices = {device.index for device in devices}
    are_different = len(indices) == len(devices) and None not in indices
    if kinds != {"cuda"} or not are_different:
        raise MedsegError(
            f"several devices are GPUs, each named once by its number, not '{names}'; write "
            "cuda:0,1 or all"
        )


def release_memory(device: torch.device) -> None:
    """Give back a GPU's memory that nothing uses any more.

    Engines and their handlers refer to each other, so that their networks, optimisers and cases
    stay until Python looks for such circles.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


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
