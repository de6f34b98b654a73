"""``Interruption``: a run that is asked to stop ends its step and saves what it has learned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from medseg._support.platform.processes import handle_stop_signals


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped and can be resumed.

    Args:
        folder: The run folder; a checkpoint lies in it.
        step: The number of steps done, all of them in the checkpoint.
    """

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"Step {step} is saved in {folder}.")
        self.folder = folder
        self.step = step


@dataclass(slots=True)
class Interruption:
    """Whether a run was asked to stop.

    Attributes:
        is_requested: Whether it was.
    """

    is_requested: bool = False

    def stop_if_requested(
        self, save: Callable[[], None], folder: Path, step: int
    ) -> None:
        """Save a checkpoint and end the run, if that was asked for.

        Args:
            save: Saves it.
            folder: The run folder.
            step: The number of steps done.

        Raises:
            RunInterrupted: If the run was asked to stop.
        """
        if self.is_requested:
            save()
            raise RunInterrupted(folder, step)


@contextlib.contextmanager
def catch_interruption(announce: Callable[[], None]) -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM ask a run to stop after its step; a second time, they stop it at once.

    Python allows this in the main thread alone; in others, nothing changes.

    Args:
        announce: Called as soon as it was asked for.

    Yields:
        What tells that it was asked for.
    """
    interruption = Interruption()

    def request(number: int, frame: FrameType | None) -> None:
        if interruption.is_requested:
            raise KeyboardInterrupt
        interruption.is_requested = True
        announce()

    with handle_stop_signals(request):
        yield interruption
