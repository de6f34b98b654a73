"""Tables with a column for each channel, or a folder for each case."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import touch

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import ScanList, find_scans
from medseg.errors import DatasetError

SPECS = [ChannelSpec(name="T1"), ChannelSpec(name="FLAIR")]


def find(root: Path, *lines: str) -> ScanList:
    table = root / "list.csv"
    table.write_text("\n".join(lines))
    return find_scans(table, 2, channel_specs=SPECS)


def test_columns_may_be_called_after_the_channels(tmp_path: Path) -> None:
    touch(*(tmp_path / f"p{n}_{role}.nii.gz" for n in "12" for role in "ab"))
    touch(tmp_path / "q_T1w.nii.gz")
    found = find(
        tmp_path,
        "flair,t1w,name",
        "p1_a.nii.gz,p1_b.nii.gz,first",
        "p2_a.nii.gz,q_T1w.nii.gz,",
        "p2_a.nii.gz,,third",
    )
    named = {scan.name: scan.parts[0][0].name for scan in found.scans}
    assert named == {"first": "p1_b.nii.gz", "q": "q_T1w.nii.gz"}
    (left_out,) = found.left_out
    assert left_out.name == "third"
    assert "no image of the channel T1 (found: FLAIR)" in left_out.reason


def test_a_line_may_name_the_folder_of_a_case(tmp_path: Path) -> None:
    for role in ("T1", "FLAIR", "T2"):
        touch(tmp_path / f"P1/scan_{role}.nii.gz")
    touch(tmp_path / "P2/T1.nii.gz")
    touch(tmp_path / "P2/x/y_FLAIR.nii.gz", tmp_path / "P2/x/y_T1.nii.gz")
    found = find(tmp_path, "scan,name", "P1,one", "P2,two")
    assert [scan.name for scan in found.scans] == ["one"]
    (left_out,) = found.left_out
    assert "no image of the channel FLAIR (found: T1)" in left_out.reason


def test_a_table_without_columns_for_the_channels_says_what_they_are(
    tmp_path: Path,
) -> None:
    with pytest.raises(DatasetError, match="the columns T1, FLAIR"):
        find(tmp_path, "case,T1", "a,b")
