"""What the processor is fast in, and which arithmetic follows from that."""

from __future__ import annotations

import platform
from functools import cache

import torch

from medseg.bundle.spec.speed import Arithmetic

_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Instructions that multiply and add up int8 without overflow. Without them int8 is hardly faster
than fp32, and its sums may overflow."""
_BF16 = {"avx512_bf16", "amx_bf16"}


@cache
def list_instructions() -> frozenset[str]:
    """Return the names of the instruction sets that the processor has, as far as is known."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is None:  # before PyTorch 2.11
        return frozenset()
    known = get_capabilities()
    return frozenset(name for name, value in known.items() if value is True)


def has_int8() -> bool:
    """Tell whether the processor computes in int8, fast and without overflow."""
    return bool(_VNNI & list_instructions())


def has_bf16() -> bool:
    """Tell whether the processor computes in bfloat16."""
    return bool(_BF16 & list_instructions())


def fit_to_processor(precision: Arithmetic) -> Arithmetic:
    """Return a precision, or the nearest to it that the processor is fast in: never a coarser."""
    if precision == "int8_bf16" and not has_bf16():
        precision = "int8"
    if precision.startswith("int8") and not has_int8():
        precision = "bf16" if precision == "int8_bf16" else "fp32"
    if precision == "bf16" and not has_bf16():
        precision = "fp32"
    return precision


def describe_processor() -> str:
    """Return what tells processors apart for which networks are compiled."""
    fast_in = sorted((_VNNI | _BF16) & list_instructions())
    return " ".join([platform.machine(), *fast_in]).strip() or "unknown"
