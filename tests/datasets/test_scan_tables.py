"""Tables with a column for each channel, or a folder for each case."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from support import dicom as made
from support.datasets import touch

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import ScanList, find_scans
from medseg.errors import DatasetError
from medseg.inference.shards import Shard

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


SHARDS = [Shard(3, number) for number in (1, 2, 3)]


def find_parts(table: Path, channels: int = 1) -> list[ScanList]:
    """Return what each of three shards finds and keeps."""
    parts = []
    for shard in SHARDS:
        found = find_scans(table, channels, is_wanted=shard.holds)
        parts.append(found.choose(shard.holds))
    return parts


def list_all(parts: Iterable[ScanList]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for part in parts:
        for scan in part.scans:
            rows.append((scan.name, *(file.name for (file,) in scan.parts)))
        rows += [(each.name, each.reason) for each in part.left_out]
    return sorted(rows)


@pytest.mark.parametrize(
    "lines",
    [
        ["scan", *(f"s{number}.nii.gz" for number in range(20)), "gone.mha"],
        ["scan,name", *(f"s{number}.nii.gz,n {number}" for number in range(9))],
        # Names that clash, and a file that is listed twice.
        ["scan", "s1.nii.gz", "S1.nii.gz", "s2.nii.gz", "sub/s2.nii.gz"],
        ["scan,name", "s1.nii.gz,a", "s2.nii.gz,A", "s3.nii.gz,b"],
        ["scan,name", "s1.nii.gz,a", "s1.nii.gz,b", "s3.nii.gz,c"],
        # Names beyond ASCII had others in release 0.1.0.
        ["scan,name", "s1.nii.gz,Größe", "s2.nii.gz,Gr_e", "s3.nii.gz,größe"],
        ["scan,name", "s1.nii.gz,", ",b", ",", "s9999.nii.gz,"],
    ],
)
def test_shards_share_the_rows_of_a_table(
    tmp_path: Path, lines: list[str]
) -> None:
    touch(*(tmp_path / f"s{number}.nii.gz" for number in range(20)))
    touch(tmp_path / "S1.nii.gz", tmp_path / "sub/s2.nii.gz")
    table = tmp_path / "list.csv"
    table.write_text("\n".join(lines))
    whole = find_scans(table, 1)
    assert list_all(find_parts(table)) == list_all([whole])


def test_a_shard_does_not_look_at_the_files_of_others(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    names = [f"s{number}" for number in range(30)]
    table.write_text("scan\n" + "\n".join(f"{name}.nii.gz" for name in names))
    own = [name for name in names if SHARDS[0].holds(name)]
    touch(*(tmp_path / f"{name}.nii.gz" for name in own))
    found = find_scans(table, 1, is_wanted=SHARDS[0].holds)
    assert {scan.name for scan in found.scans} == set(own)
    # A missing file is called after its line, which may be of this shard.
    reported = {each.name for each in found.left_out}
    assert len(reported) < len(names) - len(own)
    parts = find_parts(table)
    assert sum(len(part.left_out) for part in parts) == len(names) - len(own)


def test_a_shard_may_have_nothing_to_do(tmp_path: Path) -> None:
    touch(tmp_path / "s1.nii.gz")
    table = tmp_path / "list.csv"
    table.write_text("scan\ns1.nii.gz")
    parts = find_parts(table)
    assert sorted(len(part.scans) for part in parts) == [0, 0, 1]


def test_dicom_with_the_name_of_an_image_is_named_by_the_table(
    tmp_path: Path,
) -> None:
    pixels = made.voxels((8, 8, 4))
    made.save(tmp_path / "ct.mha", made.series(pixels))
    table = tmp_path / "list.csv"
    table.write_text("scan\nct.mha")
    parts = find_parts(table)
    assert not any(part.scans for part in parts)
    (left_out,) = [each for part in parts for each in part.left_out]
    assert "give it a name in the column 'name'" in left_out.reason
    table.write_text("scan,name\nct.mha,mine")
    names = [scan.name for part in find_parts(table) for scan in part.scans]
    assert names == ["mine"]


def test_a_cell_that_no_system_takes_for_a_path_costs_its_line_alone(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a.nii.gz")
    table = tmp_path / "list.csv"
    table.write_bytes(b"scan\na\0.nii.gz\na.nii.gz\n\0\n")
    found = find_scans(table, 1)
    assert [scan.name for scan in found.scans] == ["a"]
    assert [entry.where for entry in found.left_out] == ["line 2", "line 4"]


def test_a_file_that_is_listed_twice_is_one_scan_however_it_is_written(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a.nii.gz", tmp_path / "p/b.nii.gz")
    table = tmp_path / "list.csv"
    rows = ("a.nii.gz", "p//b.nii.gz", "./a.nii.gz", "p/./b.nii.gz", "", ".")
    table.write_text("\n".join(("scan,name", *(f"{row},x" for row in rows))))
    for rule in (None, lambda name: True):
        found = find_scans(table, 1, is_wanted=rule)
        files = [scan.files[0].name for scan in found.scans]
        assert files == ["a.nii.gz", "b.nii.gz"]
        reasons = [entry.reason for entry in found.left_out]
        assert sum("is listed before" in reason for reason in reasons) == 2
