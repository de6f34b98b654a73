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
from medseg.networks.devices import choose_device

TIMEOUT = timedelta(hours=6)
"""How long the others wait for the main process, which prepares data and validates."""

_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that ``torchrun`` sets."""

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
    if _STARTED_BY_TORCHRUN not in os.environ:
        yield SINGLE_PROCESS
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    idist.initialize(backend, timeout=TIMEOUT)
    try:
        # All ranks must ask at once: ignite's first question is a collective operation.
        yield ProcessGroup(idist.get_rank(), idist.get_world_size())
    finally:
        idist.finalize()


def choose_local_device(name: str) -> torch.device:
    """Return the device a person asked for: this process' own GPU where ``torchrun`` started some.

    Args:
        name: As for ``choose_device``.

    Raises:
        MedsegError: As ``choose_device``; or if processes would share a GPU.
    """
    if _STARTED_BY_TORCHRUN not in os.environ:
        return choose_device(name)
    is_alone = os.environ.get("LOCAL_WORLD_SIZE") == "1"
    if name.startswith("cuda:") and not is_alone:
        raise MedsegError(
            f"with torchrun each process takes a GPU of its own, and not all of them '{name}'; "
            "give --device cuda, and choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    takes_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if not takes_gpu:
        return choose_device(name)
    # Not even tried is the first GPU, on which each process would take memory.
    count = torch.cuda.device_count()
    rank = int(os.environ["LOCAL_RANK"])
    if rank >= count:
        raise MedsegError(
            f"torchrun started more processes than the {count} GPUs that are there; start one for "
            f"each: --nproc-per-node {count}"
        )
    return choose_device(f"cuda:{rank}")
