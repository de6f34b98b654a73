"""What a task makes sure of on its node, whatever it does there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.metadata import version

from medseg.errors import MedsegError

_PATIENCE_SECONDS = 15.0
"""How late a network drive may show a new file."""
_LOOK_SECONDS = 0.5
_GPU_REST_SECONDS = 60.0
"""Where a GPU is broken, its node would else be the first that is free, for one task after the
other."""
_GPU_LOST = 70
"""Exit status of a worker whose GPU failed: no further call would succeed in it."""


def require_version(expected: str) -> None:
    """Make sure that this node has the driver's version of medseg.

    Raises:
        MedsegError: If it has another.
    """
    here = version("medseg")
    if here != expected:
        raise MedsegError(
            f"a node of the cluster has medseg {here}, and this call was begun with {expected}; "
            "install the same version on all"
        )


def await_sight(sees: Callable[[], bool]) -> bool:
    """Wait a moment for a file that the driver has just written; tell whether it came.

    Args:
        sees: Tells whether this node sees it.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while not sees():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def leave_broken_gpu() -> None:
    """End this worker, whose GPU failed, when others have had time to take its task."""
    time.sleep(_GPU_REST_SECONDS)
    os._exit(_GPU_LOST)
