"""Whether an error says that a GPU failed, so that this process cannot use it any more."""

from __future__ import annotations

from medseg._support.memory import is_out_of_memory, list_causes

_ONE_CALL = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device ordinal",
    "invalid resource handle",
    "operation not supported",
    "too many resources requested",
)
"""Errors of CUDA that concern one call; calls after it work."""


def is_gpu_failure(error: BaseException) -> bool:
    """Tell whether CUDA failed for good, such as by an illegal memory access or a broken chip.

    Every further call fails, too, in whatever it is and whichever scan it is for, until the
    process ends.

    Examples:
        >>> is_gpu_failure(RuntimeError("CUDA error: an illegal memory access was encountered"))
        True
        >>> is_gpu_failure(RuntimeError("CUDA error: out of memory"))
        False
    """
    if is_out_of_memory(error):
        return False
    return any(_says_so(each) for each in list_causes(error))


def _says_so(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    if "CUDA error" not in said:
        return False
    return not any(text in said for text in _ONE_CALL)
