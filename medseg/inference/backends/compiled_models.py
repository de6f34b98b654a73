"""Compiled networks, kept on disk: the next start need not build, convert and compile them.

They lie in the user's cache folder, each under a hash of all that it follows from. What cannot be
read, was damaged or is of another release is made again; a folder that cannot be written to only
costs time. Each file appears whole or not at all, so that processes do not get in each other's way.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.hashes import hash_texts
from medseg.errors import OutputError, recordable_text

MOST_BYTES = 2 << 30
"""What all files may take; those that were not used for longest go first."""

_FORMAT = "medseg compiled network 1"
_ENDING = ".compiled"
_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)


def find_cache_folder() -> Path | None:
    """Return the folder of compiled networks, there or not; ``None`` if the user has no home."""
    stated = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if stated and Path(stated).is_absolute():
        return Path(stated) / "medseg" / "compiled"
    try:
        return Path.home() / ".cache" / "medseg" / "compiled"
    except RuntimeError:
        return None


def make_key(texts: Iterable[str]) -> str:
    """Return a hash of what a compiled network follows from."""
    return hash_texts([_FORMAT, *texts])


def read_compiled(key: str) -> bytes | None:
    """Return a compiled network, if it is there and whole."""
    folder = find_cache_folder()
    if folder is None:
        return None
    file = folder / f"{key}{_ENDING}"
    try:
        content = file.read_bytes()
    except OSError:
        return None
    compiled = content[_DIGEST_BYTES:]
    if hashlib.sha256(compiled).digest() != content[:_DIGEST_BYTES]:
        _log.info("a compiled network was damaged; it is made again")
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # used just now
    return compiled


def keep_compiled(key: str, compiled: bytes) -> None:
    """Keep a compiled network, and drop those that were not used for longest."""
    folder = find_cache_folder()
    if folder is None or len(compiled) > MOST_BYTES:
        return
    content = hashlib.sha256(compiled).digest() + compiled
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(folder / f"{key}{_ENDING}", content, mode=0o600)
        _drop_oldest(folder)
    except (OSError, OutputError) as error:
        _log.info(
            "compiled networks cannot be kept: %s", recordable_text(error)
        )


def _drop_oldest(folder: Path) -> None:
    files = []
    for file in folder.glob(f"*{_ENDING}"):
        with contextlib.suppress(OSError):  # another process dropped it
            status = file.stat()
            files.append((status.st_mtime, status.st_size, file))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > MOST_BYTES:
            file.unlink(missing_ok=True)
