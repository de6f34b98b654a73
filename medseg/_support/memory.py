"""Whether an error says that memory ran out, and what a person is told of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import ScanError

NO_MEMORY = (
    "there is not enough memory for this scan; close other programs, use a larger machine, or "
    "crop the scan to the part that matters"
)

_TEXTS = (
    "allocate memory",
    "out of memory",
    # cuDNN, cuBLAS, cuFFT and cuSOLVER, whose workspaces PyTorch does not ask for itself
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    # what cuDNN says once no algorithm's workspace fitted
    "unable to find an engine to execute",
    "Unable to find a valid cuDNN algorithm",
)
"""What libraries say of it in a ``RuntimeError``, on a CPU and on a GPU."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was too little memory: by the error, or by what it was raised from.

    Examples:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"))
        True
    """
    return any(_says_so(each) for each in list_causes(error))


@contextlib.contextmanager
def explain_lack_of_memory(source: str | Path = "") -> Iterator[None]:
    """Turn a lack of this machine's memory for a scan into an error that says what to do.

    Args:
        source: The scan's file, unless who catches the error says it.

    Raises:
        ScanError: If memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ScanError(NO_MEMORY, source=source) from error


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """List an error, what it was raised from, what that was raised from, and so on."""
    # MONAI, for one, wraps whatever a transform raised.
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _says_so(error: BaseException) -> bool:
    # PyTorch's own class, by its name: whoever asks need not have loaded PyTorch.
    is_named = type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, MemoryError) or is_named:
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return any(text in said for text in _TEXTS)
