"""Three stages overlap, keep the order, hold few items, and leave no thread behind."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from medseg.inference import pipeline
from medseg.inference.pipeline import choose_pipelines, run_pipeline

STAGES = ("read", "segment", "write")
STAGES_TRIED = ["read", "segment"]
PAUSE = 0.02


def unexpected(item: object, stage: str, error: Exception) -> object:
    raise error


def keep(result: object, seconds: object) -> object:
    return result


def run(items, *, read=lambda item: item, segment=lambda item: item, write=lambda item: item,
        on_error=unexpected, record=keep, ahead=1):  # fmt: skip
    return run_pipeline(
        items,
        read=read,
        segment=segment,
        write=write,
        on_error=on_error,
        record=record,
        ahead=ahead,
    )


class Watched:
    """Stages that pause and note when each item enters and leaves them."""

    def __init__(self, pause: float = PAUSE) -> None:
        self.pause = pause
        self.times: dict[tuple[str, int], tuple[float, float]] = {}

    def stage(self, name: str):
        def work(item: int) -> int:
            began = time.perf_counter()
            time.sleep(self.pause)
            self.times[name, item] = began, time.perf_counter()
            return item

        return work

    def run(self, items) -> list[int]:
        read, segment, write = map(self.stage, STAGES)
        return run(items, read=read, segment=segment, write=write)

    def overlap(self, one: tuple[str, int], other: tuple[str, int]) -> bool:
        (a, b), (c, d) = self.times[one], self.times[other]
        return a < d and c < b


def our_threads() -> list[str]:
    return [
        t.name for t in threading.enumerate() if t.name.startswith("medseg-")
    ]


def test_stages_of_twenty_items_overlap_and_keep_their_order() -> None:
    watched = Watched()
    began = time.perf_counter()
    assert watched.run(range(20)) == list(range(20))
    took = time.perf_counter() - began
    assert took < 0.75 * 20 * len(STAGES) * PAUSE
    together = [
        watched.overlap(("segment", n), ("read", n + 1))
        and watched.overlap(("segment", n), ("write", n - 1))
        for n in range(1, 19)
    ]
    assert sum(together) > 12
    for stage in STAGES:
        ends = [watched.times[stage, n] for n in range(20)]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    assert not our_threads()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_items_go_the_same_way(count: int) -> None:
    assert Watched(0).run(range(count)) == list(range(count))


def test_only_the_network_runs_in_the_calling_thread() -> None:
    seen = run(
        [0],
        read=lambda item: [threading.current_thread()],
        segment=lambda ran: [*ran, threading.current_thread()],
        write=lambda ran: [*ran, threading.current_thread()],
    )
    read, segment, write = seen[0]
    assert segment is threading.main_thread()
    assert read is not segment
    assert write not in (read, segment)


class Volume:
    """Something that can be counted while it is alive."""


@pytest.mark.parametrize("slow", STAGES)
def test_at_most_three_items_are_in_memory_whichever_stage_is_slow(
    slow: str,
) -> None:
    alive: weakref.WeakSet[Volume] = weakref.WeakSet()
    most = 0

    def read(item: int) -> Volume:
        volume = Volume()
        alive.add(volume)
        return note("read", volume)

    def note(stage: str, volume: Volume) -> Volume:
        nonlocal most
        time.sleep(0.01 if stage == slow else 0)
        most = max(most, len(alive))
        return volume

    run(
        range(12),
        read=read,
        segment=lambda volume: note("segment", volume),
        write=lambda volume: str(note("write", volume)),
    )
    assert 1 <= most <= 3


def test_items_are_taken_as_late_as_possible() -> None:
    taken = []

    def items():
        for n in range(5):
            taken.append(n)
            yield n

    ahead: list[int] = []
    run(
        items(),
        read=lambda n: n,
        segment=lambda n: ahead.append(len(taken) - n),
        write=lambda n: n,
    )
    assert max(ahead) == 2  # this one and the next


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_ends_its_own_item_and_says_where(stage: str) -> None:
    def fail(here: str):
        def work(item: str) -> str:
            if here == stage and item == "c":
                raise ZeroDivisionError("what a pity")
            return item

        return work

    handled = []

    def explain(item: str, failed: str, error: Exception) -> str:
        handled.append(
            (
                item,
                failed,
                type(error).__name__,
                threading.current_thread().name,
            )
        )
        assert error.__traceback__ is not None
        return f"no {item}"

    read, segment, write = map(fail, STAGES)
    done = run(
        "abcde", read=read, segment=segment, write=write, on_error=explain
    )
    assert done == ["a", "b", "no c", "d", "e"]
    assert handled == [("c", stage, "ZeroDivisionError", "medseg-write_0")]
    assert not our_threads()


def test_nothing_is_tried_after_an_error() -> None:
    done = run(
        [0],
        read=lambda n: 1 // n,
        segment=pytest.fail,
        write=pytest.fail,
        on_error=lambda item, stage, error: (item, stage),
    )
    assert done == [(0, "read")]


def test_each_stage_that_was_tried_is_timed() -> None:
    times = []

    def slow(item: int) -> int:
        time.sleep(0.02)
        return 1 // item

    run(
        [1, 0],
        read=lambda n: n,
        segment=slow,
        on_error=lambda item, stage, error: item,
        record=lambda result, seconds: times.append(dict(seconds)),
    )
    assert [list(seconds) for seconds in times] == [
        ["read", "segment", "write"],
        STAGES_TRIED,
    ]
    assert all(
        seconds["segment"] >= 0.02 > seconds["read"] for seconds in times
    )


@pytest.mark.parametrize("handler", ["on_error", "record"])
def test_an_error_of_the_handlers_ends_everything(handler: str) -> None:
    begun, written = [], []

    def stop(*_: object) -> None:
        raise OSError("the disk is gone")

    def segment(item: int) -> int:
        begun.append(item)
        return 1 // (item - 2)

    def write(item: int) -> int:
        written.append(item)
        return item

    handlers = {"on_error": lambda item, stage, error: item} | {handler: stop}
    with pytest.raises(OSError, match="the disk is gone"):
        run(range(9), segment=segment, write=write, **handlers)
    assert not our_threads()
    # Segmenting is one ahead when an item fails behind it; nothing is begun later.
    assert len(begun) <= (4 if handler == "on_error" else 2)


def test_an_interrupt_leaves_no_thread_and_finishes_what_is_being_written() -> (
    None
):
    written = []

    def segment(item: int) -> int:
        if item == 2:
            raise KeyboardInterrupt
        return item

    def write(item: int) -> None:
        time.sleep(0.05)
        written.append(item)

    with pytest.raises(KeyboardInterrupt):
        run(range(9), segment=segment, write=write)
    assert written == [0, 1]
    assert not our_threads()


def test_none_is_a_value_like_any_other() -> None:
    assert run([None], write=repr) == ["None"]


def test_slow_reading_and_writing_are_done_several_at_a_time() -> None:
    def slow(item: int) -> int:
        time.sleep(PAUSE)
        return item

    began = time.perf_counter()
    done = run(range(16), read=slow, write=slow, ahead=4)
    assert done == list(range(16))
    assert time.perf_counter() - began < 0.75 * 16 * PAUSE
    assert not our_threads()


def run_lanes(items, segment, **stages):
    plain = {"read": lambda item: item, "write": lambda item: item}
    handlers = {"on_error": unexpected, "record": keep}
    run = choose_pipelines(segment)
    return run(items, **{**plain, **handlers, **stages})


def test_lanes_share_items_and_results_keep_their_order() -> None:
    seen: list[list[int]] = [[], []]

    def lane(number: int):
        def segment(item: int) -> int:
            time.sleep(PAUSE * (1 + number))
            seen[number].append(item)
            return 10 * item

        return segment

    done = run_lanes(range(12), [lane(0), lane(1)])
    assert done == [10 * item for item in range(12)]
    assert sorted(seen[0] + seen[1]) == list(range(12))
    assert len(seen[0]) > len(seen[1]) > 1
    assert not our_threads()


def test_one_lane_is_a_pipeline_in_the_calling_thread() -> None:
    threads = run_lanes([0], [lambda _: threading.current_thread()])
    assert threads == [threading.main_thread()]


def test_an_error_of_the_handlers_of_one_lane_ends_all() -> None:
    begun: list[int] = []

    def segment(item: int) -> int:
        begun.append(item)
        time.sleep(PAUSE)
        return item

    def stop(result: int, seconds: object) -> int:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run_lanes(range(50), [segment, segment], record=stop)
    assert len(begun) < 10
    assert not our_threads()


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """Programs that a shell starts in the background ignore them."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal of one thread")
@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_drops_what_lanes_only_read_and_writes_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed, first = threading.Event(), threading.Lock()
    close = pipeline._SharedItems.close
    read, segmented, written = [], [], []

    def note_close(items: object) -> None:
        close(items)
        closed.set()

    def segment(item: int) -> int:
        segmented.append(item)
        # Once, though both lanes may see two.
        if len(segmented) == 2 and first.acquire(blocking=False):
            # To the thread that waits, as a terminal does.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert closed.wait(20)
        return item

    monkeypatch.setattr(pipeline._SharedItems, "close", note_close)
    with pytest.raises(KeyboardInterrupt):
        run_lanes(
            range(50),
            [segment, segment],
            read=read.append,
            write=written.append,
            ahead=4,
        )
    assert len(segmented) == 2
    assert len(written) == 2
    assert 2 < len(read) <= 10
    assert not our_threads()


def test_an_interrupt_while_lanes_begin_waits_for_no_further_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InterruptedPool(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            if self._thread_name_prefix == "medseg-segment":
                raise KeyboardInterrupt
            return future

    segmented = []

    def segment(item: int) -> int:
        segmented.append(item)
        time.sleep(PAUSE)
        return item

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", InterruptedPool)
    with pytest.raises(KeyboardInterrupt):
        run_lanes(range(50), [segment, segment])
    assert len(segmented) <= 2
    assert not our_threads()


def test_what_a_failed_stage_had_made_is_gone_before_the_next_item() -> None:
    alive: weakref.WeakSet[Volume] = weakref.WeakSet()
    left: list[int] = []

    def segment(item: int) -> int:
        left.append(len(alive))
        volume = Volume()
        alive.add(volume)
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise RuntimeError("outer") from error

    def slow(item: int, stage: str, error: Exception) -> int:
        time.sleep(PAUSE)
        return item

    run(range(3), segment=segment, on_error=slow)
    assert left == [0, 0, 0]
