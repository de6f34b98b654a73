"""Archives of good and of ill will."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg.downloads.archives import unpack
from medseg.errors import DownloadError

MOST = 10**6


def make_tar(file: Path, names: list[str], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as tape:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tape.addfile(info, io.BytesIO(name.encode()))
    return file


def make_zip(file: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in names:
            zipped.writestr(name, name)
    return file


def list_names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_the_folder_of_all_is_left_out_and_what_systems_leave_behind(
    make: Callable[[Path, list[str]], Path], tmp_path: Path, folder: Path
) -> None:
    names = ["Task/a.json", "./Task/images/b c.nii.gz", "Task/._a.json"]
    names += ["__MACOSX/Task/._a.json", "Task/images/.DS_Store"]
    written = unpack(make(tmp_path / "archive", names), folder, MOST)
    assert list_names(folder) == ["a.json", "images/b c.nii.gz"] == [*written]
    assert (folder / "a.json").read_text() == "Task/a.json"


def test_several_folders_stay_as_they_are(tmp_path: Path, folder: Path) -> None:
    archive = make_tar(tmp_path / "a", ["s1/ct", "s2/ct", "meta"], mode="w:gz")
    unpack(archive, folder, MOST)
    assert list_names(folder) == ["meta", "s1/ct", "s2/ct"]


@pytest.mark.parametrize("make", [make_tar, make_zip])
@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "a/../../out",
        "/etc/out",
        "C:/out",
        "a\\..\\out",
        "con.nii",
        "a/NUL",
        "end.",
        "a\x1b[2J",
        "/".join("d" * 40),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(
    make: Callable[[Path, list[str]], Path],
    name: str,
    tmp_path: Path,
    folder: Path,
) -> None:
    archive = make(tmp_path / "archive", ["good", name])
    with pytest.raises(DownloadError, match="not unpacked") as caught:
        unpack(archive, folder, MOST)
    assert name not in caught.value.message
    assert list_names(tmp_path) == ["archive"]


@pytest.mark.parametrize("names", [["a", "A"], ["a", "a"], ["a", "A/b"]])
def test_names_that_are_one_on_some_system_are_refused(
    names: list[str], tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(DownloadError, match="of one name"):
        unpack(make_tar(tmp_path / "archive", names), folder, MOST)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE],
)
def test_only_plain_files_leave_a_tar(
    kind: bytes, tmp_path: Path, folder: Path
) -> None:
    with tarfile.open(tmp_path / "archive", "w") as tape:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        tape.addfile(info)
    with pytest.raises(DownloadError, match="a link, a device"):
        unpack(tmp_path / "archive", folder, MOST)
    assert list_names(folder) == []


def test_only_plain_files_leave_a_zip(tmp_path: Path, folder: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DownloadError, match="a link"):
        unpack(tmp_path / "archive", folder, MOST)


def test_a_bomb_is_refused(tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("zeros", bytes(10 * MOST))
    with pytest.raises(DownloadError, match="more than the data set has"):
        unpack(tmp_path / "zip", folder, MOST)
    # And where the archive lies about the size of what it holds.
    lying = (tmp_path / "zip").read_bytes()
    size = (10 * MOST).to_bytes(4, "little")
    (tmp_path / "lying").write_bytes(
        lying.replace(size, (1000).to_bytes(4, "little"))
    )
    with pytest.raises(DownloadError):
        unpack(tmp_path / "lying", folder, MOST)
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MOST


@pytest.mark.parametrize("share", [0, 0.1, 0.5])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_damaged_archive_is_said_to_be_one(
    share: float, mode: str, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "x").write_bytes(random.Random(0).randbytes(50_000))
    with tarfile.open(tmp_path / "a", mode) as tape:  # type: ignore[call-overload]
        tape.add(tmp_path / "x", "x")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DownloadError):
        unpack(tmp_path / "cut", folder, MOST)


@pytest.mark.parametrize("size", [-512, -1024])
def test_a_size_below_zero_ends_the_reading(
    size: int, tmp_path: Path, folder: Path
) -> None:
    """Some versions of Python read such a tape for ever."""
    info = tarfile.TarInfo("Task/a")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    first = tarfile.TarInfo("Task/b").tobuf(tarfile.GNU_FORMAT)
    archive = tmp_path / "archive"
    archive.write_bytes(first + block + bytes(1024))
    with pytest.raises(DownloadError):
        unpack(archive, folder, MOST)


def test_a_name_that_is_no_text_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w") as tape:
        tape.addfile(tarfile.TarInfo("Task/\udcff"))
    with pytest.raises(DownloadError, match="leads elsewhere"):
        unpack(archive, folder, MOST)
