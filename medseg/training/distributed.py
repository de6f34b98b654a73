"""Several processes that train one network together, started by ``torchrun``.

Each process takes its share of every batch; gradients are averaged. The first process alone
validates, writes and speaks.
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

LONGEST_WAIT = timedelta(hours=6)
"""How long the others wait for the first, which prepares data and validates."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """One process' place among those that train together.

    Attributes:
        rank: 0 for the first.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and speaks."""
        return self.rank == 0

    def broadcast(self, word: str) -> str:
        """Return what the first process passes here, in every process."""
        return word if self.size == 1 else str(idist.broadcast(word, src=0, safe_mode=True))

    def main_first(self, act: Callable[[], _T]) -> _T:
        """Let the first process act, then the others, who find what it made."""
        if self.is_main:
            done = act()
            self.barrier()
            return done
        self.barrier()
        return act()

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            idist.barrier()

    def local_items(self, batch_size: int) -> range:
        """Return the items of a batch that this process takes.

        Raises:
            MedsegError: If the batch cannot be shared equally.
        """
        if batch_size % self.size:
            raise MedsegError(
                f"training.batch_size {batch_size} cannot be shared by {self.size} processes; "
                f"make it a multiple of {self.size}"
            )
        each = batch_size // self.size
        return range(self.rank * each, (self.rank + 1) * each)


SINGLE_PROCESS = ProcessGroup()
"""A run without ``torchrun``."""


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; without it this process is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield SINGLE_PROCESS
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    idist.initialize(backend, timeout=LONGEST_WAIT)
    try:
        yield ProcessGroup(idist.get_rank(), idist.get_world_size())
    finally:
        idist.finalize()


def local_device(device: torch.device) -> torch.device:
    """Return this process' own GPU where ``torchrun`` started one process per GPU."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
