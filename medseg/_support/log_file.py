"""``LogFile``: a listener that keeps a log of batches, one line per scan."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from medseg import events
from medseg._support.addresses import refuse_address
from medseg.errors import OutputError
from medseg.events import Event

_LOOKED_AT = 512
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Signs that no text has, in whichever encoding; images begin with some."""


class LogFile:
    """Appends a line for each scan to a file, and lines for the begin and the end of a command.

    A line has the time in ISO 8601 with its zone, the command with its process, and what
    happened. It says what the ledger says: names of results, and no path, no header and no
    patient's name beyond these. Each line is one write at the end of the file that has the name
    then: lines of several processes never mix, and the file may be moved away at any time, as
    logrotate does.

    Args:
        path: The file; made with its folder if needed.
        command: What writes to it: ``segment``.

    Raises:
        OutputError: If it cannot be written, is another file, such as a scan or a ledger, or an
            address of an object store.

    Examples:
        >>> import tempfile
        >>> log = LogFile(Path(tempfile.mkdtemp()) / "medseg.log", "segment")
        >>> log(events.ScanDone("liver_07", "failed", "the voxels end early"))
        >>> log.path.read_text().split(maxsplit=2)[2]
        'liver_07 failed: the voxels end early\\n'
    """

    def __init__(self, path: str | Path, command: str) -> None:
        self.path = Path(path)
        self._command = command
        self._fault = ""
        refuse_address(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append("")
            is_log = _may_be_log(self.path)
        except OSError as error:
            raise OutputError(
                "the log cannot be written; give a file in a folder that you may write to",
                source=self.path,
                detail=error.strerror,
            ) from error
        if not is_log:
            raise OutputError(
                "this file is no log, and nothing is added to it; give another one",
                source=self.path,
            )

    @property
    def fault(self) -> str:
        """Why lines are missing; empty if none is."""
        return self._fault

    def __call__(self, event: Event) -> None:
        """Write what became of a scan; other events have no line, since they may name files."""
        match event:
            case events.BatchStarted(total, skipped, title):
                also = f", {skipped} skipped" if skipped else ""
                self.write(f"begins: {total} scans{also}, bundle {title}")
            case events.ScanDone():
                self.write(_describe(event))

    def write(self, text: str) -> None:
        """Write one line. What cannot be written is no reason to end a batch: see ``fault``."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        sender = f"{self._command}[{os.getpid()}]"
        line = " ".join([now, sender, *text.split()])
        try:
            self._append(f"{line}\n")
        except OSError as error:
            self._fault = error.strerror or type(error).__name__

    def _append(self, text: str) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(text.encode(errors="replace"))


def _may_be_log(file: Path) -> bool:
    """Tell whether a file is text, other programs' as well; a device takes whatever comes."""
    if not file.is_file():
        return True
    with file.open("rb") as stream:
        begin = stream.read(_LOOKED_AT)
    return not begin.startswith(b"{") and not _BINARY.search(begin)


def _describe(event: events.ScanDone) -> str:
    text = f"{event.name} {event.state}"
    if event.seconds is not None:
        text += f" in {event.seconds:.1f} s"
    return f"{text}: {event.what}" if event.what else text
