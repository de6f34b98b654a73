"""Files and folders that appear whole or not at all.

Each is written under a temporary name beside its own, synced to the disk, and then renamed: a
reader sees the old one or the new one, and after a power cut, too, one of the two is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medseg._support.platform import IS_WINDOWS
from medseg._support.platform.files import extend_path, is_in_use, rename, sync
from medseg.errors import OutputError, ScanError

PART = ".part-"
"""How the names of files and folders begin that are not whole yet."""
SPECIAL = (
    "is a device, a pipe or a socket, or a link to one; give a regular file"
)
"""Why such a thing is not read."""


def is_special(path: Path) -> bool:
    """Tell whether a path, or what it is a link to, is a device, a pipe or a socket.

    Reading one may never end, as ``/dev/zero`` does not, or wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # lists may name what no system takes: a NUL
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def refuse_special(path: Path) -> None:
    """Refuse a device, a pipe or a socket before it is opened; what is not there is no such thing.

    Raises:
        ScanError: If it is one.
    """
    if is_special(path):
        raise ScanError(SPECIAL, source=path)


@contextlib.contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success make it ``path`` in one step.

    The temporary name keeps the suffixes of ``path``, because writers choose formats by them.
    On any error the temporary file is removed and ``path`` is as it was before.

    Args:
        path: The file to write; its folder is made if needed.
        mode: Who may read and write it, before the user's umask.

    Yields:
        The path to write to.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    path = extend_path(path)
    with _raising_output_error(path, "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(path.suffixes[-2:])
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=PART, suffix=suffix
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # The content first: a name that is on the disk before it would be an empty file.
            sync(temporary)
            _apply_umask(temporary, mode)
            rename(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success make it ``path``.

    A folder that is there already is replaced, where a link leads to it as well; between the two
    steps that this takes there is none. On any error the temporary folder is removed and ``path``
    is as it was before.

    Args:
        path: The folder to write.

    Yields:
        The folder to write into, empty.

    Raises:
        OutputError: If it cannot be written or replaced, or the disk is full.
    """
    refuse_fixed_folder(path)
    path = extend_path(Path(os.path.realpath(path)))
    with _raising_output_error(path, "folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=PART))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                sync(file)
            _apply_umask(temporary, 0o777)
            _replace_folder(path, temporary)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_fixed_folder(path: Path) -> None:
    """Refuse a folder that no other can take the place of.

    Raises:
        OutputError: If this process runs in it, or a disk is mounted there.
    """
    real = os.path.realpath(path)
    if real == os.path.realpath(os.curdir) or os.path.ismount(real):
        raise OutputError(
            "the folder appears whole, and so it can take neither the place of the one that the "
            "command runs in nor that of a mounted disk; name a new folder in it",
            source=path,
        )


def write_atomically(
    path: Path, content: str | bytes, *, mode: int = 0o666
) -> None:
    """Write text (as UTF-8) or bytes to ``path``, whole or not at all.

    Args:
        path: The file to write; its folder is made if needed.
        content: What it will hold.
        mode: Who may read and write it, before the user's umask.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    encoded = content.encode() if isinstance(content, str) else content
    with atomic_file(path, mode=mode) as temporary:
        temporary.write_bytes(encoded)


@contextlib.contextmanager
def _raising_output_error(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "check its folder's permissions and the free space"
        if is_in_use(error):
            advice += ", and close what has it open"
        raise OutputError(
            f"cannot write this {kind}; {advice}",
            source=path,
            detail=error.strerror or str(error),
        ) from error


def _replace_folder(path: Path, temporary: Path) -> None:
    if not path.exists():
        rename(temporary, path)
        return
    # A folder that is not empty cannot be replaced in one step: the former one steps aside.
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=PART))
    former = aside / path.name
    try:
        rename(path, former)
        rename(temporary, path)
    except OSError:
        if former.exists():
            rename(former, path)
        aside.rmdir()
        raise
    # What a reader still holds open stays on Windows.
    shutil.rmtree(aside, ignore_errors=IS_WINDOWS)


def _apply_umask(path: Path, mode: int) -> None:
    # mkstemp and mkdtemp make private ones; results follow the user's umask like any other file.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or folder; also of names that are too long for any."""
    try:
        return path.exists()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Tell whether there is such a folder; also of names that are too long for any."""
    try:
        return path.is_dir()
    except OSError:
        return False
