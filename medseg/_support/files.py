"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medseg.errors import OutputError

PART = ".part-"
"""How the names of files and folders begin that are not whole yet."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success make it ``path`` in one step.

    The temporary name keeps the suffixes of ``path``, because writers choose formats by them.
    On any error the temporary file is removed and ``path`` is as it was before.

    Args:
        path: The file to write; its folder is made if needed.

    Yields:
        The path to write to.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=PART, suffix="".join(path.suffixes[-2:])
        )
        os.close(handle)
    except OSError as error:
        raise _output_error(error, path) from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        _allow_others_to_read(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _output_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success make it ``path``.

    A folder that is there already is replaced; between the two steps that this takes there is
    none. On any error the temporary folder is removed and ``path`` is as it was before.

    Args:
        path: The folder to write.

    Yields:
        The folder to write into, empty.

    Raises:
        OutputError: If it cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=PART))
    except OSError as error:
        raise _output_error(error, path) from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _allow_others_to_read(temporary, 0o777)
        _take_place_of(path, temporary)
        _sync(path.parent)
    except OSError as error:
        raise _output_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place_of(path: Path, temporary: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    former = Path(tempfile.mkdtemp(dir=path.parent, prefix=PART))
    path.replace(former)
    temporary.replace(path)
    shutil.rmtree(former)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes to ``path``, whole or not at all.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _allow_others_to_read(path: Path, mode: int = 0o666) -> None:
    # mkstemp and mkdtemp make private ones; results follow the user's umask like any other file.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def _output_error(error: OSError, path: Path) -> OutputError:
    reason = error.strerror or type(error).__name__
    return OutputError(f"cannot be written: {reason}", source=path)
