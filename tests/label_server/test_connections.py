"""Connections that are opened and then not used."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
import uvicorn
from support.asgi import Recorder
from support.label_servers import free_port

from medseg.label_server import connections
from medseg.label_server.connections import list_server_options

REQUEST = b"GET /info/ HTTP/1.1\r\nHost: x\r\n"


async def with_server(work: Any) -> None:
    """Run ``work(port)`` beside a server."""
    port = free_port()
    config = uvicorn.Config(
        Recorder(), port=port, log_level="critical", **list_server_options()
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        await work(port)
    finally:
        server.should_exit = True
        await serving


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"GET", REQUEST])
def test_a_request_that_does_not_come_to_its_body_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)

    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert time.monotonic() - began >= 0.19
        await close(writer)

    asyncio.run(with_server(work))


def test_a_second_request_on_a_connection_is_not_waited_for_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)

    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + b"\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n0\r\n\r\n")
        await asyncio.sleep(0.3)  # idle between requests is no fault
        writer.write(REQUEST)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        await close(writer)

    asyncio.run(with_server(work))


def test_connections_beyond_the_bound_are_closed_and_the_others_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)

    async def work(port: int) -> None:
        opened = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(4)
        ]
        assert await asyncio.wait_for(opened[3][0].read(), 10) == b""
        reader, writer = opened[0]
        writer.write(REQUEST + b"\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n0\r\n\r\n")
        for _, writer in opened:
            await close(writer)

    asyncio.run(with_server(work))
