"""What a killed process left is removed, and nothing that is in use."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import pytest

from medseg._support.work_folder import make_prefix, work_folder
from medseg.errors import OutputError


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(platform, "node", lambda: "here")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"{make_prefix()}link").symlink_to("elsewhere")
    left = tmp_path / f"{make_prefix()}left"
    left.mkdir()
    (left / "scan.nii.gz").touch()
    young = tmp_path / f"{make_prefix()}young"
    young.mkdir()
    with work_folder() as busy:
        (busy / "scan.nii.gz").touch()
        for folder in (left, busy):
            os.utime(folder, (0, 0))
        with work_folder() as other:
            there = {file.name for file in tmp_path.iterdir()}
            assert left.name not in there
            assert {busy.name, other.name, young.name, "elsewhere"} <= there
        assert (busy / "scan.nii.gz").is_file()
    assert not busy.exists()


def test_what_another_machine_works_with_on_a_shared_disk_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(platform, "node", lambda: "there")
    # It is locked, which drives may not tell other machines.
    busy = tmp_path / f"{make_prefix()}busy"
    busy.mkdir()
    os.utime(busy, (0, 0))
    monkeypatch.setattr(platform, "node", lambda: "here")
    with work_folder():
        pass
    assert busy.is_dir()


def test_a_folder_for_temporary_files_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(OutputError, match="TMPDIR"), work_folder():
        pass
