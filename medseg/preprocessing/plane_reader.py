"""Reads planes of a scan as numbers a device computes with; for a GPU in a thread, ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from medseg.volume import Array

_AHEAD = 2
"""Pieces that wait in page-locked memory for a GPU."""

_SENT_AS_THEY_ARE = ("uint8", "int8", "int16", "int32", "float32")
"""Types of at most four bytes that PyTorch computes with on every device."""


class PlaneReader:
    """Reads pieces of an image one after the other, as float32 on a device.

    A GPU is sent what the scan holds, often of half the size, and makes the numbers itself. A
    thread copies it into page-locked memory, from which it goes to the GPU while the host goes on;
    the thread ends with the context::

        with PlaneReader(channel, pieces, device) as reader:
            for piece in pieces:
                image = reader.read_next()

    Args:
        channel: Numbers of any type and strides.
        pieces: First plane along the first axis, and the one behind the last.
        device: Where they are wanted.
    """

    def __init__(
        self,
        channel: Array,
        pieces: Sequence[tuple[int, int]],
        device: torch.device,
    ) -> None:
        self._channel = channel
        self._left = deque(pieces)
        self._device = device
        self._thread: ThreadPoolExecutor | None = None
        self._coming: deque[Future[torch.Tensor]] = deque()
        if device.type == "cuda":
            self._thread = ThreadPoolExecutor(1, "medseg-planes")

    def __enter__(self) -> PlaneReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._coming.clear()

    def read_next(self) -> torch.Tensor:
        """Return the next piece."""
        if self._thread is None:
            planes = self._take_next()
            return read_floats(planes, self._device)
        self._read_ahead(self._thread)
        # No name for it: an error of it and this frame would hold each other.
        held = self._coming.popleft().result()
        sent = held.to(self._device, non_blocking=True)
        return sent.float()

    def _read_ahead(self, thread: ThreadPoolExecutor) -> None:
        while self._left:
            if len(self._coming) == _AHEAD:
                return
            act = partial(self._lock_pages, self._take_next())
            self._coming.append(_submit(thread, act))

    def _take_next(self) -> Array:
        start, stop = self._left.popleft()
        planes: Array = self._channel[start:stop]
        return planes

    def _lock_pages(self, planes: Array) -> torch.Tensor:
        # Threads begin with the first GPU, and would take memory there.
        with torch.cuda.device(self._device):
            held = read_as_sent(planes)
            return held.pin_memory()


def _submit(
    thread: ThreadPoolExecutor, act: Callable[[], torch.Tensor]
) -> Future[torch.Tensor]:
    try:
        return thread.submit(act)
    except RuntimeError:
        # No thread can begin, or the main one has ended: then no pool takes anything.
        done: Future[torch.Tensor] = Future()
        done.set_result(act())
        return done


def read_floats(
    planes: Array, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return planes of an image as float32 on a device."""
    if torch.device(device).type == "cpu":
        floats = np.array(planes, dtype=np.float32, order="C")
        return torch.from_numpy(floats)
    return read_as_sent(planes).to(device).float()


def read_as_sent(planes: Array) -> torch.Tensor:
    """Return planes of an image in the type in which a GPU is sent them."""
    is_native = planes.dtype.isnative and planes.dtype in _SENT_AS_THEY_ARE
    if not is_native:
        floats = np.array(planes, dtype=np.float32, order="C")
        return torch.from_numpy(floats)
    held = np.ascontiguousarray(planes)
    if not held.flags.writeable:
        held = held.copy()  # PyTorch warns of others
    return torch.from_numpy(held)
