"""What an error while working on a scan is about: the scan, the machine, the folder, or a bug."""

from __future__ import annotations

import contextlib
import errno
import traceback

from medseg.errors import OutputError

_FOLDER_FAULTS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EMFILE),
    }
)


def is_of_the_folder(error: Exception) -> bool:
    """Tell whether results can no longer be written, whichever scan they are of."""
    if not isinstance(error, OutputError) or not isinstance(error.__cause__, OSError):
        return False
    return error.__cause__.errno in _FOLDER_FAULTS


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether there was too little memory."""
    # PyTorch has no class of its own for it on the CPU.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def let_go(error: Exception) -> None:
    """Clear what the traceback's frames hold: the scan would stay in memory with them."""
    trace = error.__traceback__
    traceback.clear_frames(trace)
    caller = None if trace is None else trace.tb_frame.f_back
    with contextlib.suppress(RuntimeError):  # raised by the first frame that still runs
        while caller is not None:
            caller.clear()
            caller = caller.f_back
