"""What a GPU has made goes into arrays of the host by a thread: whoever launches waits for none.

Of the moments at which a host waits for a GPU, most would be copies. Here a copy is ordered and
left alone; a thread waits for it and writes what came to where it belongs, while the next work is
launched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import torch

from medseg.volume import Array

Write = Callable[[Array], object]
"""Puts what came where it belongs; in a thread, and never two at a time."""

MOST_BYTES_BEHIND = 1 << 26
"""What may lie in page-locked memory until it is written: a few pieces of a label map."""


class HostWriter:
    """Writes into arrays of the host what was computed on a device.

    What lies in the host's memory is written at once. What lies on a GPU is written later, in the
    order in which it was given, by a thread that ends with ``close``.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._behind: deque[tuple[int, Future[None]]] = deque()
        self._bytes_behind = 0

    def write(self, found: torch.Tensor, write: Write) -> None:
        """Write a tensor, now or later.

        Args:
            found: What was computed; it need not be kept.
            write: Is given its values.

        Raises:
            Exception: What an earlier ``write`` has raised.
        """
        if found.device.type != "cuda":
            here = found.cpu()
            write(here.numpy())
            return
        size = found.nbytes
        self._make_room(size)
        # Into page-locked memory, as torch takes for this; in one piece, as others need a step more
        # on the host, which would not wait for the first.
        found = found.contiguous()
        copied = found.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(found.device)
        arrival.record(stream)
        act = partial(
            _write_on_arrival, found.device, arrival, copied.numpy(), write
        )
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "medseg-host")
        try:
            future = self._thread.submit(act)
        except RuntimeError:
            # No thread can begin, or the main one has ended: then no pool takes anything.
            self.finish()
            self.close()
            act()
            return
        self._behind.append((size, future))
        self._bytes_behind += size

    def finish(self) -> None:
        """Wait until everything is written.

        Raises:
            Exception: What a ``write`` has raised.
        """
        while self._behind:
            self._finish_first()

    def close(self) -> None:
        """Let go of what is not written yet, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None
        self._behind.clear()
        self._bytes_behind = 0

    def _make_room(self, size: int) -> None:
        """Finish what is done, and wait for as much as leaves room for so many bytes."""
        while self._behind:
            then_behind = self._bytes_behind + size
            has_room = then_behind <= MOST_BYTES_BEHIND
            if has_room and not self._behind[0][1].done():
                return
            self._finish_first()

    def _finish_first(self) -> None:
        size, first = self._behind.popleft()
        self._bytes_behind -= size
        try:
            first.result()
        finally:
            # Or its error and this frame would hold each other, and the GPU's memory with them.
            del first


def _write_on_arrival(
    device: torch.device, arrival: torch.cuda.Event, copied: Array, write: Write
) -> None:
    # Threads begin with the first GPU, and would take memory there.
    with torch.cuda.device(device):
        arrival.synchronize()
    write(copied)
