"""The split that people made themselves is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.datasets import a_spec, touch

import medseg
from medseg.datasets.cases import find_cases
from medseg.datasets.folds import split_cases
from medseg.errors import DatasetError
from medseg.events import Event, Notice
from medseg.layouts.registry import list_cases
from medseg.layouts.splits import find_split
from medseg.testing import write_dataset

NAMES = ("liver_1", "liver_2", "liver_3", "liver_4")


def a_folder(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    for name in names:
        touch(root / f"images/{name}.nii.gz", root / f"labels/{name}.nii.gz")
    return root


def folds_of(root: Path, splits: str) -> dict[str, int | None]:
    found = find_cases(root, a_spec(splits=splits))
    return {case.name: case.fold for case in found.cases}


def write(file: Path, content: Any) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text)
    return file.name


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "splits_final.json",
            [{"train": ["liver_1", "liver_3"], "val": ["liver_2", "liver_4"]}],
        ),
        (
            "split.json",
            {
                "training": ["images/liver_1.nii.gz", "liver_3"],
                "validation": ["liver_2", "liver_4"],
            },
        ),
        (
            "meta.csv",
            "image_id;age;split\nliver_1;;train\nliver_2;;val\nliver_3;;train\nliver_4;;val\n",
        ),
        ("a.csv", "name,fold\nliver_1,1\nliver_2,0\nliver_3,1\nliver_4,0\n"),
        ("val.txt", "liver_2.nii.gz\nimages/liver_4.nii.gz labels/x\n"),
    ],
)
def test_a_split_in_a_file_is_kept(
    file: str, content: Any, tmp_path: Path
) -> None:
    root = a_folder(tmp_path)
    write(root / "train.txt", "liver_1\n\nLiver_3\n")
    splits = write(root / file, content)
    assert folds_of(root, splits) == {
        "liver_1": 1,
        "liver_2": 0,
        "liver_3": 1,
        "liver_4": 0,
    }


def test_the_folds_of_nnunet_are_those_that_it_holds_out(
    tmp_path: Path,
) -> None:
    root = tmp_path / "nnUNet_raw" / "Dataset001_X"
    for name in NAMES:
        touch(root / f"imagesTr/{name}_0000.nii.gz")
        touch(root / f"labelsTr/{name}.nii.gz")
    write(root / "dataset.json", {"file_ending": ".nii.gz"})
    splits = [
        {"train": [n for n in NAMES if n != out], "val": [out]}
        for out in ("liver_3", "liver_1", "liver_2")
    ]
    file = tmp_path / "nnUNet_preprocessed" / root.name / "splits_final.json"
    write(file, splits)
    found = find_split(list_cases(root, "auto"), root)
    assert found == f"../../nnUNet_preprocessed/{root.name}/splits_final.json"
    folds = folds_of(root, found)
    # What is never held out is always trained on.
    assert folds == {"liver_1": 1, "liver_2": 2, "liver_3": 0, "liver_4": 3}
    cases = find_cases(root, a_spec(splits=found)).cases
    training, held_out = split_cases(cases, a_spec().data, 0)
    assert [case.name for case in held_out] == ["liver_3"]
    assert len(training) == 3


def test_what_a_split_does_not_name_is_left_out_and_told(
    tmp_path: Path,
) -> None:
    root = a_folder(tmp_path)
    splits = [{"train": ["liver_1", "gone"], "val": ["liver_2"]}]
    write(root / "s.json", splits)
    found = find_cases(root, a_spec(splits="s.json"))
    assert [case.name for case in found.cases] == ["liver_1", "liver_2"]
    said = " ".join(found.warnings)
    assert "2 cases are not in the split and are left out: liver_3" in said
    assert "1 of the 3 cases that the split names are not in the data" in said
    write(
        root / "t.csv", "name,split\nliver_1,train\nliver_2,val\nliver_3,test"
    )
    assert folds_of(root, "t.csv") == {"liver_1": 1, "liver_2": 0}


def test_numbers_of_cases_are_not_taken_for_those_of_channels(
    tmp_path: Path,
) -> None:
    names = ("case_0001", "case_0002", "case_0003")
    root = a_folder(tmp_path, names)
    write(root / "s.json", {"train": ["case_0001"], "val": ["case_0002"]})
    assert folds_of(root, "s.json") == {"case_0001": 1, "case_0002": 0}


def test_a_split_that_folds_cannot_say_is_told(tmp_path: Path) -> None:
    root = a_folder(tmp_path)
    fewer = [
        {"train": ["liver_1"], "val": ["liver_2", "liver_4"]},
        {"train": ["liver_2", "liver_4"], "val": ["liver_1", "liver_3"]},
    ]
    write(root / "s.json", fewer)
    found = find_cases(root, a_spec(splits="s.json"))
    assert "1 of the 2 splits do not train on all" in " ".join(found.warnings)
    twice = [{"train": ["liver_1"], "val": ["liver_2"]}] * 2
    write(root / "s.json", twice)
    with pytest.raises(DatasetError, match="holds out a case more than once"):
        find_cases(root, a_spec(splits="s.json"))


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("s.json", "{", "not valid JSON"),
        ("s.json", [1], "lists 'train' and 'val'"),
        ("s.json", {"train": [], "val": [3]}, "lists 'train' and 'val'"),
        ("s.json", [{"train": ["a"], "val": ["b"]}], "none of the cases"),
        ("s.json", [{"train": ["a"], "val": []}], "holds out no case"),
        ("s.csv", "name,age\nliver_1,3\n", "a column 'name' and one 'fold'"),
        ("s.csv", "name,fold\nliver_1,north\n", "line 2 has a fold"),
        ("list.txt", "liver_1\n", "train.txt beside val.txt"),
        ("absent.json", None, "there is no such file"),
    ],
)
def test_what_is_no_split_is_refused_with_the_reason(
    file: str, content: Any, why: str, tmp_path: Path
) -> None:
    root = a_folder(tmp_path)
    if content is not None:
        write(root / file, content)
    with pytest.raises(DatasetError, match=why) as caught:
        find_cases(root, a_spec(splits=file))
    assert "liver_1" not in caught.value.message


def test_only_a_split_of_these_cases_is_found(tmp_path: Path) -> None:
    root = a_folder(tmp_path)

    def find() -> str | None:
        return find_split(list_cases(root, "auto"), root)

    assert find() is None
    write(root / "splits_final.json", [{"train": ["a"], "val": ["b"]}])
    assert find() is None
    write(root / "splits_final.json", "{")
    assert find() is None
    write(root / "ImageSets/Segmentation/train.txt", "liver_1\nliver_2\n")
    write(root / "ImageSets/Segmentation/val.txt", "liver_3\nliver_4\n")
    assert find() == "ImageSets/Segmentation/val.txt"
    folds = folds_of(root, "ImageSets/Segmentation/val.txt")
    assert folds == {"liver_1": 1, "liver_2": 1, "liver_3": 0, "liver_4": 0}


def test_a_plan_keeps_the_split_says_so_and_hands_it_on(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 4, shape=(24, 20, 16), spacing=9.0)
    names = [f"phantom_{number:03d}" for number in range(4)]
    splits = [{"train": names[:3], "val": names[3:]}]
    write(tmp_path / "mine.json", splits)
    events: list[Event] = []
    planned = medseg.plan(
        data,
        tmp_path / "bundle.json",
        splits=tmp_path / "mine.json",
        device="cpu",
        listeners=[events.append],
    )
    said = " ".join(planned.recognised)
    assert (
        "fold 0 is the validation set (1), fold 1 the training set (3)" in said
    )
    assert planned.spec.data.splits == "../mine.json"
    assert not [e for e in events if isinstance(e, Notice)]
    cases = find_cases(data, planned.spec).cases
    assert [case.fold for case in cases] == [1, 1, 1, 0]
    write(data / "splits_final.json", splits)
    found = medseg.plan(data, tmp_path / "b.json", device="cpu")
    assert found.spec.data.splits == "splits_final.json"


def test_a_case_of_another_folder_is_not_the_one_that_is_named(
    tmp_path: Path,
) -> None:
    for site in ("site1", "site2"):
        for name in ("a", "b"):
            folder = tmp_path / site / name
            touch(folder / "image.nii.gz", folder / "label.nii.gz")
    parts = {"train": ["site1/a", "site2/b"], "val": ["site1/b"]}
    write(tmp_path / "s.json", parts)
    folds = folds_of(tmp_path, "s.json")
    assert folds == {"site1_a": 1, "site1_b": 0, "site2_b": 1}


def test_lists_may_name_a_case_twice_and_tables_may_not_in_two_folds(
    tmp_path: Path,
) -> None:
    a_folder(tmp_path)
    write(tmp_path / "val.txt", "liver_1\nliver_1\n")
    write(tmp_path / "train.txt", "liver_2\nliver_3\nliver_2\nliver_4\n")
    folds = folds_of(tmp_path, "val.txt")
    assert folds == dict(zip(NAMES, (0, 1, 1, 1), strict=True))
    write(tmp_path / "t.csv", "name,split\nliver_1,train\nliver_1,test\n")
    with pytest.raises(DatasetError, match="line 3 puts a case into another"):
        folds_of(tmp_path, "t.csv")


def test_the_path_of_a_split_is_told_as_people_write_it(tmp_path: Path) -> None:
    data = a_folder(tmp_path / "data")
    with pytest.raises(DatasetError) as caught:
        folds_of(data, "../elsewhere/../val.json")
    assert caught.value.source == str(tmp_path.resolve() / "val.json")
