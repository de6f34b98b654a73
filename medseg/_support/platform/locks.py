"""Locks that keep other processes out of a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from medseg._support.platform import IS_WINDOWS

LOCK = ".lock"
"""The file of a folder that is locked while somebody writes into the folder."""

_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


class LockedError(Exception):
    """Another process holds the lock."""


def lock_folder(folder: Path, *, patience: float = 0.0) -> contextlib.ExitStack:
    """Keep other processes out of a folder; the lock of one that was killed is free.

    Args:
        folder: The folder; ``.lock`` in it is made if needed, and stays.
        patience: Seconds to wait for the lock.

    Returns:
        What frees the folder when it is closed.

    Raises:
        LockedError: If another process, or another part of this one, holds the lock, or has just
            removed the folder.
        OSError: If the file cannot be written or its disk knows no locks.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    file = folder / LOCK
    if not file.exists():
        # Made here, so that the user's umask says who else may lock the folder.
        file.touch()
    before = file.stat()
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        if not isinstance(lock, SoftFileLock):
            raise LockedError from error
    except NotImplementedError as error:
        raise _make_no_lock_error() from error
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        # Where a disk has no locks it becomes one of these, which outlive a killed process.
        if isinstance(lock, SoftFileLock):
            raise _make_no_lock_error()
        if not _is_same(file, before):
            raise LockedError
        return stack.pop_all()


def is_locked(folder: Path, *, patience: float = 0.0) -> bool:
    """Tell whether another process, or another part of this one, holds the lock of a folder.

    Thousands may ask at once: except on Windows, who asks is not taken for who holds it.

    Args:
        folder: The folder.
        patience: Seconds that the lock must be held to count.

    Raises:
        OSError: If the lock cannot be read or its disk knows no locks.
    """
    file = folder / LOCK
    if not file.exists():
        return False
    if IS_WINDOWS:
        return _is_taken(folder, patience)
    end = time.monotonic() + patience
    while not _can_share(file):
        if time.monotonic() >= end:
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _can_share(file: Path) -> bool:
    """Tell whether nobody has a lock for himself alone."""
    import fcntl

    handle = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _is_taken(folder: Path, patience: float) -> bool:
    """Tell whether a lock cannot be had, by taking it: where locks cannot be shared."""
    try:
        lock_folder(folder, patience=patience).close()
    except LockedError:
        return True
    return False


def _is_same(file: Path, before: os.stat_result) -> bool:
    """Tell whether a file is the one that it was; its folder may have been removed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(before, file.stat())
    return False


def remove_locked(folder: Path, lock: contextlib.ExitStack) -> None:
    """Remove a folder and free it; whoever waits for the lock then finds that it is gone.

    Args:
        folder: As given to ``lock_folder``.
        lock: What that returned.
    """
    # Before it is free: afterwards somebody else may work in it.
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
    except OSError:
        # Windows moves no folder with an open file.
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
        # It removes none that somebody else has opened.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
            folder.rmdir()
        return
    shutil.rmtree(aside, ignore_errors=True)
    lock.close()


@contextlib.contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Wait until no other process changes a file, and keep them waiting meanwhile.

    Args:
        file: The file; a hidden ``.NAME.lock`` beside it is made if needed, and stays.

    Raises:
        LockedError: If another process does not let go of it for a minute.
        OSError: If the lock cannot be written or its disk knows no locks.
    """
    from filelock import FileLock, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}{LOCK}")
    try:
        with FileLock(beside, timeout=_PATIENCE_SECONDS, thread_local=False):
            yield
    except Timeout as error:
        raise LockedError from error
    except NotImplementedError as error:
        raise _make_no_lock_error() from error


def _make_no_lock_error() -> OSError:
    return OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
