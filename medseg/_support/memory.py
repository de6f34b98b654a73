"""Whether an error says that memory ran out."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was too little memory.

    Examples:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"))
        True
    """
    if isinstance(error, MemoryError):
        return True
    # PyTorch has a class of its own for it on a GPU alone, whose errors are RuntimeErrors, too.
    text = str(error)
    is_told = "allocate memory" in text or "out of memory" in text
    return isinstance(error, RuntimeError) and is_told
