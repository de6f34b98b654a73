"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from medseg._support.files import atomic_file, write_atomically
from medseg.errors import OutputError


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["Größe\n", b"\x00\xff", "", b""])
def test_text_and_bytes_are_written_as_they_are(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "new" / "folders" / "a.json"
    write_atomically(file, content)
    assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert only(file.parent) == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(
    error: type[BaseException], tmp_path: Path
) -> None:
    file = tmp_path / "a.nii.gz"
    write_atomically(file, "old")

    def fail() -> None:
        with atomic_file(file) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        fail()
    assert file.read_text() == "old"
    assert only(tmp_path) == ["a.nii.gz"]


def test_an_os_error_while_writing_is_told_as_such(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    with pytest.raises(OutputError, match="cannot be written"), atomic_file(file) as temporary:
        raise OSError(28, "No space left on device")
    assert not temporary.exists()
    assert only(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    file = small_disk / "a.bin"
    write_atomically(file, b"old")
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(file, bytes(1 << 20))
    assert file.read_bytes() == b"old"
    assert only(small_disk) == ["a.bin"]


@pytest.mark.parametrize(
    ("name", "ending"), [("a.nii.gz", ".nii.gz"), ("a.png", ".png"), ("a", ""), ("a.b.c.d", ".c.d")]
)
def test_the_temporary_file_lies_beside_and_keeps_the_ending(
    name: str, ending: str, tmp_path: Path
) -> None:
    with atomic_file(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".part-")
        assert temporary.name.endswith(ending)
        assert not (tmp_path / name).exists()
        temporary.write_text("x")
    assert only(tmp_path) == [name]


def test_others_may_read_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_is_a_file_or_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "folder", "x")
    assert only(tmp_path) == ["file", "folder"]
