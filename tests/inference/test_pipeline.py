"""Three stages overlap, keep the order, hold few items, and leave no thread behind."""

from __future__ import annotations

import itertools
import threading
import time
import weakref

import pytest

from medseg.inference.pipeline import Attempt, run_pipeline

STAGES = ("read", "infer", "write")
PAUSE = 0.02


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
        read, infer, write = map(self.stage, STAGES)
        return run_pipeline(items, read=read, infer=infer, write=write)

    def overlap(self, one: tuple[str, int], other: tuple[str, int]) -> bool:
        (a, b), (c, d) = self.times[one], self.times[other]
        return a < d and c < b


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("medseg-")]


def test_stages_of_twenty_items_overlap_and_keep_their_order() -> None:
    watched = Watched()
    began = time.perf_counter()
    assert watched.run(range(20)) == list(range(20))
    took = time.perf_counter() - began
    assert took < 0.75 * 20 * len(STAGES) * PAUSE
    together = [
        watched.overlap(("infer", n), ("read", n + 1))
        and watched.overlap(("infer", n), ("write", n - 1))
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


def test_only_inference_runs_in_the_calling_thread() -> None:
    seen = run_pipeline(
        [0],
        read=lambda item: [threading.current_thread()],
        infer=lambda ran: [*ran, threading.current_thread()],
        write=lambda ran: [*ran, threading.current_thread()],
    )
    read, infer, write = seen[0]
    assert infer is threading.main_thread()
    assert read is not infer
    assert write not in (read, infer)


class Volume:
    """Something that can be counted while it is alive."""


@pytest.mark.parametrize("slow", STAGES)
def test_at_most_three_items_are_in_memory_whichever_stage_is_slow(slow: str) -> None:
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

    run_pipeline(
        range(12),
        read=read,
        infer=lambda volume: note("infer", volume),
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
    run_pipeline(
        items(),
        read=lambda n: n,
        infer=lambda n: ahead.append(len(taken) - n),
        write=lambda n: n,
    )
    assert max(ahead) == 2  # this one and the next


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_is_raised_with_its_item_and_ends_everything(stage: str) -> None:
    begun = []

    def fail(here: str):
        def work(item: str) -> str:
            begun.append((here, item))
            if here == stage and item == "c":
                raise ZeroDivisionError("what a pity")
            return item

        return work

    read, infer, write = map(fail, STAGES)
    with pytest.raises(ZeroDivisionError, match="what a pity") as raised:
        run_pipeline("abcdefgh", read=read, infer=infer, write=write, name=lambda i: f"scan {i}")
    assert raised.value.__notes__ == ["while working on scan c"]
    assert not our_threads()
    # Reading is one ahead when an item fails behind it; nothing is begun later.
    assert {item for _, item in begun} <= set("abcdef")
    # What was segmented before is written.
    assert ("write", "b") in begun


def test_an_interrupt_leaves_no_thread_and_finishes_what_is_being_written() -> None:
    written = []

    def infer(item: int) -> int:
        if item == 2:
            raise KeyboardInterrupt
        return item

    def write(item: int) -> None:
        time.sleep(0.05)
        written.append(item)

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(range(9), read=lambda n: n, infer=infer, write=write)
    assert written == [0, 1]
    assert not our_threads()


def test_an_attempt_takes_the_value_through_and_times_each_stage() -> None:
    attempt = Attempt(3).then("read", lambda n: n + 1).then("segment", str)
    assert attempt.value == "4"
    assert list(attempt.seconds) == ["read", "segment"]
    assert attempt.settle(lambda error: "failed") == "4"


def test_an_attempt_keeps_its_first_error_and_tries_nothing_after_it() -> None:
    attempt = Attempt(0).then("read", lambda n: 1 // n).then("segment", pytest.fail)
    assert isinstance(attempt.error, ZeroDivisionError)
    assert attempt.error.__traceback__ is not None
    assert (attempt.value, attempt.stage, list(attempt.seconds)) == (None, "read", ["read"])
    assert attempt.settle(lambda error: type(error).__name__) == "ZeroDivisionError"


def test_an_attempt_does_not_keep_an_interrupt() -> None:
    def interrupt(value: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Attempt(0).then("read", interrupt)


def test_none_is_a_value_like_any_other() -> None:
    assert Attempt(None).then("read", lambda nothing: nothing).then("write", repr).value == "None"
