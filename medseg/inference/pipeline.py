"""Three stages that overlap: read ahead · segment · write behind, in threads of one process.

The network runs in the calling thread, so that Ctrl-C reaches it between two windows. One thread
reads the next item meanwhile and one writes the last, so at most three items are in memory: a
slow stage holds the others back. One item goes the same way as many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Segmented = TypeVar("Segmented")
Result = TypeVar("Result")
Recorded = TypeVar("Recorded")

Stage = Literal["read", "segment", "write"]


def run_pipeline(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Loaded],
    segment: Callable[[Loaded], Segmented],
    write: Callable[[Segmented], Result],
    on_error: Callable[[Item, Stage, Exception], Result],
    record: Callable[[Result, Mapping[str, float]], Recorded],
) -> list[Recorded]:
    """Take every item through the three stages; each stage works in the order of the items.

    Args:
        items: What to work on; taken one by one, as late as possible.
        read: Runs in a thread of its own, one item ahead.
        segment: Runs in the calling thread.
        write: Runs in a thread of its own, one item behind.
        on_error: Takes the place of ``write`` for an item that a stage raised an error for, and
            runs where ``write`` does. Ctrl-C and the like are not kept for it.
        record: Gets what ``write`` or ``on_error`` returned, and how many seconds each stage
            took; runs where ``write`` does.

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
        ThreadPoolExecutor(1, thread_name_prefix="medseg-read") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="medseg-write") as writer,
    ):
        behind: Future[Recorded] | None = None
        ahead = _read_next(waiting, read, reader)
        while ahead is not None:
            work = ahead.result()
            ahead = _read_next(waiting, read, reader)
            work.run("segment", segment)
            if behind is not None:
                done.append(behind.result())
            behind = writer.submit(finish, work)
            # Or it would be kept in memory until the next item is read.
            del work
        if behind is not None:
            done.append(behind.result())
    return done


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
        self.seconds[stage] = round(time.perf_counter() - began, 3)


def _read_next(
    waiting: Iterator[Item],
    read: Callable[[Item], Any],
    reader: ThreadPoolExecutor,
) -> Future[_Work[Item]] | None:
    def begin(item: Item) -> _Work[Item]:
        work = _Work(item, item)
        work.run("read", read)
        return work

    for item in waiting:
        return reader.submit(begin, item)
    return None
