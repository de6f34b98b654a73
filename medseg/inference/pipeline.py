"""Three stages that overlap: read ahead · segment · write behind, in threads of one process.

The network runs in the calling thread, so that Ctrl-C reaches it between two windows. One thread
reads the next item meanwhile and one writes the last, so at most three items are in memory: a
slow stage holds the others back. One item goes the same way as many. Where the network is faster
than that, several threads read and write; where there are several GPUs, each has a pipeline.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

from medseg._support.provenance import get_device_name
from medseg.inference.failures import clear_frames
from medseg.inference.loading import Predictor
from medseg.inference.open_scan import OpenScan, SegmentedScan

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Segmented = TypeVar("Segmented")
Result = TypeVar("Result")
Recorded = TypeVar("Recorded")

Stage = Literal["read", "segment", "write"]

_LOOK_UP_SECONDS = 0.5
"""How long who waits for several pipelines may not notice that it is interrupted."""


def run_pipeline(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Loaded],
    segment: Callable[[Loaded], Segmented],
    write: Callable[[Segmented], Result],
    on_error: Callable[[Item, Stage, Exception], Result],
    record: Callable[[Result, Mapping[str, float]], Recorded],
    ahead: int = 1,
) -> list[Recorded]:
    """Take every item through the three stages; each stage begins in the order of the items.

    Args:
        items: What to work on; taken one by one, as late as possible.
        read: Runs in a thread of its own, one item ahead.
        segment: Runs in the calling thread.
        write: Runs in a thread of its own, one item behind.
        on_error: Takes the place of ``write`` for an item that a stage raised an error for, and
            runs where ``write`` does. Ctrl-C and the like are not kept for it.
        record: Gets what ``write`` or ``on_error`` returned, and how many seconds each stage
            took; runs where ``write`` does.
        ahead: How many items are read ahead, and how many written behind, each in a thread of its
            own: all of ``read``, ``write`` and what follows them must stand that.

    Returns:
        What ``record`` returned, in the order of the items.

    Raises:
        Exception: Whatever ``on_error`` or ``record`` raises. What is being written then is
            finished, nothing more is begun, and no thread is left.
    """

    def finish(work: _Work[Item]) -> Recorded:
        work.run("write", write)
        if work.error is not None:
            failed = on_error(work.item, work.stage, work.error)
            return record(failed, work.seconds)
        return record(work.value, work.seconds)

    waiting = iter(items)
    done: list[Recorded] = []
    with (
        ThreadPoolExecutor(ahead, thread_name_prefix="medseg-read") as reader,
        ThreadPoolExecutor(ahead, thread_name_prefix="medseg-write") as writer,
    ):
        behind: deque[Future[Recorded]] = deque()
        coming: deque[Future[_Work[Item]]] = deque()
        _read_ahead(coming, ahead, waiting, read, reader)
        while coming:
            work = coming.popleft().result()
            _read_ahead(coming, ahead, waiting, read, reader)
            work.run("segment", segment)
            if len(behind) == ahead:
                done.append(behind.popleft().result())
            behind.append(writer.submit(finish, work))
            # Or it would be kept in memory until the next item is read.
            del work
        done += [future.result() for future in behind]
    return done


def segment_scan(
    predictor: Predictor, error_maps: bool, opened: OpenScan
) -> SegmentedScan:
    """Take one scan of a batch through the network: the stage between reading and writing.

    Args:
        predictor: With the networks of its bundle.
        error_maps: Whether its probable errors are mapped.
        opened: The scan; nothing is done where its earlier result is kept.

    Raises:
        MedsegError: As ``Predictor.predict``.
    """
    if opened.kept is not None or opened.volume is None:
        return SegmentedScan(opened)
    # The volume passed the checks of Segmenter.segment when it was read.
    prediction = predictor.predict(opened.volume)
    finish = partial(prediction.finish, error_map=error_maps)
    return SegmentedScan(opened, finish, get_device_name(predictor.device))


def choose_pipelines(
    segment: Sequence[Callable[[Loaded], Segmented]],
) -> Callable[..., list[Any]]:
    """Return ``run_pipeline`` or, for several stages, ``run_pipelines``, with these.

    Args:
        segment: That stage, for each device.
    """
    if len(segment) == 1:
        return partial(run_pipeline, segment=segment[0])
    return partial(run_pipelines, segment=segment)


def run_pipelines(
    items: Iterable[Item],
    *,
    segment: Sequence[Callable[[Loaded], Segmented]],
    **stages: Any,
) -> list[Result]:
    """Take every item through one of several pipelines, whichever is free first.

    Args:
        items: What to work on; taken one by one, as late as possible.
        segment: That stage of each pipeline, such as one for each GPU. Of several, each runs in a
            thread of its own, and of what ``run_pipeline`` gets all must stand that.
        **stages: What else ``run_pipeline`` gets.

    Returns:
        What ``record`` returned, in the order of the items.

    Raises:
        BaseException: As ``run_pipeline``, or what interrupts the calling thread. The other
            pipelines finish the item that they are segmenting, and what they are writing; what
            they have only read is dropped.
    """
    queue = _SharedItems(items)
    with ThreadPoolExecutor(
        len(segment), thread_name_prefix="medseg-segment"
    ) as threads:
        # From the first lane on: whoever interrupts while others begin would wait for all items.
        try:
            lanes = [
                threads.submit(_run_lane, queue, stage, stages)
                for stage in segment
            ]
            _await(lanes)
            numbered = [pair for lane in lanes for pair in lane.result()]
        finally:
            queue.close()
    return [result for _, result in sorted(numbered, key=itemgetter(0))]


def _await(lanes: Iterable[Future[Any]]) -> None:
    """Wait until all pipelines have ended, and look up now and then.

    A signal that comes just before a thread begins to wait does not wake it.
    """
    waiting = set(lanes)
    while waiting:
        waiting = wait(waiting, timeout=_LOOK_UP_SECONDS).not_done


class _Stopped(BaseException):
    """Ends a pipeline whose items are no longer wanted; no stage keeps it as an item's error."""


