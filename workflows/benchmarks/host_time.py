"""How long the host takes to keep a GPU at work: for a step of training, and for a scan.

    python workflows/benchmarks/host_time.py [--rounds 5]

No GPU is needed. What a host does for a step or a scan hardly depends on how many voxels there
are: it draws, decides and launches. So patches and windows are made so small that the arithmetic
takes next to nothing, and the CPU seconds of the thread that launches are taken, with the code that
a GPU would get. A kernel of such a size on a CPU takes 2 to 10 µs, about what a launch on a GPU
takes, so these figures are close to a GPU's, and rather too high.

* *Step*: 2 patches, standard augmentation; by turns with a plain loop of the same network, loss and
  optimiser over one ready batch. What medseg adds is the difference, the batch included.
* *Scan*: 512×512×400 at an eighth of its length along each axis, in as many windows and parts; the
  network answers at once. Beside it, by turns, as many operations of PyTorch on a few numbers: what
  launching alone takes. What does depend on voxels, because the host's memory is read or written,
  is measured by itself at full size; other threads do it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.append(str(Path(__file__).parents[1] / "gpu"))

from made import TINY, make_cases, make_spec, write_trained

from medseg import Segmenter, Volume
from medseg.inference import (
    accumulator,
    blank_window,
    confidence,
    host_writer,
    label_writer,
)
from medseg.networks.building import build_network
from medseg.networks.levels import SupervisedNetwork
from medseg.preprocessing import network_input, plane_reader, resampling
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.testing import make_phantom
from medseg.training import patch_extraction
from medseg.training.learner import Callbacks, Learner, build_optimizer
from medseg.training.losses import build_loss

CPU = torch.device("cpu")
_STEPS = 50
"""Steps that are timed together."""

_EDGE = 8
_SHRINK = 8
_SHAPE = (512, 512, 400)
_CLASSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with mock.patch.object(patch_extraction, "_sampling_grid", _make_grid):
        _time_steps(rounds)
    _time_scan(rounds)


def _make_grid(*place: Any) -> torch.Tensor:
    """Make a sampling grid as a GPU does."""
    return patch_extraction.make_grid_on(CPU, *place)


def _measure(act: Callable[[], object]) -> float:
    """Return the CPU milliseconds that this thread takes."""
    began = time.thread_time()
    act()
    return 1000 * (time.thread_time() - began)


def _time_steps(rounds: int) -> None:
    schedule = {"validate_every": 10**6, "checkpoint_every": 10**6, "ema": None}
    schedule |= {"warmup_steps": 0, "steps": _STEPS, "precision": "fp32"}
    sizes = {"patch": [_EDGE] * 3, "batch_size": 2, "augmentation": "standard"}
    spec = make_spec(training={**schedule, **sizes}, network=TINY)
    learner = Learner(spec, make_cases(4, (2 * _EDGE,) * 3), CPU)
    network = SupervisedNetwork(build_network(spec))
    optimizer = build_optimizer(network, spec.training)
    loss = build_loss(spec)
    ready = learner.batches.batch(1)

    def learn() -> None:
        learner.shorten(learner.step + _STEPS)
        learner.learn(Callbacks(lambda _: True, lambda _: None))

    def learn_plainly() -> None:
        for _ in range(_STEPS):
            optimizer.zero_grad(set_to_none=True)
            loss(network(ready[IMAGE]), ready[LABEL]).backward()
            optimizer.step()

    def make_batches() -> None:
        for step in range(learner.step, learner.step + _STEPS):
            learner.batches.batch(step)

    acts = (learn, learn_plainly, make_batches)
    for act in acts:
        act()
    found = [[_measure(act) / _STEPS for act in acts] for _ in range(rounds)]
    step, plain, batch = zip(*found, strict=True)
    added = [row[0] - row[1] for row in found]
    print("ms of the host for a step of 2 patches: median (least of rounds)")
    _show("medseg", step)
    _show("plain loop", plain)
    _show("added", added)
    _show("batch, part of it", batch)


def _time_scan(rounds: int) -> None:
    labels = [{"index": n, "name": f"l{n}"} for n in range(1, _CLASSES)]
    edge = 128 // _SHRINK
    spec = make_spec(
        training={"patch": [edge] * 3},
        network=TINY,
        labels=labels,
        preprocessing={"spacing_mm": [1.5] * 3, "intensity": "zscore"},
    )
    x, y, z = (length // _SHRINK for length in _SHAPE)
    scan, _ = make_phantom(7, (x, y, z))
    array = np.asfortranarray(scan.array[0].astype(np.int16))
    volume = Volume.from_numpy(array, spacing=(0.8, 0.8, 1.0))
    segmenter = Segmenter(
        write_trained(spec), "cpu", precision="fp32", backend="torch"
    )
    runner = segmenter._predictor
    runner.sliding_window.batch_size = spec.inference.batch_size
    size = (spec.inference.batch_size, _CLASSES, edge, edge, edge)
    answer = torch.randn(size, generator=torch.Generator().manual_seed(0))
    calls = itertools.count()

    def answer_at_once(windows: torch.Tensor) -> torch.Tensor:
        next(calls)
        return answer[: len(windows)]

    with (
        _as_on_gpu(),
        mock.patch.object(runner.ensemble, "_compute", answer_at_once),
    ):
        segmenter.predict(volume)
        batches = next(calls)
        act = partial(segmenter.predict, volume)
        with _Counting() as operations:
            act()
        acts = (act, partial(_launch, operations.count))
        found = [[_measure(each) for each in acts] for _ in range(rounds)]
    launching, plain = zip(*found, strict=True)
    reading = [_measure(_read_planes) for _ in range(rounds)]
    writing = [_measure(_write_labels) for _ in range(rounds)]
    print(
        f"ms of the host for a scan of {_SHAPE}, {batches} batches of windows, "
        f"{operations.count} operations"
    )
    _show("deciding and launching", launching)
    _show("as many plain operations", plain)
    _show("reading planes, in another thread", reading)
    _show("writing labels and error map, in another thread", writing)


class _Counting(TorchDispatchMode):
    """Counts what the thread that launches asks PyTorch to do.

    Attributes:
        count: Operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._thread = threading.get_ident()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += threading.get_ident() == self._thread
        return func(*args, **(kwargs or {}))


