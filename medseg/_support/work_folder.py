"""A folder for temporary files that goes with its process, however that ends.

One that was killed cannot remove what it fetched: the next call does.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medseg._support.platform.locks import (
    LockedError,
    lock_folder,
    remove_locked,
)
from medseg.errors import OutputError

_DIGITS = 8
"""Of a hash of the machine's name."""

_SECONDS_TO_LOCK = 60.0
"""Age of a folder from which on it has its lock, if its process is alive."""


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Give a folder that goes with what is in it, and remove those of killed processes.

    Raises:
        OutputError: If no folder for temporary files can be written.
    """
    try:
        _remove_abandoned(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=make_prefix()))
    except OSError as error:
        raise OutputError(
            "the folder for temporary files cannot be written; name another one in TMPDIR",
            source=tempfile.tempdir,  # none was found where no folder can be written
            detail=error.strerror,
        ) from error
    try:
        lock = lock_folder(folder)
    except (
        OSError
    ):  # a disk without locks; there, nothing is ever taken for abandoned
        lock = contextlib.ExitStack()
    try:
        yield folder
    finally:
        remove_locked(folder, lock)


def make_prefix() -> str:
    """Return how the names of this machine's folders begin.

    Machines may share a disk that keeps locks to each of them: what another works with looks
    abandoned.
    """
    machine = hashlib.sha256(
        platform.node().encode(errors="replace")
    ).hexdigest()
    return f"medseg-objects-{machine[:_DIGITS]}-"


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{make_prefix()}*"):
        with contextlib.suppress(OSError, LockedError):
            facts = folder.lstat()
            is_young = time.time() - facts.st_mtime < _SECONDS_TO_LOCK
            if stat.S_ISDIR(facts.st_mode) and not is_young:
                remove_locked(folder, lock_folder(folder))
