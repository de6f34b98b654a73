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


def describe_traceback(error: BaseException) -> list[str]:
    """Return lines that say where an error came from, its causes first and itself last."""
    lines: list[str] = []
    for cause in reversed(_list_causes(error)):
        lines.extend(_list_frames(cause))
        if isinstance(cause, BaseExceptionGroup):
            for part in cause.exceptions:
                lines.extend(describe_traceback(part))
        lines.append(_name_error(cause))
    return lines


def _list_frames(error: BaseException) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}"


def _list_causes(error: BaseException) -> list[BaseException]:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while (
        cause is not None and cause not in causes
    ):  # an error may be raised from itself
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return causes


def _name_error(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, MedsegError):
        return f"{name}: {error.message}"
    return name


class LogFormatter(logging.Formatter):
    """Formats log records without the texts of others."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text: one line, and those of its traceback."""
        message = _select_message(record)
        lines = [f"{record.levelname}: {record.name}: {message}"]
        if record.exc_info:
            _, error, _ = record.exc_info
            if error is not None:
                lines.extend(describe_traceback(error))
        return "\n".join(lines)


def _select_message(record: logging.LogRecord) -> str:
    package = record.name.partition(".")[0]
    if package in TRUSTED:
        return record.getMessage().strip()
    file = Path(record.pathname).name
    return f"message withheld ({file}:{record.lineno})"


def withhold_texts() -> None:
    """Print logs, warnings and uncaught exceptions of this process without others' texts."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    # Libraries such as pydicom and MLflow bring handlers of their own, some of them later.
    logging.Handler.format = _format_record  # type: ignore[method-assign]
    # What is below a warning would be withheld anyway.
    logging.disable(logging.INFO)
    logging.raiseExceptions = (
        False  # logging would print the message that it could not format
    )
    warnings.showwarning = _show_warning
    sys.excepthook = _show_exception
    threading.excepthook = _show_thread_exception


def _format_record(self: logging.Handler, record: logging.LogRecord) -> str:
    return LogFormatter().format(record)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"{category.__name__} at {filename}:{lineno}", file=sys.stderr)  # noqa: T201


def _show_exception(
    _: type[BaseException], error: BaseException, __: object
) -> None:
    text = "\n".join(describe_traceback(error))
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _show_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    _show_exception(type(error), error, None)
