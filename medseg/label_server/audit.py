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

from medseg.errors import OutputError

_WRITING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Asker:
    """Who made the request that is being answered.

    Attributes:
        user: The name given at login; ``local`` where no login is asked for.
        address: The network address.
    """

    user: str = "local"
    address: str = ""


NOBODY = Asker()
ASKER: contextvars.ContextVar[Asker] = contextvars.ContextVar("asker", default=NOBODY)
"""Set by the guard for each request; work done for a request sees it in its threads, too."""


class Audit:
    """An audit log.

    Args:
        path: The file; made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, action: str, **facts: Any) -> None:
        """Append a line; it is on disk when this returns.

        Args:
            action: What was done: ``label saved``, ``training started``, ``version promoted``, …
            facts: ``case``, ``tag``, ``sha256`` and others.

        Raises:
            OutputError: If it cannot be written.
        """
        asker = ASKER.get()
        line = {
            "when": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": asker.user,
            "address": asker.address,
            "action": action,
            **facts,
        }
        text = json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n"
        try:
            with _WRITING:
                self._append(text)
        except OSError as error:
            raise OutputError(f"cannot write {self._path}: {error.strerror}") from error

    def _append(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            # A killed process can leave half a line; the next one must not be joined to it.
            if size and os.pread(handle, 1, size - 1) != b"\n":
                text = b"\n" + text
            if os.write(handle, text) != len(text):
                raise OSError(0, "the disk is full")
            os.fsync(handle)
        finally:
            os.close(handle)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield every whole line, the oldest first."""
        if not self._path.exists():
            return
        for line in self._path.read_bytes().split(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:
                continue
