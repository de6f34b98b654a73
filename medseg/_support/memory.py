"""Whether an error says that memory ran out."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether there was too little memory.

    Examples:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"))
        True
    """
    # PyTorch's own class, by its name: whoever asks need not have loaded PyTorch.
    is_named = type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, MemoryError) or is_named:
        return True
    # On a CPU PyTorch raises RuntimeErrors for it, and now and then on a GPU.
    text = str(error)
    is_told = "allocate memory" in text or "out of memory" in text
    return isinstance(error, RuntimeError) and is_told
