"""Reading at an offset, syncing, renaming, linking and long paths, as on each system."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg._support.platform import files


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody really waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def refuse(code: int, times: float) -> Callable[[Path, Path], Path]:
    """Make a ``Path.replace`` that Windows refuses some times."""
    left = [times]
    really = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if left[0] > 0:
            left[0] -= 1
            error = PermissionError(errno.EACCES, "Access is denied")
            error.winerror = code  # type: ignore[attr-defined]
            raise error
        return really(source, target)

    return replace


@pytest.mark.parametrize("has_pread", [True, False])
def test_reading_at_an_offset_needs_no_pread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_pread: bool
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"0123\r\n\x1a789")
    if not has_pread:
        monkeypatch.delattr(os, "pread", raising=False)
    handle = files.open_binary(file, os.O_RDONLY)
    try:
        read = [files.read_at(handle, 4, start) for start in (6, 0, 8, 20)]
    finally:
        os.close(handle)
    assert read == [b"\x1a789", b"0123", b"89", b""]


def test_files_are_opened_as_binary_where_that_is_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "O_BINARY", 1 << 28, raising=False)
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode: seen.append(flags)
    )
    files.open_binary(tmp_path, os.O_RDWR)
    assert seen == [os.O_RDWR | 1 << 28]


@pytest.mark.parametrize("code", [5, 32, 33])
def test_windows_is_asked_again_while_a_reader_holds_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
    code: int,
) -> None:
    for name in ("new", "old"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setattr(Path, "replace", refuse(code, 3))
    files.rename(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new"
    assert len(pauses) == 3


def test_renaming_gives_up_after_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(Path, "replace", refuse(32, float("inf")))
    with pytest.raises(PermissionError):
        files.rename(tmp_path / "new", tmp_path / "old")
    assert 1 < sum(pauses) < 3


def test_missing_permission_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(Path, "replace", refuse(0, 1))
    with pytest.raises(PermissionError):
        files.rename(tmp_path / "new", tmp_path / "old")
    assert not pauses


def test_a_network_drive_that_syncs_no_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(code: int) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    files.sync(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.sync(tmp_path)


def test_on_windows_folders_are_not_synced_and_files_through_a_writing_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    really = os.open

    def note(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(flags)
        return really(path, flags, mode)

    (tmp_path / "a").touch()
    monkeypatch.setattr(files, "IS_WINDOWS", True)
    monkeypatch.setattr(os, "open", note)
    files.sync(tmp_path)
    files.sync(tmp_path / "a")
    assert [flags & os.O_RDWR for flags in opened] == [os.O_RDWR]


@pytest.mark.parametrize("knows_links", [True, False])
def test_a_file_is_kept_under_a_second_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows_links: bool
) -> None:
    def refuse_link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "exFAT has no links")

    (tmp_path / "a").write_bytes(b"x")
    if not knows_links:
        monkeypatch.setattr(os, "link", refuse_link)
    files.link_or_copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").unlink()
    assert (tmp_path / "b").read_bytes() == b"x"


LONG = "x" * 250


@pytest.mark.parametrize(
    ("path", "extended"),
    [
        ("C:\\a.nii", "C:\\a.nii"),
        (f"C:\\{LONG}", f"\\\\?\\C:\\{LONG}"),
        (f"\\\\server\\share\\{LONG}", f"\\\\?\\UNC\\server\\share\\{LONG}"),
        (f"\\\\?\\C:\\{LONG}", f"\\\\?\\C:\\{LONG}"),
    ],
)
def test_long_paths_of_windows_get_a_prefix(path: str, extended: str) -> None:
    assert files.extend_windows_path(path) == extended


def test_elsewhere_a_path_stays_as_it_is() -> None:
    path = Path("a") / LONG
    expected = path if os.name != "nt" else files.extend_path(path)
    assert files.extend_path(path) == expected


def test_folders_on_a_drive_without_file_numbers_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    really = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        status = really(path, **options)
        return os.stat_result((status.st_mode, 0, 0, *status[3:]))

    monkeypatch.setattr(Path, "stat", stat)
    one, other, again = (
        files.identify_folder(tmp_path / name) for name in ("a", "b", "a/../a")
    )
    assert one != other
    assert one == again


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_modes_say_who_may_read_but_on_windows_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "users"
    file.touch()
    said = []
    for mode in (0o600, 0o640, 0o604):
        file.chmod(mode)
        said.append(files.may_others_read(file))
    assert said == [False, True, True]
    monkeypatch.setattr(files, "IS_WINDOWS", True)
    assert not files.may_others_read(file)
