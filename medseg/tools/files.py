"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medseg.words.errors import OutputError

PART = ".part-"
"""How the names of files and folders begin that are not whole yet."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
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
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        _allow_others_to_read(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes to ``path``, whole or not at all.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _allow_others_to_read(path: Path) -> None:
    # mkstemp makes files private; results follow the user's umask like any other file.
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
