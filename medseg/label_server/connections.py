"""``BoundedConnection``: uvicorn's connection, which does not wait for ever for a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
"""How long the line and the headers of a request may take."""
MOST_CONNECTIONS = 256
"""Open at a time; further ones are closed at once."""


class BoundedConnection(H11Protocol):
    """One client's connection."""

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        self._stop_awaiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        super().data_received(data)
        has_headers = self.conn.their_state is not h11.IDLE
        if has_headers or self.transport.is_closing():
            self._stop_awaiting()
        elif self._headers_due is None:
            self._await_headers()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing of a client that asks for a WebSocket: it is answered as any other."""

    def _await_headers(self) -> None:
        self._headers_due = self.loop.call_later(
            HEADER_SECONDS, self._close_late
        )

    def _stop_awaiting(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _close_late(self) -> None:
        self._headers_due = None
        if not self.transport.is_closing():
            self.transport.close()


def list_server_options() -> dict[str, Any]:
    """Return uvicorn's options that bound what clients can hold open."""
    return {
        "http": BoundedConnection,
        "timeout_keep_alive": 15,
        "ws": "none",
    }


class GreetingServer(uvicorn.Server):
    """A server that says when it listens, and not before.

    Args:
        config: Its settings.
        greet: Called once it listens.
    """

    def __init__(
        self, config: uvicorn.Config, greet: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._greet = greet

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if self.started:
            self._greet()