class _SharedItems(Generic[Item]):
    """Items that several threads take from, and the numbers of those that each has taken.

    Attributes:
        is_closed: Whether there is no further item, and none that was read is wanted any more.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._waiting = enumerate(items)
        self._lock = threading.Lock()
        self.is_closed = False

    def take(self, numbers: list[int]) -> Iterator[Item]:
        """Give one item after the other, and note its number."""
        while not self.is_closed:
            with self._lock:
                numbered = next(self._waiting, None)
            if numbered is None:
                return
            number, item = numbered
            numbers.append(number)
            yield item

    def close(self) -> None:
        """Give out no further item, and let what was read ahead go."""
        self.is_closed = True


def _run_lane(
    queue: _SharedItems[Any],
    segment: Callable[[Any], Any],
    stages: Mapping[str, Any],
) -> list[tuple[int, Any]]:
    """Take what one pipeline gets through it; return results with the numbers of their items."""
    numbers: list[int] = []

    def segment_if_wanted(loaded: Any) -> Any:
        if queue.is_closed:
            raise _Stopped
        return segment(loaded)

    waiting = queue.take(numbers)
    try:
        results = run_pipeline(waiting, segment=segment_if_wanted, **stages)
    except _Stopped:
        return []
    except BaseException:
        queue.close()
        raise
    return list(zip(numbers, results, strict=True))


@dataclass(slots=True)
class _Work(Generic[Item]):
    """One item on its way through the stages.

    Attributes:
        item: What it began as.
        value: What the last stage returned.
        stage: The last stage tried.
        error: What that stage raised, with its traceback; nothing is tried after it.
        seconds: Stage → how long it took.
    """

    item: Item
    value: Any
    stage: Stage = "read"
    error: Exception | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: Stage, work: Callable[[Any], Any]) -> None:
        """Try a stage, unless an earlier one failed."""
        if self.error is not None:
            return
        self.stage = stage
        value, self.value = self.value, None
        began = time.perf_counter()
        try:
            self.value = work(value)
        except Exception as error:  # noqa: BLE001 - whatever it is, `on_error` must look at it
            self.error = error
            # Or what the stage had made would stay in memory beside the next item.
            clear_frames(error)
        self.seconds[stage] = round(time.perf_counter() - began, 3)


def _read_ahead(
    coming: deque[Future[_Work[Item]]],
    ahead: int,
    waiting: Iterator[Item],
    read: Callable[[Item], Any],
    reader: ThreadPoolExecutor,
) -> None:
    """Begin to read items until so many are on their way, or no further is waiting."""

    def begin(item: Item) -> _Work[Item]:
        work = _Work(item, item)
        work.run("read", read)
        return work

    for item in itertools.islice(waiting, ahead - len(coming)):
        coming.append(reader.submit(begin, item))
