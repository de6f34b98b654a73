"""What a person is told when a device has too little memory to train, or fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.memory import is_out_of_memory
from medseg.errors import TrainingError


@contextlib.contextmanager
def explain_device_errors(device: torch.device) -> Iterator[None]:
    """Turn a lack of memory, or the failure of a GPU, into an error that says what to do.

    Args:
        device: Where a network learns.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        detail = (str(error).splitlines() or [""])[0]
        if is_gpu_failure(error):
            raise TrainingError(
                f"{device} failed, and this process cannot use it any more; continue with --resume "
                "from the last checkpoint. If it fails again, the GPU or its driver is broken",
                detail=detail,
            ) from error
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"the training does not fit the memory of {device}; end what else uses it, or choose a "
            "smaller training.batch_size or training.patch",
            detail=detail,
        ) from error