def _launch(count: int) -> None:
    few = torch.zeros(8)
    for _ in range(count):
        few.add_(1)


def _show(name: str, found: Sequence[float]) -> None:
    # What else the machine does can make it only more.
    print(f"  {name} {median(found):.2f} ({min(found):.2f})")


@contextlib.contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Let a CPU take as many parts of the small scan as a GPU takes of the large one."""
    smaller = _SHRINK**3
    writer, sums = label_writer, confidence

    def shrink(numbers: dict[str, int]) -> dict[str, int]:
        return {"cpu": numbers["cuda"] // smaller}

    changes: list[tuple[Any, str, Any]] = [
        (host_writer.HostWriter, "write", _write_behind),
        (plane_reader.PlaneReader, "__init__", _begin_reading),
        (plane_reader.PlaneReader, "_lock_pages", _copy),
        (blank_window, "find_values", lambda windows: None),
        (accumulator, "SPARE_PLANES", accumulator.SPARE_PLANES // _SHRINK),
        (resampling, "_READ_AT_ONCE", resampling._READ_AT_ONCE // smaller),
        (network_input, "_AT_ONCE", network_input._AT_ONCE // smaller),
        (writer, "_SCORES_AT_ONCE", writer._SCORES_AT_ONCE // smaller),
        (sums, "_NUMBERS_AT_ONCE", shrink(sums._NUMBERS_AT_ONCE)),
    ]
    for name in (
        "_FEWEST_VOXELS_AT_ONCE",
        "_MOST_VOXELS_AT_ONCE",
        "_NUMBERS_AT_ONCE",
    ):
        changes.append((writer, name, shrink(getattr(writer, name))))
    with contextlib.ExitStack() as stack:
        for module, name, value in changes:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def _write_behind(
    host: host_writer.HostWriter, found: torch.Tensor, write: Any
) -> None:
    """Write in another thread, as for a GPU."""
    host._make_room(found.nbytes)
    if host._thread is None:
        host._thread = ThreadPoolExecutor(1)
    future = host._thread.submit(write, found.clone().numpy())
    host._behind.append((found.nbytes, future))
    host._bytes_behind += found.nbytes


def _begin_reading(
    reader: plane_reader.PlaneReader, channel: Any, pieces: Any, device: Any
) -> None:
    reader._channel, reader._left = channel, deque(pieces)
    reader._device, reader._coming = device, deque()
    reader._thread = ThreadPoolExecutor(1)


def _copy(reader: plane_reader.PlaneReader, planes: Any) -> torch.Tensor:
    return plane_reader.read_as_sent(planes).clone()


def _read_planes() -> None:
    """Copy a whole scan into memory from which a GPU takes it."""
    scan = np.ones(_SHAPE, np.int16, order="F").transpose(2, 1, 0)
    at_once = resampling._READ_AT_ONCE // (scan.shape[1] * scan.shape[2])
    for first in range(0, len(scan), at_once):
        plane_reader.read_as_sent(scan[first : first + at_once]).clone()


def _write_labels() -> None:
    """Write into the host's memory what a GPU has found of the whole scan."""
    labels = np.zeros(_SHAPE, np.uint8, order="F").transpose(2, 1, 0)
    at_once = 64
    found = torch.ones(at_once, *labels.shape[1:], dtype=torch.uint8)
    for first in range(0, len(labels), at_once):
        part = labels[first : first + at_once]
        part[:] = found[: len(part)].numpy()
    errors = np.zeros((273, 273, 267), np.uint8)
    of_planes = torch.ones(273, 273, at_once, dtype=torch.uint8)
    for first in range(0, errors.shape[2], at_once):
        planes = errors[..., first : first + at_once]
        planes[:] = of_planes[..., : planes.shape[2]].numpy()


if __name__ == "__main__":
    main()
