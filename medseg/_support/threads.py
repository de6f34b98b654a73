"""How many threads arithmetic may take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from medseg.errors import MedsegError

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""What libraries read, when they are loaded, to know how many threads to take."""

_MOST = 4096


def announce_threads(count: int | None) -> None:
    """Tell libraries that are loaded from now on how many threads to take; ``None`` tells nothing.

    Those of arrays and images read it once, when they are loaded; processes that are started
    inherit it.
    """
    if count is not None:
        os.environ.update(dict.fromkeys(VARIABLES, str(count)))


@contextlib.contextmanager
def limit_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch, and OpenVINO models that are compiled within, compute in so many threads.

    Args:
        count: ``None`` changes nothing.

    Raises:
        MedsegError: If it is less than 1, or more than any machine has.
    """
    if count is None:
        yield
        return
    if count < 1:
        raise MedsegError(f"at least 1 thread is needed, got {count}")
    if count > _MOST:
        raise MedsegError(f"at most {_MOST} threads are possible, got {count}")
    import torch

    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)
