"""A journal of finished pieces of long work: a call that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.platform.files import sync_handle
from medseg.errors import OutputError


@dataclass(frozen=True, slots=True)
class Journal:
    """A file of pieces of work, one JSON line each; several tasks may share it.

    Attributes:
        file: The file; made when a piece is added.
    """

    file: Path

    def resume(self, task: str, key: str) -> JournalTask:
        """Return a task with the pieces that earlier calls finished.

        Args:
            task: Which one.
            key: Hash of all that its pieces follow from; others are not taken up.
        """
        done = []
        for entry in self._read():
            if entry.get("task") == task and entry.get("key") == key:
                done.append(entry.get("value"))
        return JournalTask(self.file, task, key, done)

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.file.is_file():
            return
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # torn when the call was killed
                continue
            if isinstance(entry, dict):
                yield entry


@dataclass(frozen=True, slots=True)
class JournalTask:
    """One task of a journal.

    Attributes:
        file: The journal.
        task: Which task.
        key: Hash of all that its pieces follow from.
        done: The pieces that earlier calls finished, in their order.
    """

    file: Path
    task: str
    key: str
    done: list[Any]

    def add(self, value: Any) -> None:
        """Append a finished piece, as JSON knows it; NaN and infinity may be in it.

        Raises:
            OutputError: If it cannot be written.
        """
        entry = {"task": self.task, "key": self.key, "value": value}
        # A line break first: the line before may be torn.
        text = "\n" + json.dumps(entry) + "\n"
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                sync_handle(stream.fileno())
        except OSError as error:
            raise OutputError(
                "what is done cannot be noted here; check the folder's permissions and the free "
                "space",
                source=self.file,
                detail=error.strerror,
            ) from error
