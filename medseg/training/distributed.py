"""Data-parallel training of one network in several processes, started by ``torchrun``.

Each process takes its share of every batch, and gradients are averaged. The main process alone
validates, writes files and notifies listeners.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import ignite.distributed as idist
import torch

from medseg.errors import MedsegError

TIMEOUT = timedelta(hours=6)
"""How long the others wait for the main process, which prepares data and validates."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process' place among those that train one network together.

    Attributes:
        rank: 0 for the main process.
        size: The number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes files and notifies listeners."""
        return self.rank == 0

    def broadcast(self, text: str) -> str:
        """Return, in every process, the text that the main process passes."""
        if self.size == 1:
            return text
        return str(idist.broadcast(text, src=0, safe_mode=True))

    def main_first(self, action: Callable[[], _T]) -> _T:
        """Let the main process do something first; the others then find the files it made."""
        if not self.is_main:
            self.barrier()
            return action()
        result = action()
        self.barrier()
        return result

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            idist.barrier()

    def local_items(self, batch_size: int) -> range:
        """Return which items of a batch this process takes.

        Raises:
            MedsegError: If the batch cannot be divided equally.
        """
        if batch_size % self.size:
            raise MedsegError(
                f"training.batch_size {batch_size} cannot be divided among {self.size} processes; "
                f"make it a multiple of {self.size}"
            )
        each = batch_size // self.size
        first = self.rank * each
        return range(first, first + each)


SINGLE_PROCESS = ProcessGroup()
"""A run without ``torchrun``."""


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; without it this process is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield SINGLE_PROCESS
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    idist.initialize(backend, timeout=TIMEOUT)
    try:
        # All ranks must ask at once: ignite's first question is a collective operation.
        yield ProcessGroup(idist.get_rank(), idist.get_world_size())
    finally:
        idist.finalize()


def select_local_device(device: torch.device) -> torch.device:
    """Return this process' own GPU where ``torchrun`` started one process per GPU."""
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None or device.type != "cuda":
        return device
    if device.index is not None:
        return device
    return torch.device("cuda", int(local_rank))
