"""What the server and its processes print: types and places in the code, no text of others.

The text of an exception, of a warning or of another library's log may quote a path or a header,
and with it a patient's name. So a traceback is printed as the types of its exceptions and the
lines of code they came through; medseg's own messages hold no names by themselves.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from medseg.errors import MedsegError

TRUSTED = frozenset({"medseg", "uvicorn"})
"""Packages whose log messages quote neither scans nor requests."""


def describe_error(error: BaseException) -> str:
    """Return what may be told of an error: medseg's message, or the type of another's.

    Example:
        >>> from medseg.errors import ScanError
        >>> describe_error(ScanError("the voxels end early", source="ct.nii.gz"))
        'the voxels end early'
        >>> describe_error(ValueError("ct.nii.gz"))
        'ValueError'
    """
    return error.message if isinstance(error, MedsegError) else type(error).__name__


def describe_traceback(error: BaseException) -> list[str]:
    """Return lines that say where an error came from, its causes first and itself last."""
    lines = []
    for link in reversed(list(_follow_causes(error))):
        for frame in traceback.extract_tb(link.__traceback__):
            lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        if isinstance(link, BaseExceptionGroup):
            for part in link.exceptions:
                lines.extend(describe_traceback(part))
        lines.append(_name_error(link))
    return lines


def _follow_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _name_error(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error.message}" if isinstance(error, MedsegError) else name


class LogFormatter(logging.Formatter):
    """Formats log records without the texts of others."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text: one line, and those of its traceback."""
        package = record.name.partition(".")[0]
        if package in TRUSTED:
            message = record.getMessage().strip()
        else:
            message = f"message withheld ({Path(record.pathname).name}:{record.lineno})"
        lines = [f"{record.levelname}: {record.name}: {message}"]
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            lines.extend(describe_traceback(error))
        return "\n".join(lines)


def withhold_texts() -> None:
    """Print logs, warnings and uncaught exceptions of this process without others' texts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.raiseExceptions = False  # logging would print the message that it could not format
    warnings.showwarning = _show_warning
    sys.excepthook = _show_exception
    threading.excepthook = _show_thread_exception


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"{category.__name__} at {filename}:{lineno}", file=sys.stderr)  # noqa: T201


def _show_exception(_: type[BaseException], error: BaseException, __: object) -> None:
    text = "\n".join(describe_traceback(error))
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _show_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        _show_exception(arguments.exc_type, arguments.exc_value, None)
