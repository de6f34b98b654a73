"""What a killed process left is removed, and nothing that is in use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from medseg._support.work_folder import work_folder
from medseg.errors import OutputError


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "medseg-objects-link").symlink_to("elsewhere")
    left = tmp_path / "medseg-objects-left"
    left.mkdir()
    (left / "scan.nii.gz").touch()
    young = tmp_path / "medseg-objects-young"
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


def test_a_folder_for_temporary_files_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(OutputError, match="TMPDIR"), work_folder():
        pass
