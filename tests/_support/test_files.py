"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from medseg._support.files import atomic_file, atomic_folder, write_atomically
from medseg.errors import OutputError


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order; both are really done."""
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        done.append(
            f"sync {'part' if path.name.startswith('.part-') else path.name}"
        )
        sync(handle)

    def replace(source: Path, target: Path) -> None:
        done.append(f"rename to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    return done


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(),
    reason="asks Linux which file a handle is of",
)


@needs_proc
def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_end(
    tmp_path: Path, steps: list[str]
) -> None:
    folder = tmp_path / "results"
    write_atomically(folder / "a.json", "x")
    assert steps == ["sync part", "rename to a.json", "sync results"]


@needs_proc
def test_each_file_of_a_folder_is_on_the_disk_before_the_folders_name(
    tmp_path: Path, steps: list[str]
) -> None:
    with atomic_folder(tmp_path / "bundle") as temporary:
        (temporary / "configs").mkdir()
        (temporary / "configs" / "a.json").write_text("x")
    *synced, rename, last = steps
    assert set(synced) == {"sync configs", "sync a.json"}
    assert (rename, last) == ("rename to bundle", f"sync {tmp_path.name}")


def test_the_old_file_is_there_until_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with atomic_file(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
        opened = file.open()
    assert file.read_text() == "new"
    assert opened.read() == "old"  # replaced, not written over
    opened.close()


def test_a_folder_replaces_the_former_one_with_all_it_holds(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bundle"
    for content in ("a", "b"):
        with atomic_folder(folder) as temporary:
            (temporary / content).write_text(content)
            assert not (folder / content).exists()
        assert only(folder) == [content]
    assert only(tmp_path) == ["bundle"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~_umask()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_while_writing_a_folder_leaves_the_old_one_and_nothing_else(
    error: type[BaseException], tmp_path: Path
) -> None:
    with atomic_folder(tmp_path / "bundle") as temporary:
        (temporary / "old").touch()

    def fail() -> None:
        with atomic_folder(tmp_path / "bundle") as temporary:
            (temporary / "new").touch()
            raise error

    with pytest.raises(OutputError if error is OSError else error):
        fail()
    assert only(tmp_path) == ["bundle"]
    assert only(tmp_path / "bundle") == ["old"]


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["Größe\n", b"\x00\xff", "", b""])
def test_text_and_bytes_are_written_as_they_are(
    content: str | bytes, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "folders" / "a.json"
    write_atomically(file, content)
    assert file.read_bytes() == (
        content.encode() if isinstance(content, str) else content
    )
    assert only(file.parent) == ["a.json"]


@pytest.mark.parametrize(
    "error", [RuntimeError, KeyboardInterrupt, MemoryError]
)
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
    with (
        pytest.raises(OutputError, match="cannot write"),
        atomic_file(file) as temporary,
    ):
        raise OSError(28, "No space left on device")
    assert not temporary.exists()
    assert only(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    small_disk: Path,
) -> None:
    file = small_disk / "a.bin"
    write_atomically(file, b"old")
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(file, bytes(1 << 20))
    assert file.read_bytes() == b"old"
    assert only(small_disk) == ["a.bin"]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.png", ".png"),
        ("a", ""),
        ("a.b.c.d", ".c.d"),
    ],
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


def test_a_folder_that_is_a_file_or_in_its_place_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "folder", "x")
    assert only(tmp_path) == ["file", "folder"]


def test_an_error_names_the_file_and_the_systems_reason_apart(
    tmp_path: Path,
) -> None:
    (tmp_path / "mueller").write_text("x")
    with pytest.raises(OutputError) as caught:
        write_atomically(tmp_path / "mueller" / "a.txt", "x")
    error = caught.value
    assert error.source == str(tmp_path / "mueller" / "a.txt")
    assert "mueller" not in error.message
    assert error.detail in ("Not a directory", "File exists")


def test_a_folder_that_cannot_be_replaced_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a.txt").write_text("old", encoding="utf-8")
    really = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if target == folder and (source / "new.txt").exists():
            raise PermissionError(13, "Access is denied")
        return really(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError), atomic_folder(folder) as temporary:
        (temporary / "new.txt").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["bundle", "a.txt"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "large"
    disk.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(disk)
    with atomic_folder(link) as temporary:
        (temporary / "a.txt").touch()
    assert link.is_symlink()
    assert (disk / "a.txt").is_file()
    assert only(tmp_path / "disk") == ["large"]


def test_the_folder_that_a_process_runs_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path):
        with (
            pytest.raises(OutputError, match="name a new folder in it"),
            atomic_folder(path),
        ):
            pass
    assert only(tmp_path) == []
