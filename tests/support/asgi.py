"""Requests to an ASGI application in the test's own process, and one that tells what came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from support.label_servers import Answer


def ask(
    app: Any,
    method: str,
    target: str,
    body: bytes | Sequence[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    client: tuple[str, int] | None = ("192.0.2.7", 4711),
) -> Answer:
    """Send one request, its body in the chunks given, and return what was answered."""
    path, _, query = target.partition("?")
    chunks = [body] if isinstance(body, bytes) else list(body)
    sent: list[Any] = []
    messages = [
        {
            "type": "http.request",
            "body": chunk,
            "more_body": number < len(chunks),
        }
        for number, chunk in enumerate(chunks, start=1)
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    known = {"host": "127.0.0.1:8000", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (key.lower().encode(), value.encode())
            for key, value in known.items()
        ],
        "client": client,
    }
    asyncio.run(app(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in sent)
    return Answer(sent[0]["status"], answer)


@dataclass
class Recorder:
    """An application that answers 200 and keeps what reached it.

    Attributes:
        requests: Method, path and body of each.
        requesters: Whom the gateway named for each.
        queries: The query of each.
    """

    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    requesters: list[Any] = field(default_factory=list)
    queries: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from medseg.label_server.audit import REQUESTER

        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append((scope["method"], scope["path"], body))
        self.requesters.append(REQUESTER.get())
        self.queries.append(scope["query_string"])
        content = json.dumps({"reached": scope["path"]}).encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": []}
        )
        await send({"type": "http.response.body", "body": content})
