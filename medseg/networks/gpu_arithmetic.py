"""What a GPU may round or choose by itself: TF32, and the algorithms of convolutions.

PyTorch lets convolutions round float32 to TF32's 10 bits of mantissa unless it is told otherwise.
medseg says which, whatever other code has set: label maps in fp32 are computed in full float32, so
that they are those of a CPU; training in fp32 takes TF32, which is several times as fast, and
rounds less than the bf16 that it takes by default.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
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
_holders: Counter[_Modes] = Counter()
_before = _Modes()

_trainings = 0
_compared_before = False
"""Whether cuDNN compared algorithms before the first training that runs now."""


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Let GPUs compute float32 in full; what was set before comes back with the last that leaves.

    The setting is that of the whole process, and several threads may segment at a time. A training
    in another thread computes in full as well, until none of them does.
    """
    with _hold(_FULL):
        yield


@contextlib.contextmanager
def training_arithmetic(device: torch.device) -> Iterator[None]:
    """Let a GPU's convolutions take TF32 and the algorithm that was fastest on these patches.

    While another thread needs float32 in full, they take that instead. What was set before comes
    back with the last training that ends.
    """
    if device.type != "cuda":
        yield
        return
    _count_trainings(1)
    try:
        with _hold(_TRAINING):
            yield
    finally:
        _count_trainings(-1)


def _count_trainings(change: int) -> None:
    """Note that a training begins or ends; algorithms are compared until the last one ends."""
    global _trainings, _compared_before
    with _lock:
        if not _trainings:
            _compared_before = torch.backends.cudnn.benchmark
        _trainings += change
        is_compared = _trainings > 0 or _compared_before
        torch.backends.cudnn.benchmark = is_compared


@contextlib.contextmanager
def _hold(wanted: _Modes) -> Iterator[None]:
    """Want modes for a while."""
    _count(wanted, 1)
    try:
        yield
    finally:
        _count(wanted, -1)


def _count(wanted: _Modes, change: int) -> None:
    """Note that one more wants modes, or one less, and set what all of them can stand."""
    global _before
    with _lock:
        if not _holders.total():
            _before = _get_modes()
        former = _choose_modes()
        _holders[wanted] += change
        chosen = _choose_modes()
        if chosen != former:
            _set_modes(chosen)


def _choose_modes() -> _Modes:
    """Return the most exact modes that somebody wants; what was set before if nobody does."""
    for modes in (_FULL, _TRAINING):
        if _holders[modes]:
            return modes
    return _before


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
