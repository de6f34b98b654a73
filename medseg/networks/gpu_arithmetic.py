"""What a GPU may round or choose by itself: TF32, and the algorithms of convolutions.

PyTorch lets convolutions round float32 to TF32's 10 bits of mantissa unless it is told otherwise.
medseg says which, whatever other code has set: label maps in fp32 are computed in full float32, so
that they are those of a CPU; training in fp32 takes TF32, which is several times as fast, and
rounds less than the bf16 that it takes by default.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_cudnn: Any = torch.backends.cudnn  # PyTorch's types know nothing of `conv`
_lock = threading.Lock()
_users = 0
_before = ("none", "none")


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Let GPUs compute float32 in full; what was set before comes back with the last that leaves.

    The setting is that of the whole process, and several threads may segment at a time.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = _get_modes()
            _set_modes("ieee", "ieee")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set_modes(*_before)


@contextlib.contextmanager
def training_arithmetic(device: torch.device) -> Iterator[None]:
    """Let a GPU's convolutions take TF32 and the algorithm that was fastest on these patches."""
    if device.type != "cuda":
        yield
        return
    modes, benchmark = _get_modes(), torch.backends.cudnn.benchmark
    _set_modes("tf32", "ieee")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        _set_modes(*modes)
        torch.backends.cudnn.benchmark = benchmark


def _get_modes() -> tuple[str, str]:
    """Return how convolutions and matrix products take float32: ``ieee``, ``tf32`` or ``none``."""
    products = torch.backends.cuda.matmul
    return _cudnn.conv.fp32_precision, products.fp32_precision


def _set_modes(convolutions: str, products: str) -> None:
    _cudnn.conv.fp32_precision = convolutions
    torch.backends.cuda.matmul.fp32_precision = products
