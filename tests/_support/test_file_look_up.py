"""One look at a folder tells of all its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg._support.file_look_up import FileLookUp


def test_files_are_found_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("a.nii")
    (tmp_path / "lost").symlink_to("nowhere")
    files = FileLookUp()
    there = {path.name for path in tmp_path.iterdir() if files.finds(path)}
    assert there == {"a.nii", "link"}
    assert not files.finds(tmp_path / "b.nii")
    assert not files.finds(tmp_path / "missing/c.nii")


def test_a_folder_is_looked_at_once_for_all_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.nii" for number in range(9)]
    for path in paths:
        path.write_bytes(b"")
    looks = []
    monkeypatch.setattr(
        "medseg._support.file_look_up.os.scandir",
        lambda folder, scandir=os.scandir: (
            looks.append(folder) or scandir(folder)
        ),
    )
    monkeypatch.setattr(
        Path, "is_file", lambda _: pytest.fail("looked at a file")
    )
    files = FileLookUp()
    assert all(map(files.finds, paths))
    assert looks == [tmp_path]
