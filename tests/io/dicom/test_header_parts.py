"""What stays in memory is counted in slices, and a study stays together."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import dicom as made

from medseg.io.dicom import header_parts
from medseg.io.dicom.header_parts import HeaderParts
from medseg.io.dicom.headers import Header, read_header


def read(file: Path) -> Header:
    header = read_header(file)
    assert header is not None
    return header


def test_a_file_of_many_frames_counts_for_as_many_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_parts, "MOST_IN_MEMORY", 15)
    file = tmp_path / "dynamic"
    made.dynamic(points=3).save_as(file, enforce_file_format=False)
    header = read(file)
    assert len(header.frames) == 12
    parts = HeaderParts()
    parts.append(header)
    assert parts.are_in_memory
    parts.append(header)
    assert not parts.are_in_memory


def test_all_series_of_a_study_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_parts, "MOST_IN_MEMORY", 1)
    parts = HeaderParts(by_study=True)
    for name in "abcdefgh":
        slices = made.series(
            made.voxels((4, 4, 2)), name=name, StudyInstanceUID="1.2.3"
        )
        made.save(tmp_path / name, slices)
        for file in sorted((tmp_path / name).iterdir()):
            parts.append(read(file))
    (of_study,) = [groups for groups in parts.list_groups() if groups]
    assert [group.number for group in of_study] == list(range(0, 16, 2))
