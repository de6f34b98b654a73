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
from typing import Any, NamedTuple

import torch

# PyTorch's types know nothing of `conv` and `matmul`.
_cudnn: Any = torch.backends.cudnn
_mkldnn: Any = torch.backends.mkldnn


class _Modes(NamedTuple):
    """How float32 is taken: ``ieee``, ``tf32`` or ``none``, which leaves it to PyTorch.

    Attributes:
        convolutions: By convolutions.
        products: By matrix products.
        older: By these in PyTorch's older setting: a GPU refuses them where the two disagree.
    """

    convolutions: str = "none"
    products: str = "none"
    older: str = "highest"


_FULL = _Modes("ieee", "ieee")
_TRAINING = _Modes("tf32", "ieee")

_lock = threading.Lock()
_users = 0
_before = _Modes()


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Let GPUs compute float32 in full; what was set before comes back with the last that leaves.

    The setting is that of the whole process, and several threads may segment at a time.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            _before = _get_modes()
            _set_modes(_FULL)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set_modes(_before)


@contextlib.contextmanager
def training_arithmetic(device: torch.device) -> Iterator[None]:
    """Let a GPU's convolutions take TF32 and the algorithm that was fastest on these patches."""
    if device.type != "cuda":
        yield
        return
    modes, benchmark = _get_modes(), torch.backends.cudnn.benchmark
    _set_modes(_TRAINING)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        _set_modes(modes)
        torch.backends.cudnn.benchmark = benchmark


def _get_modes() -> _Modes:
    older = "highest"
    # Raised where somebody has used the newer setting alone.
    with contextlib.suppress(RuntimeError):
        older = torch.get_float32_matmul_precision()
    products = torch.backends.cuda.matmul
    return _Modes(_cudnn.conv.fp32_precision, products.fp32_precision, older)


def _set_modes(modes: _Modes) -> None:
    on_cpu = _mkldnn.matmul.fp32_precision
    torch.set_float32_matmul_precision(modes.older)
    # That has set all three.
    _mkldnn.matmul.fp32_precision = on_cpu
    _cudnn.conv.fp32_precision = modes.convolutions
    torch.backends.cuda.matmul.fp32_precision = modes.products
