"""Events that go from one process to another, by files on a disk that both see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medseg import events
from medseg.errors import OutputError
from medseg.events import Event


def format_event(event: Event) -> str:
    """Return an event as a line of JSON."""
    content = {"kind": type(event).__name__, "fields": asdict(event)}
    return json.dumps(content, default=str)


def parse_event(line: str | bytes) -> Event:
    """Return the event that ``format_event`` wrote.

    Examples:
        >>> parse_event(format_event(events.Progress("checking cases", 1, 2)))
        Progress(task='checking cases', done=1, total=2, note='')
    """
    content = json.loads(line)
    adapter = _get_adapter(content["kind"])
    event: Event = adapter.validate_python(content["fields"])
    return event


@cache
def _get_adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(getattr(events, kind))


class EventWriter:
    """A listener that appends what happens to a file of its own.

    Args:
        file: The file; made if it is not there.

    Raises:
        OutputError: If it cannot be written; so do the methods.
    """

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        with self._explain_errors():
            self._stream = file.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        """Append an event, so that others see it at once."""
        with self._explain_errors():
            self._stream.write(format_event(event) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file; over a network, others see all of it only then."""
        with self._explain_errors():
            self._stream.close()

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                "what happens cannot be written to the run folder",
                source=self._folder,
                detail=error.strerror,
            ) from error


class EventReader:
    """Reads what others append to the files of a folder.

    Args:
        folder: The folder.
        pattern: Which of its files; what was written first sorts first.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._positions: dict[Path, int] = {}

    def read(self) -> Iterator[Event]:
        """Yield what came since the last time; what cannot be read comes the next time."""
        for line in self._read_lines():
            yield parse_event(line)

    def _read_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        # A network drive may fail for a moment, which ends no training of days.
        with contextlib.suppress(OSError):
            for file in sorted(self._folder.glob(self._pattern)):
                lines += self._read_file(file)
        return lines

    def _read_file(self, file: Path) -> list[bytes]:
        position = self._positions.get(file, 0)
        # Opened anew: a network drive shows what was appended to who opens a file.
        with file.open("rb") as stream:
            stream.seek(position)
            content = stream.read()
        # Of a line that is being written, the rest comes later.
        whole = content[: content.rfind(b"\n") + 1]
        self._positions[file] = position + len(whole)
        return whole.splitlines()
