"""What an error while working on a scan is about: the scan, the machine, the folder, or a bug."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Sequence
from pathlib import Path

from medseg._support.memory import (
    NO_MEMORY,
    is_out_of_memory,
    list_causes,
)
from medseg.errors import MedsegError, OutputError

_FOLDER_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EMFILE),
    }
)
"""System errors that concern a disk or folder, whichever file is written."""


def concerns_output_folder(error: Exception) -> bool:
    """Tell whether results can no longer be written, whichever scan they are of."""
    if not isinstance(error, OutputError) or not isinstance(
        error.__cause__, OSError
    ):
        return False
    return error.__cause__.errno in _FOLDER_ERRORS


def is_bug(error: Exception) -> bool:
    """Tell whether an error is neither the scan's nor the machine's fault."""
    return not isinstance(error, MedsegError) and not is_out_of_memory(error)


def describe_error(error: Exception) -> str:
    """Return what a record says of an error: no file name, and nothing from a header.

    An error of medseg has a message that holds neither; of any other error only its type is
    named, since its text may quote a header.
    """
    if isinstance(error, MedsegError):
        return error.message
    if is_out_of_memory(error):
        return NO_MEMORY
    return (
        f"this is a bug in medseg ({type(error).__name__}), not a fault of the scan; please report "
        "it with the traceback that the run ended with"
    )


def describe_to_caller(error: Exception, files: Sequence[Path]) -> str:
    """Return what the person who called is told, texts of headers and all.

    Args:
        error: What was raised.
        files: Those of the scan. Whoever shows the text says where the scan lies, so the error's
            source stands in it only where it is one of many files.
    """
    if not isinstance(error, MedsegError):
        return str(error)
    text = error.message
    if error.detail:
        text = f"{text} ({error.detail})"
    names = {str(file): file.name for file in files}
    if len(names) > 1 and error.source in names:
        return f"{names[error.source]}: {text}"
    return text


def clear_frames(error: Exception) -> None:
    """Clear what frames of tracebacks hold: a scan would stay in memory with them, or in a GPU's.

    Args:
        error: What was raised; what it was raised from is cleared, too.
    """
    for cause in list_causes(error):
        _clear_frames_of(cause)


def _clear_frames_of(error: BaseException) -> None:
    trace = error.__traceback__
    traceback.clear_frames(trace)
    caller = None if trace is None else trace.tb_frame.f_back
    with contextlib.suppress(
        RuntimeError
    ):  # raised by the first frame that still runs
        while caller is not None:
            caller.clear()
            caller = caller.f_back
