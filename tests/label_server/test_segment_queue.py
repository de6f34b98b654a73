"""How many segmentations wait, and what happens to one whose client has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from medseg.label_server.request_checks import RefusedError
from medseg.label_server.segment_queue import SegmentQueue, run_while_wanted


def test_each_user_and_all_together_have_so_many_places() -> None:
    queue = SegmentQueue(most=3, most_per_user=2)

    async def run() -> None:
        async with queue.admit("anna"), queue.admit("anna"):
            with pytest.raises(RefusedError) as refused:
                async with queue.admit("anna"):
                    pass
            assert refused.value.status == 429
            assert refused.value.headers == {"retry-after": "5"}
            async with queue.admit("ben"):
                with pytest.raises(RefusedError):
                    async with queue.admit("carl"):
                        pass
        async with queue.admit("anna"), queue.admit("carl"):
            pass

    asyncio.run(run())
    assert not queue._asked


def test_a_place_is_free_again_after_an_error() -> None:
    queue = SegmentQueue(most=1, most_per_user=1)

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with queue.admit("anna"):
                    raise ZeroDivisionError

    asyncio.run(run())


async def gone() -> Any:
    return {"type": "http.disconnect"}


async def stays() -> Any:
    await asyncio.Event().wait()


async def ignore(message: Any) -> None:
    pass


def test_work_is_dropped_when_its_client_goes() -> None:
    ended: list[str] = []

    async def answer(rest: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("dropped")

    asyncio.run(run_while_wanted(answer, gone, ignore))
    assert ended == ["dropped"]


def test_an_answer_that_has_begun_is_brought_to_its_end() -> None:
    done: list[str] = []

    async def answer(rest: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        assert (await rest())["type"] == "http.disconnect"
        await asyncio.sleep(0.01)
        done.append("files removed")

    asyncio.run(run_while_wanted(answer, gone, ignore))
    assert done == ["files removed"]


def test_an_answer_to_a_client_that_stays_is_given() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def answer(rest: Any, send: Any) -> None:
        await send("answer")

    asyncio.run(run_while_wanted(answer, stays, send))
    assert sent == ["answer"]


def test_an_error_of_the_work_is_told() -> None:
    async def answer(rest: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_while_wanted(answer, stays, ignore))
