"""Rows on what the GPU is, and whether its convolutions are right."""

from __future__ import annotations

import os
from typing import Any

import torch
from session import GPU, Session
from torch.nn import functional

from medseg.networks.gpu_arithmetic import full_float32, training_arithmetic

_LIMITS = {
    "fp32": 1e-5,
    "TF32": 2e-3,
    "bf16": 2e-2,
    "fp16": 3e-3,
}
"""Largest relative error of a convolution; a fault of cuDNN is far above it."""

_SIZES = ((32, 32, 40), (32, 64, 32), (1, 32, 64))
"""Channels in and out, and voxels along each axis."""


def list_facts(session: Session) -> None:
    """What computes here."""
    session.add("torch", torch.__version__, cuda=torch.version.cuda)
    session.add("GPU", torch.cuda.get_device_name(), cores=os.cpu_count())
    if session.dry:
        return
    session.add("cuDNN", torch.backends.cudnn.version())
    convolutions = torch.backends.cudnn.conv.fp32_precision
    session.add("float32 in convolutions before medseg", convolutions)


def check_convolutions(session: Session) -> None:
    """3D convolutions in every precision and layout against float64 on the CPU."""
    for size in ((8, 4, 8),) if session.dry else _SIZES:
        for name in _LIMITS:
            for layout in (torch.contiguous_format, torch.channels_last_3d):
                error = _measure_error(name, size, layout)
                is_last = layout == torch.channels_last_3d
                order = "channels last" if is_last else "channels first"
                session.add(
                    f"convolution {size}, {name}, {order}",
                    f"{error:.1e}",
                    ok=error < _LIMITS[name],
                )


def _measure_error(name: str, size: tuple[int, int, int], layout: Any) -> float:
    """Return the relative error of one convolution."""
    channels, out, length = size
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, *[length] * 3, generator=generator)
    weights = torch.randn(out, channels, 3, 3, 3, generator=generator)
    weights /= (27 * channels) ** 0.5
    exact = functional.conv3d(image.double(), weights.double(), padding=1)
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = types.get(name, torch.float32)
    there = [
        each.to(GPU, dtype).contiguous(memory_format=layout)
        for each in (image, weights)
    ]
    arithmetic = full_float32() if name == "fp32" else training_arithmetic(GPU)
    with arithmetic:
        found = functional.conv3d(*there, padding=1)
    difference = found.double().cpu() - exact
    return float(difference.norm() / exact.norm())
