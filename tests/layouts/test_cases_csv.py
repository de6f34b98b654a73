"""Tables of cases."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.datasets import a_spec, faults_of, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError, MedsegError
from medseg.layouts import Selection, list_cases
from medseg.layouts.cases_csv import CsvLayout, parse_columns
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestCsvLayout(DatasetLayoutContract):
    layout = CsvLayout()

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        lines = ["image,label,patient"]
        for name in names:
            touch(root / f"{name}.nii.gz", root / f"{name}_label.nii.gz")
            lines.append(f"{name}.nii.gz,{name}_label.nii.gz,{name}")
        (root / "cases.csv").write_text("\n".join(lines))


def test_a_table_lists_cases_with_names_folds_and_patients(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    touch(
        elsewhere / "a.nii",
        elsewhere / "b.nii",
        elsewhere / "la.nii",
        elsewhere / "lb.nii",
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "cases.csv").write_text(
        "Image;Label;Name;Fold;Patient\n"
        f"../elsewhere/a.nii;{elsewhere}/la.nii;first;0;p\n"
        "\n"
        '"../elsewhere/b.nii";../elsewhere/lb.nii;;1;p\n'
    )

    found = find_cases(home, a_spec())

    assert found.faults == ()
    assert [(case.name, case.fold, case.group) for case in found.cases] == [
        ("b", 1, "p"),
        ("first", 0, "p"),
    ]
    assert any("split 1 groups" in warning for warning in found.warnings)


def test_a_table_may_be_named_itself_and_list_channels(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("t1.nii", "t2.nii", "l.nii")))
    table = tmp_path / "mine.csv"
    table.write_text("label,image_1,image_0\nl.nii,t2.nii,t1.nii\n")

    (case,) = find_cases(table, a_spec(2)).cases

    assert [part[0].name for part in case.scan.parts] == ["t1.nii", "t2.nii"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("image\na.nii\n", "no column 'label'"),
        ("label\na.nii\n", "image_0"),
        ("image_0,image_2,label\n", "without gaps"),
        ("image,image_0,label\n", "without gaps"),
        ("image,image,label\n", "several columns have the same name.*image"),
        ("image,label\na,b,c\n", "line 2 has 3 cells"),
        ('image,label\n"a,b\n', "is not valid CSV"),
    ],
)
def test_a_wrong_table_is_one_clear_error(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "cases.csv").write_text(text)

    with pytest.raises(DatasetError, match=reason):
        find_cases(tmp_path, a_spec())


def test_faults_of_a_table_name_the_case_or_the_line(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.nii", "b.nii", "la.nii", "lb.nii")))
    (tmp_path / "cases.csv").write_text(
        "image,label,name\na.nii,la.nii,same\nb.nii,lb.nii,same\nc.nii,,\n"
    )

    faults = faults_of(tmp_path, a_spec())

    assert "2 cases have this name" in faults["same"]
    assert "'label'" in faults["line 4"]


@given(
    st.binary(max_size=200)
    | st.text(alphabet='imagelbfod_01,;"\n\t .', max_size=200)
)
def test_no_table_of_any_kind_crashes(content: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "cases.csv")
        text = content if isinstance(content, bytes) else content.encode()
        table.write_bytes(b"image,label\n" * (len(text) % 2) + text)
        with contextlib.suppress(DatasetError):
            find_cases(table, a_spec())


def test_a_table_may_have_columns_of_any_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a1.nii", "a2.nii", "sa.nii")))
    table = tmp_path / "mine.csv"
    table.write_text("Subject,T1,T2,Seg,Part\np7,a1.nii,a2.nii,sa.nii,3\n")
    with pytest.raises(DatasetError, match="image_0"):
        find_cases(table, a_spec(2))
    columns = parse_columns(
        "image=T1,image=T2,label=Seg,patient=Subject,fold=Part"
    )
    spec = a_spec(2, columns=columns)
    (case,) = find_cases(table, spec).cases
    parts = [part[0].name for part in case.scan.parts]
    assert parts == ["a1.nii", "a2.nii"]
    assert (case.group, case.fold) == ("p7", 3)
    listing = list_cases(table, "auto", Selection(columns=columns))
    assert listing.channel_names == ("T1", "T2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image=scan", "--columns takes"),
        ("image,label=seg", "--columns takes"),
        ("image=a,label=b,colour=c", "--columns takes"),
        ("image=a,label=b,name=c,name=d", "--columns takes"),
    ],
)
def test_columns_that_name_too_little_or_too_much_are_refused(
    text: str, reason: str
) -> None:
    with pytest.raises(MedsegError, match=reason):
        parse_columns(text)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("scan,seg\na.nii,b.nii\n")
    columns = parse_columns("image=scan,label=mask")
    with pytest.raises(DatasetError, match="no mask among scan, seg"):
        find_cases(table, a_spec(columns=columns))
    other = tmp_path / "other.csv"
    other.write_text("image,seg\n")
    with pytest.raises(DatasetError, match="--columns image=scan,label=seg"):
        find_cases(other, a_spec())


@pytest.mark.parametrize("columns", ["scan,seg", "scan,label", "image,seg"])
def test_a_table_without_the_usual_columns_is_told_of_the_option(
    tmp_path: Path, columns: str
) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(f"{columns}\na.nii.gz,b.nii.gz\n")
    with pytest.raises(DatasetError, match="--columns image=scan,label=seg"):
        find_cases(table, a_spec())


def test_a_table_of_medseg_is_read_whatever_columns_the_first_one_had(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a.nii", tmp_path / "b.nii")
    table = tmp_path / "cases.csv"
    table.write_text("image,label,fold\na.nii,b.nii,0\n")
    columns = parse_columns("image=scan,label=mask")
    (case,) = find_cases(table, a_spec(columns=columns)).cases
    assert case.label.name == "b.nii"


def test_labels_may_be_a_folder_of_masks_or_several_columns(
    tmp_path: Path,
) -> None:
    for case in "ab":
        touch(
            tmp_path / f"{case}.nii",
            tmp_path / f"m{case}/liver.nii",
            tmp_path / f"m{case}/spleen.nii",
        )
    (tmp_path / "mb/spleen.nii").unlink()
    tables = {
        "folder": "image,label\na.nii,ma\nb.nii,mb\n",
        "columns": (
            "image,label_liver,label_spleen\n"
            "a.nii,ma/liver.nii,ma/spleen.nii\nb.nii,mb/liver.nii,\n"
        ),
    }
    for name, text in tables.items():
        table = tmp_path / f"{name}.csv"
        table.write_text(text)
        listing = list_cases(table, "auto")
        assert listing.faults == []
        assert listing.label_names == {1: "liver", 2: "spleen"}
        sources = [case.label_source for case in listing.cases]
        counts = [len(source.paths) for source in sources if source]
        assert counts == [2, 1]
        assert any("spleen in 1" in warning for warning in listing.warnings)
        chosen = list_cases(table, "auto", Selection(labels={"liver": 4}))
        assert "spleen" in chosen.warnings[0]


def test_columns_of_structures_may_have_any_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.nii", "l.nii", "s.nii")))
    table = tmp_path / "mine.csv"
    table.write_text("scan,Liver,Spleen\na.nii,l.nii,s.nii\n")
    columns = parse_columns("image=scan,label=Liver,label=Spleen")
    listing = list_cases(table, "auto", Selection(columns=columns))
    assert listing.label_names == {1: "Liver", 2: "Spleen"}
