"""Three stages that overlap: read ahead · infer · write behind, in threads of one process.

The network runs in the calling thread, so that Ctrl-C reaches it between two windows. One thread
reads the next item meanwhile and one writes the last, so at most three items are in memory: a
slow stage holds the others back. One item goes the same way as many.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Found = TypeVar("Found")
Done = TypeVar("Done")
Value = TypeVar("Value")
Next = TypeVar("Next")


def run_pipeline(
    items: Iterable[Item],
    *,
    read: Callable[[Item], Loaded],
    infer: Callable[[Loaded], Found],
    write: Callable[[Found], Done],
    name: Callable[[Item], str] = str,
) -> list[Done]:
    """Take every item through the three stages; each stage works in the order of the items.

    Args:
        items: What to work on; taken one by one, as late as possible.
        read: Runs in a thread of its own, one item ahead.
        infer: Runs in the calling thread.
        write: Runs in a thread of its own, one item behind.
        name: What a note on an error calls an item.

    Returns:
        What ``write`` returned, in the order of the items.

    Raises:
        Exception: Whatever a stage raises, with a note that names the item. What is being
            written then is finished, nothing more is begun, and no thread is left. An error
            that should end its own item only is kept in an ``Attempt``.
    """
    waiting = iter(items)
    done: list[Done] = []
    with (
        ThreadPoolExecutor(1, thread_name_prefix="medseg-read") as reader,
        ThreadPoolExecutor(1, thread_name_prefix="medseg-write") as writer,
    ):
        behind: tuple[str, Future[Done]] | None = None
        ahead = _begin(waiting, read, reader)
        while ahead is not None:
            item, reading = ahead
            loaded = _outcome(name(item), reading)
            del reading
            ahead = _begin(waiting, read, reader)
            with _named(name(item)):
                found = infer(loaded)
            del loaded
            if behind is not None:
                done.append(_outcome(*behind))
            behind = name(item), writer.submit(write, found)
            del found
        if behind is not None:
            done.append(_outcome(*behind))
    return done


def _begin(
    waiting: Iterator[Item], read: Callable[[Item], Loaded], reader: ThreadPoolExecutor
) -> tuple[Item, Future[Loaded]] | None:
    for item in waiting:
        return item, reader.submit(read, item)
    return None


def _outcome(name: str, future: Future[Value]) -> Value:
    with _named(name):
        return future.result()


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put a note on an error that says which item met it."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while working on {name}")
        raise


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Value]):
    """What an item has come to so far: a value, or the error that ended its way.

    Attributes:
        value: What the last stage returned; ``None`` after an error.
        error: What a stage raised, with its traceback.
        stage: The last stage tried.
        seconds: Stage → how long it took.
    """

    value: Value | None
    error: Exception | None = None
    stage: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def then(self, stage: str, work: Callable[[Value], Next]) -> Attempt[Next]:
        """Try the next stage on the value; after an error nothing is tried any more.

        Args:
            stage: What the stage is called in ``seconds``.
            work: The stage. Whatever it raises is kept; Ctrl-C and the like are not.
        """
        if self.error is not None:
            return cast("Attempt[Next]", self)
        began = time.perf_counter()
        value: Next | None = None
        error: Exception | None = None
        try:
            value = work(cast(Value, self.value))
        except Exception as raised:  # noqa: BLE001 - kept whole, and the caller must look at it
            error = raised
        seconds = {**self.seconds, stage: round(time.perf_counter() - began, 3)}
        return Attempt(value, error, stage, seconds)

    def settle(self, explain: Callable[[Exception], Value]) -> Value:
        """Return the value, or what ``explain`` makes of the error."""
        return cast(Value, self.value) if self.error is None else explain(self.error)
