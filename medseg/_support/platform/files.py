"""Files and folders: what is on the disk, new names, long paths, who may read."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import threading
import time
from pathlib import Path

from medseg._support.platform import IS_WINDOWS

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds to wait for a file that another program holds: virus scanners take about one."""

_IN_USE = frozenset({5, 32, 33})
"""Windows: access denied, sharing violation, lock violation."""

_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""Some network drives do not sync folders."""

_LONGEST_PATH = 225
"""Windows takes 259 characters unless a path says otherwise, and a temporary name needs some."""

_LONG_PREFIX = "\\\\?\\"

_SEEKING = threading.Lock()


def open_binary(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a file as ``os.open`` does; line ends are kept as they are on Windows, too."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), mode)


def read_at(handle: int, count: int, start: int) -> bytes:
    """Read from an offset of an open file; fewer bytes come where the file ends."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, start)
    with _SEEKING:
        os.lseek(handle, start, os.SEEK_SET)
        return os.read(handle, count)


def sync_handle(handle: int) -> None:
    """Wait until what was written to an open file is on the disk."""
    if sys.platform == "darwin":
        import fcntl

        # There, fsync leaves it to the drive when it writes.
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk.

    On Windows folders cannot be synced, nor can files that are marked as read-only.
    """
    if path.is_dir():
        _sync_folder(path)
        return
    # Windows syncs through handles that may write; elsewhere the file may be read-only.
    flags = os.O_RDWR if IS_WINDOWS else os.O_RDONLY
    try:
        handle = open_binary(path, flags)
    except PermissionError:
        if IS_WINDOWS:
            return
        raise
    try:
        sync_handle(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    if IS_WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, in one step; a file that has the name is replaced.

    Windows refuses while anybody has either open, if only a virus scanner. So this tries again
    for two seconds there.

    Args:
        source: The file or folder.
        target: Its new path. On Windows no folder may have it, not even an empty one.

    Raises:
        OSError: If it cannot be done.
    """
    for pause in _PAUSES:
        try:
            source.replace(target)
        except PermissionError as error:
            if not is_in_use(error):
                raise
            time.sleep(pause)
        else:
            return
    source.replace(target)


def is_in_use(error: OSError) -> bool:
    """Tell whether Windows refused because some program has the file open."""
    return getattr(error, "winerror", None) in _IN_USE


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the disk knows no such links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        sync(target)


def extend_path(path: Path) -> Path:
    """Return a path that Windows takes however long it is, by its prefix ``\\\\?\\``.

    Elsewhere, and where the path is short, it is returned as it is.
    """
    if not IS_WINDOWS:
        return path
    return Path(extend_windows_path(str(path.absolute())))


def extend_windows_path(path: str) -> str:
    """Put the prefix for long paths before an absolute path of Windows that needs it.

    Examples:
        >>> extend_windows_path(r"C:\\short")
        'C:\\\\short'
    """
    if len(path) < _LONGEST_PATH or path.startswith(_LONG_PREFIX):
        return path
    if path.startswith("\\\\"):  # a share of another machine
        return f"{_LONG_PREFIX}UNC\\{path[2:]}"
    return f"{_LONG_PREFIX}{path}"


def identify_folder(folder: Path) -> tuple[int, int] | str:
    """Return what two paths of one folder share.

    Raises:
        OSError: If it cannot be looked at.
    """
    status = folder.stat()
    if status.st_ino:
        return status.st_dev, status.st_ino
    return os.path.realpath(folder)  # some drives of Windows number no files


def may_others_read(file: Path) -> bool:
    """Tell whether a file's mode lets other users read, write or run it.

    On Windows modes say nothing of it, and folders of users are theirs alone; so the answer is no.

    Raises:
        OSError: If it cannot be looked at.
    """
    mode = file.stat().st_mode
    return not IS_WINDOWS and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))
