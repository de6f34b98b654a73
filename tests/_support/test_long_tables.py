"""Long lists are read row by row, and say the same as short ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg._support import long_tables
from medseg._support.long_tables import LongTable, may_hold, open_table
from medseg._support.tables import find_image_columns, read_table
from medseg.errors import DatasetError, MissingExtraError


def write(folder: Path, content: bytes, name: str = "scans.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def open_scans(path: Path) -> LongTable:
    return LongTable(path, ("scan",), "line")


@pytest.mark.parametrize(
    "text",
    [
        "scan,name\na.nii,1\n\nb.nii\n",
        "\ufeffScan;Name\r\n a.nii ;\r\n",
        '\n \nscan\tname\n"a,\n1"\tx\n',
        "scan\rold.nii\rmac.nii\r",
        "scan\n",
    ],
)
def test_rows_are_those_of_a_table_that_is_read_at_once(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, text.encode())
    table, short = open_table(path), read_table(path)
    assert table.columns == short.columns
    assert tuple(table.read_rows(table.columns)) == short.rows
    assert tuple(table.read_rows(table.columns)) == short.rows  # once more


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"scan,Scan\n", "same name"),
        (b"scan\na,b\n", "line 2 has 2 cells"),
        (b'scan\n"a\n', "line 2 is not valid CSV"),
        (
            b"scan\n" + 5000 * b"a.nii\n" + b"\xff\n",
            r"UTF-8 text \(byte 30005\)",
        ),
        (b"scan\n" + 2_000_000 * b"a", "a line of 1000000 characters"),
    ],
)
def test_what_is_no_list_is_refused(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DatasetError, match=why) as caught:
        list(open_table(path).read_rows(["scan"]))
    assert caught.value.source == str(path)


def test_a_list_may_be_longer_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medseg._support.tables.MAX_LIST_BYTES", 10)
    path = write(tmp_path, b"scan\n" + 100 * b"a.nii\n")
    assert len(list(open_table(path).read_rows(["scan"]))) == 100


def test_parquet_has_rows_as_a_csv_has(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    columns = {"Scan": ["a.nii", " b.nii", None], "name": [7, None, None]}
    path = tmp_path / "scans.PARQUET"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    table = open_table(path)
    assert table.columns == ("scan", "name")
    assert list(table.read_rows(table.columns)) == [
        (1, {"scan": "a.nii", "name": "7"}),
        (2, {"scan": "b.nii", "name": ""}),
    ]
    assert table.noun == "row"


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path, b"PAR1 and no more PAR1", "scans.parquet")
    with pytest.raises(DatasetError, match="is no Parquet file"):
        open_table(path)


def test_without_pyarrow_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = write(tmp_path, b"PAR1", "scans.parquet")
    with pytest.raises(MissingExtraError, match="pip install pyarrow"):
        long_tables.open_table(path)


def test_what_a_table_may_hold_is_known_without_reading_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_tables, "_BLOCK", 4)
    for start in range(9):  # across each border of what is read at a time
        text = start * b"a" + b"s3://b" + 9 * b"a"
        assert may_hold(open_scans(write(tmp_path, text)), ["scan"], "://")
    local = write(tmp_path, b"scan\nC:/a.nii\n//host/b\n")
    assert not may_hold(open_scans(local), ["scan"], "://")
    assert not may_hold(open_scans(tmp_path), ["scan"], "://")
    pyarrow = pytest.importorskip("pyarrow")
    table = tmp_path / "list.parquet"
    for cells, holds in (("a", False), ("s3://a", True), ([b"x"], True)):
        columns = {"number": [1, 2], "scan": [None, cells]}
        pyarrow.parquet.write_table(pyarrow.table(columns), table)
        assert may_hold(open_table(table), ["scan"], "://") is holds
        assert not may_hold(open_table(table), ["number"], "://")
    damaged = open_table(table)
    table.write_bytes(b"PAR1")
    assert not may_hold(damaged, ["scan"], "://")


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    whole_images = pyarrow.array([b"\xff" * 9, None])
    paths = pyarrow.array([b"\xe9.nii", None])
    table = pyarrow.table(
        {"png": whole_images, "Scan": paths, "name": [float("nan"), 2.0]}
    )
    path = tmp_path / "scans.parquet"
    pyarrow.parquet.write_table(table, path)
    # A row without a file is told, where other columns say something.
    assert list(open_table(path).read_rows(["scan"])) == [
        (1, {"scan": "\udce9.nii"}),
        (2, {"scan": ""}),
    ]
    assert [row for _, row in open_table(path).read_rows(["name"])] == [
        {"name": ""},
        {"name": "2.0"},
    ]


def test_a_heading_of_very_many_columns_is_read_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, b"scan" + 900_000 * b"," + b"\n")
    with pytest.raises(DatasetError, match="same name"):
        open_table(path)
    names = ",".join(map(str, range(100_000)))
    path = write(tmp_path, names.encode() + b"\n")
    with pytest.raises(DatasetError, match="one column scan") as caught:
        find_image_columns(path, open_table(path).columns, ["scan"])
    assert len(caught.value.detail or "") < 200
