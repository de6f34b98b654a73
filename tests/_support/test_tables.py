"""CSV tables as spreadsheets write them, and why a table is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg._support import tables
from medseg._support.tables import read_table, read_text
from medseg.errors import DatasetError


def write(folder: Path, text: str) -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_by_column_and_line(tmp_path: Path, separator: str) -> None:
    lines = ["Image,Label,Fold", "a.nii, b.nii ,1", "", '"c,d.nii",,']
    text = (
        "\n".join(lines)
        .replace(",", separator)
        .replace(f"c{separator}d", "c,d")
    )
    table = read_table(write(tmp_path, text))
    assert table.columns == ("image", "label", "fold")
    assert table.rows == (
        (2, {"image": "a.nii", "label": "b.nii", "fold": "1"}),
        (4, {"image": "c,d.nii", "label": "", "fold": ""}),
    )


def test_missing_cells_are_empty(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "image,label\na.nii\n"))
    assert table.rows == ((2, {"image": "a.nii", "label": ""}),)


def test_mark_of_the_byte_order_belongs_to_no_column(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "\ufeffimage,label\n")).columns == (
        "image",
        "label",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("\n,\n", "is empty"),
        ("image,Image\n", "same name"),
        ("image,,\n", "same name"),
        ("image\na,b\n", "line 2 has 2 cells and the first line names 1"),
        ('image\n"a\n', "line 2 is not valid CSV"),
    ],
)
def test_what_is_no_table_is_refused_without_quoting_it(
    tmp_path: Path, text: str, why: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DatasetError, match=why) as caught:
        read_table(path)
    assert caught.value.source == str(path)
    assert path.name not in caught.value.message


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("image,label", ("image",)),
        ("scan,label", ("scan",)),
        ("image_1,label,image_0", ("image_0", "image_1")),
        (
            ",".join(f"image_{n}" for n in range(11)),
            tuple(f"image_{n}" for n in range(11)),
        ),
    ],
)
def test_columns_of_the_channels_in_order(
    tmp_path: Path, columns: str, expected: object
) -> None:
    table = read_table(write(tmp_path, columns + "\n"))
    assert table.image_columns(("scan", "image")) == expected


@pytest.mark.parametrize(
    "columns",
    [
        "label",
        "image,scan",
        "image,image_0",
        "image_1,image_2",
        "image_0,image_2",
    ],
)
def test_columns_with_gaps_or_of_both_kinds_are_refused(
    tmp_path: Path, columns: str
) -> None:
    table = read_table(write(tmp_path, columns + "\n"))
    with pytest.raises(
        DatasetError, match="one column scan or image, or the columns image_0"
    ):
        table.image_columns(("scan", "image"))


def test_text_that_is_missing_too_large_or_not_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetError, match="there is no such file"):
        read_text(tmp_path / "gone")
    with pytest.raises(DatasetError, match="there is no such file"):
        read_text(tmp_path)
    (tmp_path / "latin").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"not UTF-8 text \(byte 2\)"):
        read_text(tmp_path / "latin")
    path = write(tmp_path, "12345")
    monkeypatch.setattr(tables, "MAX_LIST_BYTES", 5)
    assert read_text(path) == "12345"
    monkeypatch.setattr(tables, "MAX_LIST_BYTES", 4)
    with pytest.raises(
        DatasetError,
        match="5 bytes are too many for a list of cases; at most 4",
    ):
        read_text(path)
