"""The private table of sources holds what cells of a spreadsheet must not compute."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medseg._support import long_sort
from medseg.datasets.cases import Scan
from medseg.errors import OutputError
from medseg.inference.sources_table import COLUMNS, SourcesTable


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_no_cell_is_a_formula_and_rows_survive_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sources.csv"
    path.write_text(",".join(COLUMNS) + '\n=1+1,@a,0, =x ,"a\nb",-2\n')
    for name in ("one", "two"):
        table = SourcesTable(path, tmp_path / "out")
        table.check()
        table.enter(
            [Scan(name, ((tmp_path / "a.nii",), (tmp_path / "b.nii",)))]
        )
    *others, kept = [tuple(row.values()) for row in rows(path)]
    assert kept == ("'=1+1", "'@a", "0", " =x ", "a\nb", "'-2")
    assert [row[1:3] for row in others] == [
        *(("one", "0"), ("one", "1"), ("two", "0"), ("two", "1"))
    ]


def test_fewer_channels_leave_no_row_of_the_former_ones(tmp_path: Path) -> None:
    table = SourcesTable(tmp_path / "s.csv", tmp_path / "out")
    both = ((tmp_path / "a.nii",), (tmp_path / "b.nii",))
    table.enter([Scan("x", both)])
    table.enter([Scan("x", both[:1])])
    assert len(rows(table.path)) == 1


def test_calls_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    def enter(number: int) -> None:
        table = SourcesTable(tmp_path / "s.csv", tmp_path / f"out{number % 3}")
        table.enter([Scan(f"x{number}", ((tmp_path / "a.nii",),))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(12)))
    assert len(rows(tmp_path / "s.csv")) == 12


def test_a_name_with_the_end_of_a_line_does_not_damage_the_table(
    tmp_path: Path,
) -> None:
    table = SourcesTable(tmp_path / "s.csv", tmp_path / "out")
    for name in ("x", "y"):
        table.enter([Scan(name, ((tmp_path / "a\rb.nii",),))])
    assert [row["name"] for row in rows(table.path)] == ["x", "y"]


def test_a_damaged_table_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    for content in (b"", b"\xff", ",".join(COLUMNS).encode() + b"\na,b\n"):
        path.write_bytes(content)
        with pytest.raises(OutputError, match="or is damaged"):
            SourcesTable(path, tmp_path / "out").check()
        assert path.read_bytes() == content


def test_a_place_below_a_file_is_refused_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    table = SourcesTable(tmp_path / "file" / "a" / "s.csv", tmp_path / "out")
    with pytest.raises(OutputError, match="below a file"):
        table.check()


def test_an_address_is_no_place_for_it(tmp_path: Path) -> None:
    table = SourcesTable(Path("s3://bucket/sources.csv"), tmp_path / "out")
    with pytest.raises(OutputError, match="object store"):
        table.check()


@pytest.mark.parametrize("name", ["out\udcff", "out\r1"])
def test_a_folder_whose_name_is_no_text_has_each_scan_once(
    tmp_path: Path, name: str
) -> None:
    table = SourcesTable(tmp_path / "sources.csv", tmp_path / name)
    for file in ("a.nii", "b.nii"):
        table.enter([Scan("x", ((tmp_path / file,),))])
    (row,) = rows(table.path)
    assert row["path"].endswith("b.nii")


def test_a_table_of_very_many_rows_is_entered_as_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [
        Scan(f"x{number}", ((tmp_path / f"{number}.nii",),) * (1 + number % 2))
        for number in range(40)
    ]
    tables = [
        SourcesTable(tmp_path / f"{name}.csv", tmp_path / "out")
        for name in "ab"
    ]
    for table in tables:
        table.enter(scans[:30])
        lines = table.path.read_text().splitlines(keepends=True)
        # As a person leaves it who puts it in another order, and copies rows.
        table.path.write_text("".join([lines[0], *lines[:0:-1], lines[1]]))
        monkeypatch.setattr(long_sort, "MOST_IN_MEMORY", 3)
        # What is read at once would have an end.
        monkeypatch.setattr("medseg._support.tables.MAX_LIST_BYTES", 10)
        table.check()
        table.enter(scans[20:])
    short, long = (table.path.read_bytes() for table in tables)
    assert short == long
    found = rows(tables[1].path)
    keys = [(row["name"], row["channel"]) for row in found]
    assert keys == sorted(set(keys))
    assert len(keys) == 60
