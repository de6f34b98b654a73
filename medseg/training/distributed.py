"""Data-parallel training of one network in several processes, started by ``torchrun``.

Each process takes its share of every batch, and gradients are averaged. The main process alone
validates, writes files and notifies listeners. On several machines the others need not see its
run folder: what the run is and where it stood, they are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import ignite.distributed as idist
import torch
from torch import distributed
from torch.distributed import distributed_c10d

from medseg.errors import MedsegError, TrainingError
from medseg.networks.devices import choose_device

TIMEOUT = timedelta(hours=6)
"""How long the others wait for the main process, which prepares data and validates."""

_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable that ``torchrun`` sets."""

_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""Environment variable: how often ``torchrun`` has started its processes again."""

_ENDED = "medseg/main-process-has-ended"

_LOST = (
    *("closed by peer", "reset by peer", "broken pipe", "likely closed"),
    *("connection refused", "remote process", "timed out", "timeout"),
)
"""What the errors of gloo, NCCL and PyTorch's store say where another process is gone."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process' place among those that train one network together.

    Attributes:
        rank: 0 for the main process.
        size: The number of processes.
        local_rank: 0 for the first process of each machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes files and notifies listeners."""
        return self.rank == 0

    def broadcast(self, value: _T) -> _T:
        """Return, in every process, the value that the main process passes."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: _T) -> list[_T]:
        """Return, in every process, what each of them passes."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        distributed.all_gather_object(values, value)
        return values

    def ask_main(self, action: Callable[[], _T]) -> _T:
        """Let the main process alone do something; return its result in every process."""
        results = [action()] if self.is_main else []
        (result,) = self.broadcast(results)
        return result

    def main_first(self, action: Callable[[], _T]) -> _T:
        """Let the main process do something, then one of each other machine, then the rest.

        Who comes later finds the files that were made before, be they on a disk that all machines
        share or on each one's own.
        """
        own_turn = self._find_turn()
        results = []
        for turn in range(_TURNS):
            if turn == own_turn:
                results.append(action())
            self.barrier()
        return results[0]

    def _find_turn(self) -> int:
        if self.is_main:
            return 0
        return 1 if self.local_rank == 0 else 2

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


_TURNS = 3
"""Of the main process, of one of each other machine, of all others."""

SINGLE_PROCESS = ProcessGroup()
"""A run without ``torchrun``."""


def is_under_torchrun() -> bool:
    """Tell whether ``torchrun`` started this process."""
    return _STARTED_BY_TORCHRUN in os.environ


def was_started_again() -> bool:
    """Tell whether ``torchrun`` started its processes again, since one was lost."""
    return os.environ.get(_RESTARTS, "0") != "0"


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; without it this process is alone.

    Raises:
        TrainingError: If another of them is gone.
    """
    if not is_under_torchrun():
        yield SINGLE_PROCESS
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    idist.initialize(backend, timeout=TIMEOUT)
    try:
        # All ranks must ask at once: ignite's first question is a collective operation.
        group = ProcessGroup(
            idist.get_rank(), idist.get_world_size(), idist.get_local_rank()
        )
        with explain_lost_processes(group), end_together(group):
            yield group
    finally:
        idist.finalize()


@contextmanager
def end_together(
    group: ProcessGroup, store: distributed_c10d.Store | None = None
) -> Iterator[None]:
    """Let the others end after the main process, which scores and writes when they are done.

    Where the processes meet is the affair of one machine's ``torchrun``. That goes a few minutes
    after its own processes, and whoever still works elsewhere would be ended with it.

    Args:
        group: The processes.
        store: Where they meet; PyTorch's own unless given.
    """
    if group.size == 1:
        yield
        return
    store = store or distributed_c10d._get_default_store()
    try:
        yield
        if not group.is_main:
            # Where it never says so, there is nothing left to do here all the same.
            with suppress(RuntimeError):
                store.wait([_ENDED], TIMEOUT)
    finally:
        if group.is_main:
            # Where the store is gone, nobody waits.
            with suppress(RuntimeError):
                store.set(_ENDED, "")


@contextmanager
def explain_lost_processes(group: ProcessGroup) -> Iterator[None]:
    """Say so where a process waited for another one that is gone.

    Raises:
        TrainingError: In the place of PyTorch's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        is_lost = any(words in text.lower() for words in _LOST)
        if group.size == 1 or not is_lost:
            raise
        raise TrainingError(
            "another process of this training has ended or cannot be reached; what it printed, "
            "maybe on another machine, says why",
            detail=text.partition("\n")[0],
        ) from error


def choose_local_device(name: str) -> torch.device:
    """Return the device a person asked for: this process' own GPU where ``torchrun`` started some.

    Args:
        name: As for ``choose_device``.

    Raises:
        MedsegError: As ``choose_device``; or if processes would share a GPU.
    """
    if not is_under_torchrun():
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
