"""One process at a time works in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import filelock
import pytest

from medseg._support.platform.locks import (
    LOCK,
    LockedError,
    is_locked,
    lock_folder,
    remove_locked,
)


def test_a_folder_is_locked_until_it_is_freed(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        with pytest.raises(LockedError):
            lock_folder(tmp_path)
        (tmp_path / "other").mkdir()
        with lock_folder(tmp_path / "other"):
            pass
    with lock_folder(tmp_path):
        pass


def test_a_lock_is_seen_while_somebody_holds_it(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with lock_folder(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


@pytest.mark.skipif(
    sys.platform == "win32", reason="there, no lock can be shared"
)
def test_who_asks_for_a_lock_is_not_taken_for_who_holds_it(
    tmp_path: Path,
) -> None:
    import fcntl

    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_locked(tmp_path)


def test_a_folder_is_removed_before_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    remove = shutil.rmtree

    def try_to_lock_and_remove(path: Path, **how: Any) -> None:
        with pytest.raises(LockedError):
            lock_folder(path)
        # Whoever comes now begins anew.
        assert not folder.exists()
        remove(path, **how)

    lock = lock_folder(folder)
    monkeypatch.setattr(shutil, "rmtree", try_to_lock_and_remove)
    remove_locked(folder, lock)
    assert not list(tmp_path.iterdir())
    folder.mkdir()
    lock_folder(folder).close()


def test_a_lock_in_a_folder_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    acquire = filelock.FileLock.acquire

    def remove_after(self: Any, *given: Any, **named: Any) -> Any:
        acquired = acquire(self, *given, **named)
        shutil.rmtree(folder)
        return acquired

    monkeypatch.setattr(filelock.FileLock, "acquire", remove_after)
    with pytest.raises(LockedError):
        lock_folder(folder)


def test_a_folder_that_cannot_be_written_is_not_said_to_be_locked(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="directory"):
        lock_folder(tmp_path / "file")


@pytest.mark.skipif(
    sys.platform == "win32", reason="there, all disks have locks"
)
def test_a_disk_without_locks_is_refused_as_a_killed_process_would_block_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
                lock_folder(tmp_path)
