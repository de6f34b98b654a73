"""What a person is told when a device has too little memory, or fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from medseg._support.gpu_failures import is_gpu_failure
from medseg._support.memory import is_out_of_memory, list_causes
from medseg.errors import MedsegError
from medseg.volume import Volume


@contextlib.contextmanager
def explain_start_errors(device: torch.device) -> Iterator[None]:
    """Turn a lack of memory for the networks into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = ""
        if device.type == "cuda":
            remedy = ", choose another GPU, or try --device cpu"
        raise MedsegError(
            f"the networks do not fit the memory of {device}; end what else uses it{remedy}"
        ) from error


@contextlib.contextmanager
def explain_device_errors(
    volume: Volume, device: torch.device
) -> Iterator[None]:
    """Turn a lack of memory, or the failure of a GPU, into an error that says what to do.

    Args:
        volume: The scan that was worked on.
        device: Where it was.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_gpu_failure(error):
            raise MedsegError(
                f"{device} failed, and this process cannot use it any more; start medseg again, "
                "and it goes on with what is left. If it fails at the same scan again, segment "
                "that one with --device cpu; if at others, the GPU or its driver is broken",
                source=volume.source,
                detail=str(error).splitlines()[0],
            ) from error
        if not is_out_of_memory(error):
            raise
        remedy = "; try --device cpu" if device.type == "cuda" else ""
        where: torch.device | str = device
        if any(isinstance(cause, MemoryError) for cause in list_causes(error)):
            # Whichever device computes: only the host's is said to be short by this one.
            where, remedy = "this machine", ""
        raise MedsegError(
            f"a scan of shape {volume.shape} does not fit the memory of {where}{remedy}",
            source=volume.source,
        ) from error
