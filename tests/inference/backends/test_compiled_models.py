"""Compiled networks are kept: whole, bounded, and in nobody's way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medseg.inference.backends import compiled_models
from medseg.inference.backends.compiled_models import (
    find_cache_folder,
    keep_compiled,
    make_key,
    read_compiled,
)

KEY = make_key(["weights", "bf16"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medseg" / "compiled"


def test_what_is_kept_is_read_again_by_its_key_alone(folder: Path) -> None:
    assert read_compiled(KEY) is None
    keep_compiled(KEY, b"compiled")
    assert read_compiled(KEY) == b"compiled"
    assert read_compiled(make_key(["weights", "fp32"])) is None
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0, "only its owner may read it"


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 40])
def test_a_damaged_file_is_not_used_and_is_replaced(
    folder: Path, content: bytes
) -> None:
    keep_compiled(KEY, b"compiled")
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert read_compiled(KEY) is None
    keep_compiled(KEY, b"compiled")
    assert read_compiled(KEY) == b"compiled"


def test_those_that_were_not_used_for_longest_are_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_models, "MOST_BYTES", 100)
    keys = [make_key([str(number)]) for number in range(4)]
    for age, key in enumerate(keys[:2]):
        keep_compiled(key, b"x")
        (file,) = folder.glob(f"{key}*")
        os.utime(file, (age, age))
    assert read_compiled(keys[0]) == b"x", "used just now"
    keep_compiled(keys[2], b"x")
    keep_compiled(keys[3], b"x")
    kept = [key for key in keys if read_compiled(key) is not None]
    assert keys[1] not in kept
    assert keys[0] in kept
    assert len(kept) == 3
    keep_compiled(KEY, b"x" * 101)
    assert read_compiled(KEY) is None, "larger than all may be"


def test_threads_that_keep_the_same_network_do_no_harm() -> None:
    content = bytes(range(256)) * 1000

    def keep_and_read(_: int) -> bool:
        keep_compiled(KEY, content)
        return read_compiled(KEY) == content

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(keep_and_read, range(20)))


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    keep_compiled(KEY, b"compiled")
    assert read_compiled(KEY) is None


def test_a_relative_cache_folder_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_cache_folder() == tmp_path / ".cache" / "medseg" / "compiled"
