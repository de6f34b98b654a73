"""``SegmentQueue``: how many segmentations may be asked for at a time.

One computes while the others wait. Past a bound they are refused at once, and a viewer that has
gone takes its request along, so that the next person does not wait for results that nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from medseg.label_server.request_checks import RefusedError

MOST = 16
"""Segmentations asked for at a time."""
MOST_PER_USER = 4
RETRY_SECONDS = 5

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SegmentQueue:
    """Counts the segmentations that are asked for.

    Args:
        most: How many, of all users.
        most_per_user: How many of one.
    """

    def __init__(
        self, most: int = MOST, most_per_user: int = MOST_PER_USER
    ) -> None:
        self._most = most
        self._most_per_user = most_per_user
        self._asked: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def admit(self, user: str) -> AsyncIterator[None]:
        """Have a place in the queue.

        Args:
            user: Who asks; where nobody logs in, the address.

        Raises:
            RefusedError: If too many wait already (429).
        """
        is_full = self._asked.total() >= self._most
        has_too_many = self._asked[user] >= self._most_per_user
        if is_full or has_too_many:
            raise RefusedError(
                429,
                "too many segmentations are waiting; try again in a few seconds",
                {"retry-after": str(RETRY_SECONDS)},
            )
        self._asked[user] += 1
        try:
            yield
        finally:
            self._asked[user] -= 1
            self._asked += Counter()  # drops users who wait for nothing


async def run_while_wanted(
    answer: Callable[[Receive, Send], Awaitable[None]],
    receive: Receive,
    send: Send,
) -> None:
    """Answer a request, and stop if the client goes before the answer has begun.

    Args:
        answer: Answers it; is given what comes from the client behind the request's body, and
            where the answer goes.
        receive: Gives what comes from the client behind the body: in the end, that it has gone.
        send: Takes the answer.
    """
    has_begun = False
    has_gone = asyncio.Event()

    async def send_on(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        has_gone.set()

    async def tell_rest() -> Message:
        await has_gone.wait()
        return {"type": "http.disconnect"}

    work = asyncio.ensure_future(answer(tell_rest, send_on))
    watching = asyncio.create_task(watch())
    try:
        await asyncio.wait(
            {work, watching}, return_when=asyncio.FIRST_COMPLETED
        )
        # Once the answer has begun, what is left is to remove the files behind it.
        if not work.done() and not has_begun:
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        work.cancel()
        watching.cancel()
