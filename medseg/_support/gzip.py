"""Gzip streams, through isal where it is installed: about twice as fast to read, ten to write."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, cast

from medseg._support.files import refuse_special

_MAGIC = b"\x1f\x8b"
EXPANSION = 1032
"""No deflate stream inflates to more than this many times its size (RFC 1951)."""
_LEVEL = 1


BROKEN_STREAM: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
"""What reading a truncated or damaged stream raises, from either library."""
_gzip: ModuleType = gzip
try:
    from isal import igzip, isal_zlib
except ImportError:
    pass
else:
    _gzip = igzip
    BROKEN_STREAM += (cast(type[Exception], isal_zlib.error),)


@contextlib.contextmanager
def open_maybe_gzipped(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; inflate it if its first bytes say gzip, whatever its name."""
    opener = _gzip.open if is_gzipped(path) else Path.open
    with opener(path, "rb") as stream:
        yield stream


def is_gzipped(path: Path) -> bool:
    """Tell by its first bytes whether a file is gzipped.

    Raises:
        ScanError: If it is a device, a pipe or a socket.
    """
    refuse_special(path)
    with path.open("rb") as file:
        return file.read(2) == _MAGIC


def max_inflated_bytes(path: Path) -> int:
    """Return how many bytes the file could possibly hold, without inflating it."""
    size = path.stat().st_size
    return size * EXPANSION if is_gzipped(path) else size


@contextlib.contextmanager
def open_gzip_writer(file: BinaryIO) -> Iterator[BinaryIO]:
    """Gzip what is written on to ``file``: no name and no time inside, so equal bytes again."""
    writer_class = getattr(_gzip, "IGzipFile", gzip.GzipFile)
    writer = writer_class(
        filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0
    )
    with writer as stream:
        yield cast(BinaryIO, stream)
