"""A process that lacks what Windows lacks, and refuses what Windows refuses; for Linux.

medseg's own modules see an ``os`` and a ``signal`` as Windows has them and cannot import what is
POSIX's alone; whoever asks cannot rename or remove what is open or mapped, nor sync what is open
for reading only, nor open a folder. Libraries keep the modules of Linux: they have code of their
own for Windows.
"""

# ruff: noqa: PTH105, PTH112, PTH115, PTH123, PTH208
# It stands in for ``os`` itself.

from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_MODULES = """
crypt fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty
"""
_FUNCTIONS = """
chown chroot confstr copy_file_range ctermid fchdir fchmod fchown fdatasync fork forkpty fpathconf
fstatvfs fwalk getegid geteuid getgid getgrouplist getgroups getloadavg getpgid getpgrp getpriority
getresgid getresuid getsid getuid getxattr initgroups killpg lchown listxattr lockf major makedev
memfd_create minor mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate
posix_openpt posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork removexattr
sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups setpgid
setpriority setregid setresgid setresuid setreuid setsid setuid setxattr splice statvfs sync sysconf
sysconf_names tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev O_ACCMODE O_ASYNC
O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH
O_RSYNC O_SYNC O_TMPFILE
"""
_SIGNALS = """
SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP SIGTSTP SIGTTIN
SIGTTOU SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask
setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
"""

POSIX_MODULES = frozenset(_MODULES.split())
"""Modules that Windows lacks."""

POSIX_FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names of ``os`` that Windows lacks."""

POSIX_SIGNALS = frozenset(_SIGNALS.split())
"""Names of ``signal`` that Windows lacks."""

_O_BINARY = 1 << 30
_SHARING_VIOLATION = 32
_ACCESS_DENIED = 5
_NO_PRIVILEGE = 1314


def imitate_windows() -> None:
    """Make this process like one of Windows; medseg must not have been imported yet."""
    assert not any(name.startswith("medseg") for name in sys.modules)
    real_open = os.open
    seen_by_medseg = {
        "os": _Lacking(os, POSIX_FUNCTIONS, name="nt", O_BINARY=_O_BINARY),
        "signal": _Lacking(signal, POSIX_SIGNALS, SIGBREAK=signal.SIGUSR2),
    }

    def open_binary(path: Any, flags: int, mode: int = 0o777) -> int:
        assert flags & _O_BINARY, "without O_BINARY Windows changes line ends"
        return os.open(path, flags & ~_O_BINARY, mode)

    def open_handle(path: Any, *args: Any, **options: Any) -> int:
        if options.get("dir_fd") is None and os.path.isdir(path):
            raise _refuse(path, _ACCESS_DENIED)
        return real_open(path, *args, **options)

    seen_by_medseg["os"].open = open_binary  # type: ignore[attr-defined]
    _give_to_medseg(seen_by_medseg)
    os.open = open_handle
    # Windows removes such a file when it is closed, Linux while it is open.
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    _refuse_what_is_open()
    _refuse_to_sync_readers()
    # Files are opened in the user's code page unless an encoding is given.
    warnings.filterwarnings(
        "error", category=EncodingWarning, module=r"medseg\b"
    )


class _Lacking(types.ModuleType):
    """A module without some of its names, and with others."""

    def __init__(
        self, real: types.ModuleType, lacks: frozenset[str], **has: Any
    ) -> None:
        super().__init__(real.__name__)
        self.__dict__["_real"] = real
        self.__dict__["_lacks"] = lacks
        self.__dict__.update(has)

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(f"Windows has no {name}")
        return getattr(self._real, name)


def _give_to_medseg(modules: dict[str, _Lacking]) -> None:
    real_import = builtins.__import__

    def load(name: str, scope: Any = None, *rest: Any, **options: Any) -> Any:
        scope = options.pop("globals", scope)
        importer = (scope or {}).get("__name__") or ""
        if importer.partition(".")[0] != "medseg":
            return real_import(name, scope, *rest, **options)
        if name in POSIX_MODULES:
            raise ModuleNotFoundError(f"Windows has no module {name}")
        found = real_import(name, scope, *rest, **options)
        return modules.get(name, found)

    builtins.__import__ = load


def _refuse_what_is_open() -> None:
    replace, rename = os.replace, os.rename
    unlink, rmdir = os.unlink, os.rmdir

    def windows_replace(source: Any, target: Any, **options: Any) -> None:
        for path in (source, target):
            _require_closed(path)
        if os.path.isdir(target):
            raise _refuse(target, _ACCESS_DENIED)
        replace(source, target, **options)

    def windows_rename(source: Any, target: Any, **options: Any) -> None:
        for path in (source, target):
            _require_closed(path)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it exists", str(target))
        rename(source, target, **options)

    os.replace = windows_replace
    os.rename = windows_rename
    os.unlink = os.remove = _if_closed(unlink)
    os.rmdir = _if_closed(rmdir)


def _if_closed(remove: Callable[..., None]) -> Callable[..., None]:
    def windows_remove(path: Any, **options: Any) -> None:
        if options.get("dir_fd") is None:
            _require_closed(path)
        remove(path, **options)

    return windows_remove


def _require_closed(path: Any) -> None:
    """Refuse a file that this process has open or mapped, and a folder that holds one."""
    place = os.path.realpath(path)
    for held in _list_open():
        if held == place or held.startswith(place + os.sep):
            raise _refuse(path, _SHARING_VIOLATION)


def _list_open() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        lines = maps.read().splitlines()
    found = {line.split(None, 5)[5] for line in lines if "/" in line}
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # the handle of this very list
            continue
    return found


def _refuse(path: Any, code: int) -> PermissionError:
    error = PermissionError(errno.EACCES, "it is in use", str(path))
    error.winerror = code  # type: ignore[attr-defined]
    return error


def _refuse_to_sync_readers() -> None:
    import fcntl

    fsync = os.fsync

    def windows_fsync(handle: int) -> None:
        mode = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE
        if mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "it is open for reading only")
        fsync(handle)

    os.fsync = windows_fsync


def skip_what_windows_lacks(error: Exception) -> None:
    """Skip a test on Windows that itself needs POSIX, or the right to make links.

    That medseg needs neither is tested apart.
    """
    if os.name != "nt":
        return
    if isinstance(error, AttributeError) and error.obj in (os, signal):
        pytest.skip(f"Windows has no {error.name}")
    if getattr(error, "winerror", None) == _NO_PRIVILEGE:
        pytest.skip("this user of Windows may not make links")


def call(*arguments: object) -> None:
    """Call ``medseg`` with arguments; fail unless it exits with 0."""
    from medseg import cli

    sys.argv = ["medseg", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as done:
        if done.code:
            raise AssertionError(
                f"{arguments}: exit code {done.code}"
            ) from done
    else:
        raise AssertionError(f"{arguments}: no exit")


def require_refusals(folder: Path) -> None:
    """Fail unless this process refuses what Windows refuses."""
    import numpy as np

    for number in range(2):
        np.save(folder / f"{number}.npy", np.arange(9.0))
    mapped = np.load(folder / "1.npy", mmap_mode="c")
    for act in (
        lambda: os.replace(folder / "0.npy", folder / "1.npy"),
        lambda: (folder / "1.npy").unlink(),
        lambda: folder.rename(folder.with_name("other")),
        lambda: os.open(folder, os.O_RDONLY),
    ):
        try:
            act()
        except PermissionError:
            continue
        raise AssertionError("Windows would have refused this")
    del mapped
    (folder / "1.npy").unlink()
