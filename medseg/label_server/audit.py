"""The audit log: who changed what and when, one JSON line each, appended and never changed."""

from __future__ import annotations

import contextvars
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg._support.platform.files import open_binary, read_at, sync_handle
from medseg.errors import OutputError
from medseg.label_server.users import Role

Fact = str | int | float | bool | None
"""What a line may hold. An exception is no fact: its text may quote paths and headers."""

_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Requester:
    """Who made the request that is being answered.

    Attributes:
        user: The name given at login; ``local`` where no login is required.
        address: The network address.
        role: What they may do.
    """

    user: str = "local"
    address: str = ""
    role: Role = Role.ADMIN


LOCAL = Requester()
REQUESTER: contextvars.ContextVar[Requester] = contextvars.ContextVar(
    "requester", default=LOCAL
)
"""Set by the gateway for each request; the threads that work for a request inherit it."""


def name_requester(client: object = None) -> str:
    """Return who makes the request that is being answered.

    Args:
        client: What the viewer calls its user; counts only where nobody has to log in.
    """
    user = REQUESTER.get().user
    if user != LOCAL.user or not isinstance(client, str):
        return user
    return client or user


class AuditLog:
    """An audit log.

    Args:
        path: The file; created with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, action: str, **facts: Fact) -> None:
        """Append a line; it is on disk when this returns.

        Args:
            action: What was done: ``label saved``, ``training started``, ``version promoted``, …
            facts: ``case``, ``tag``, ``sha256`` and others.

        Raises:
            OutputError: If it cannot be written.
        """
        requester = REQUESTER.get()
        line = {
            "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": requester.user,
            "address": requester.address,
            "action": action,
            **facts,
        }
        text = json.dumps(line, ensure_ascii=False)
        try:
            with _WRITING:
                self._append(text.encode() + b"\n")
        except OSError as error:
            raise OutputError(
                "the audit log cannot be written; free disk space or mend its permissions",
                source=self._path,
                detail=error.strerror,
            ) from error

    def _append(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        handle = open_binary(self._path, flags, 0o600)
        try:
            if _ends_in_half_a_line(handle):
                text = b"\n" + text
            if os.write(handle, text) != len(text):
                raise OSError(0, "the disk is full")
            sync_handle(handle)
        finally:
            os.close(handle)

    def read_lines(self) -> Iterator[dict[str, Any]]:
        """Yield every whole line, the oldest first."""
        if not self._path.exists():
            return
        for line in self._path.read_bytes().split(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # half a line that a killed process left


def _ends_in_half_a_line(handle: int) -> bool:
    # A killed process can leave half a line; the next one must not be joined to it.
    size = os.fstat(handle).st_size
    if size == 0:
        return False
    return read_at(handle, 1, size - 1) != b"\n"
