"""Finding the cases of a data set and splitting them."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.cases import Case, Scan, assign_folds, find_cases, split_cases
from medseg.errors import DatasetError


def a_spec(channels: int = 1, **data: Any) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": f"c{number}"} for number in range(channels)],
            "labels": [{"index": 1, "name": "thing"}],
            "data": data,
            "training": {"patch": [16, 16, 16]},
        }
    )


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def an_msd_list(root: Path, items: list[Any], *, make_files: bool = True, **more: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"training": items, **more}))
    if make_files:
        for item in items:
            images = item["image"] if isinstance(item["image"], list) else [item["image"]]
            touch(*(root / file for file in (*images, item["label"])))
    return root


def an_item(name: str, **fields: Any) -> dict[str, Any]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz", **fields}


def some_cases(count: int, fold: Callable[[int], int | None] = lambda n: None) -> list[Case]:
    return [
        Case(Scan(f"c{n}", ((Path(f"c{n}.nii"),),)), Path(f"l{n}.nii"), fold(n), f"c{n}")
        for n in range(count)
    ]


def faults_of(root: Path, spec: BundleSpec) -> dict[str, str]:
    return {fault.where: fault.what for fault in find_cases(root, spec).faults}


# --- MSD lists ---------------------------------------------------------------------------


def test_an_msd_list_gives_sorted_cases_with_folds_and_groups(tmp_path: Path) -> None:
    root = an_msd_list(
        tmp_path, [an_item("b", fold=1, patient="p1"), an_item("a", fold=0, patient=7)]
    )

    found = find_cases(root, a_spec())

    assert found.faults == ()
    assert [(case.name, case.fold, case.group) for case in found.cases] == [
        ("a", 0, "7"),
        ("b", 1, "p1"),
    ]
    assert found.cases[0].scan.parts == ((root / "imagesTr/a.nii.gz",),)
    assert found.cases[0].label == root / "labelsTr/a.nii.gz"


def test_the_channels_of_a_case_keep_their_listed_order(tmp_path: Path) -> None:
    item = {"image": ["x_0001.nii", "x_0000.nii"], "label": "y.nii"}

    (case,) = find_cases(an_msd_list(tmp_path, [item]), a_spec(2)).cases

    assert [part[0].name for part in case.scan.parts] == ["x_0001.nii", "x_0000.nii"]


def test_a_wrong_number_of_channel_files_is_a_fault(tmp_path: Path) -> None:
    item = {"image": ["x_0000.nii", "x_0001.nii"], "label": "y.nii"}

    found = find_cases(an_msd_list(tmp_path, [item]), a_spec(3))

    assert found.cases == ()
    assert "2 channel files and the bundle 3" in found.faults[0].what
    assert found.faults[0].where == "x"


def test_equal_file_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    items = [
        {"image": f"scans/{patient}/ct.nii", "label": f"scans/{patient}/mask.nii"}
        for patient in ("p1", "p2")
    ]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert [case.name for case in found.cases] == ["p1_ct", "p2_ct"]


def test_missing_files_and_malformed_items_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    items = [an_item("good"), an_item("gone"), an_item("no_label")]
    root = an_msd_list(tmp_path, items)
    (root / "imagesTr/gone.nii.gz").unlink()
    (root / "labelsTr/no_label.nii.gz").unlink()
    broken: list[Any] = [
        "imagesTr/a.nii",
        {"image": 3, "label": "x"},
        {"image": "a\0b", "label": "x"},
        {"image": [], "label": "x"},
        {"image": "x" * 5000, "label": "x"},
        {"image": "\ud800", "label": "x"},
        None,
    ]
    an_msd_list(root, items + broken, make_files=False)

    found = find_cases(root, a_spec())
    faults = {fault.where: fault.what for fault in found.faults}

    assert [case.name for case in found.cases] == ["good"]
    assert "imagesTr/gone.nii.gz does not exist" in faults["gone"]
    assert "labelsTr/no_label.nii.gz does not exist" in faults["no_label"]
    assert {"training.3", "training.4", "training.5", "training.6", "training.8", "training.9"} <= (
        set(faults)
    )


def test_links_in_circles_and_folders_for_labels_are_faults(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("a"), an_item("b")])
    for file in ("imagesTr/a.nii.gz", "labelsTr/b.nii.gz"):
        (root / file).unlink()
    (root / "imagesTr/a.nii.gz").symlink_to(root / "imagesTr/a.nii.gz")
    (root / "labelsTr/b.nii.gz").mkdir()

    faults = faults_of(root, a_spec())

    assert "does not exist" in faults["a"]
    assert "is a folder" in faults["b"]


def test_a_file_used_twice_is_a_fault_of_the_later_case(tmp_path: Path) -> None:
    again = {"image": "imagesTr/../imagesTr/a.nii.gz", "label": "labelsTr/b.nii.gz"}
    same = {"image": "imagesTr/c.nii.gz", "label": "imagesTr/c.nii.gz"}

    found = find_cases(an_msd_list(tmp_path, [an_item("a"), again, same]), a_spec())

    assert [case.label.name for case in found.cases] == ["a.nii.gz"]
    assert any("which the case" in fault.what for fault in found.faults)
    assert any("lists one file twice" in fault.what for fault in found.faults)


@pytest.mark.parametrize("fold", [-1, 1.5, True, "one", [0]])
def test_a_fold_must_be_a_whole_number(tmp_path: Path, fold: Any) -> None:
    assert "fold" in faults_of(an_msd_list(tmp_path, [an_item("a", fold=fold)]), a_spec())["a"]


def test_files_that_the_list_omits_are_mentioned_and_hidden_ones_are_not(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("a")])
    touch(root / "imagesTr/extra.nii.gz", root / "imagesTr/._a.nii.gz", root / "imagesTr/notes.txt")

    found = find_cases(root, a_spec())

    assert [case.name for case in found.cases] == ["a"]
    assert len(found.warnings) == 1
    assert "1 of the image files" in found.warnings[0]
    assert "extra.nii.gz" in found.warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"[1, 2]", "holds a list"),
        (b'{"training": 3}', "is a number"),
        (b'{"training": {}}', "is an object"),
        (b'{"training": []}', "lists no case"),
        (b'{"training": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"training": [' + b"9" * 5000 + b"]}", "not JSON"),
    ],
)
def test_a_malformed_dataset_json_is_one_clear_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "dataset.json").write_bytes(content)

    with pytest.raises(DatasetError, match=reason):
        find_cases(tmp_path, a_spec(format="msd"))


def test_a_dataset_json_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "dataset.json").open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(DatasetError, match="too many for a list"):
        find_cases(tmp_path, a_spec())


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("a")])
    (root / "dataset.json").write_bytes(b"\xef\xbb\xbf" + (root / "dataset.json").read_bytes())

    assert len(find_cases(root, a_spec()).cases) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["image", "label", "fold", "group", "patient"])


@given(st.lists(st.dictionaries(KEYS, JSON) | JSON, max_size=5))
def test_no_list_of_any_kind_is_more_than_faults(items: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = an_msd_list(Path(folder), items, make_files=False)
        if not items:
            with pytest.raises(DatasetError):
                find_cases(root, a_spec())
            return
        found = find_cases(root, a_spec())

        assert found.cases == ()
        assert len({fault.where for fault in found.faults}) >= 1


@given(st.binary(max_size=200) | st.text(alphabet='imagelbfod_01,;"\n\t .', max_size=200))
def test_no_table_of_any_kind_crashes(content: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "cases.csv")
        text = content if isinstance(content, bytes) else content.encode()
        table.write_bytes(b"image,label\n" * (len(text) % 2) + text)
        with contextlib.suppress(DatasetError):
            find_cases(table, a_spec())


# --- nnU-Net ------------------------------------------------------------------------------


def test_an_nnunet_folder_gives_cases_with_their_channels(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"})
    )
    touch(*(tmp_path / f"imagesTr/{name}_000{n}.nii.gz" for name in "ab" for n in (1, 0)))
    touch(*(tmp_path / f"labelsTr/{name}.nii.gz" for name in "ab"))
    touch(tmp_path / "imagesTr/a_0000.nrrd")

    found = find_cases(tmp_path, a_spec(2))

    assert found.faults == ()
    assert found.warnings == (
        "1 image files in imagesTr do not end in .nii.gz, the 'file_ending' of the data set, and "
        "are not used: a_0000.nrrd",
    )
    assert [case.name for case in found.cases] == ["a", "b"]
    assert [part[0].name for part in found.cases[0].scan.parts] == [
        "a_0000.nii.gz",
        "a_0001.nii.gz",
    ]


def test_half_pairs_and_missing_channels_of_nnunet_are_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    touch(
        tmp_path / "imagesTr/gap_0001.nii.gz",
        tmp_path / "labelsTr/gap.nii.gz",
        tmp_path / "imagesTr/half_0000.nii.gz",
        tmp_path / "imagesTr/half_0001.nii.gz",
        tmp_path / "labelsTr/lonely.nii.gz",
        tmp_path / "imagesTr/one_0000.nii.gz",
        tmp_path / "labelsTr/one.nii.gz",
        tmp_path / "imagesTr/plain.nii.gz",
    )

    faults = faults_of(tmp_path, a_spec(2))

    assert "has no channel gap_0000" in faults["gap"]
    assert "has no label" in faults["half"]
    assert "has no image" in faults["lonely"]
    assert "only channel 0" in faults["one"]
    assert "has no channel number" in faults["plain"]


def test_a_picture_may_hold_all_channels_of_an_nnunet_case(tmp_path: Path) -> None:
    touch(tmp_path / "imagesTr/a_0000.png", tmp_path / "labelsTr/a.png")

    assert len(find_cases(tmp_path, a_spec(3, format="nnunet")).cases) == 1


# --- folders ------------------------------------------------------------------------------


def test_folders_pair_by_name_and_known_label_endings(tmp_path: Path) -> None:
    touch(*(tmp_path / f"images/{name}.png" for name in ("a", "b", "c", "d", "x_mask", "img_0001")))
    touch(
        tmp_path / "labels/a.png",
        tmp_path / "labels/b_seg.tif",
        tmp_path / "labels/c_label.png",
        tmp_path / "labels/d_mask.png",
        tmp_path / "labels/x_mask.png",
        tmp_path / "labels/img_0001.png",
    )

    found = find_cases(tmp_path, a_spec())

    assert found.faults == ()
    assert {case.name: case.label.name for case in found.cases} == {
        "a": "a.png",
        "b": "b_seg.tif",
        "c": "c_label.png",
        "d": "d_mask.png",
        "x_mask": "x_mask.png",
        "img_0001": "img_0001.png",
    }


def test_folders_may_hold_numbered_channels_and_folders_below(tmp_path: Path) -> None:
    touch(*(tmp_path / f"images/p/{name}.nii" for name in ("a_0000", "a_0001")))
    touch(tmp_path / "labels/p/a.nii")

    (case,) = find_cases(tmp_path, a_spec(2)).cases

    assert case.name == "p_a"
    assert [part[0].name for part in case.scan.parts] == ["a_0000.nii", "a_0001.nii"]


def test_every_half_pair_of_folders_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "images/alone.nii", tmp_path / "labels/orphan.nii")
    touch(
        tmp_path / "images/twice.nii", tmp_path / "images/twice.nrrd", tmp_path / "labels/twice.nii"
    )
    touch(tmp_path / "images/two.nii", tmp_path / "labels/two.nii", tmp_path / "labels/two_seg.nii")
    (tmp_path / "images/dangling.nii").symlink_to(tmp_path / "nowhere")

    faults = faults_of(tmp_path, a_spec())

    assert "has no label" in faults["alone"]
    assert "has no image" in faults["orphan"]
    assert "several files" in faults["twice"]
    assert "several files" in faults["two"]
    assert "link to something that is not there" in faults["images/dangling.nii"]


# --- CSV ----------------------------------------------------------------------------------


def test_a_table_lists_cases_with_names_folds_and_patients(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere / "a.nii", elsewhere / "b.nii", elsewhere / "la.nii", elsewhere / "lb.nii")
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
    assert any("tear 1 groups apart" in warning for warning in found.warnings)


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
        ("image,image,label\n", "two columns are called image"),
        ("image,label\na,b,c\n", "line 2 has 3 cells"),
        ('image,label\n"a,b\n', "is no CSV"),
    ],
)
def test_a_wrong_table_is_one_clear_error(tmp_path: Path, text: str, reason: str) -> None:
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


def test_names_from_a_table_become_plain_file_names(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a.nii", "b.nii", "la.nii", "lb.nii")))
    (tmp_path / "cases.csv").write_text(
        "image,label,name\na.nii,la.nii,../../etc/x\nb.nii,lb.nii,..\n"
    )

    names = [case.name for case in find_cases(tmp_path, a_spec()).cases]

    assert names == ["_.._etc_x", "scan"]


# --- choosing the layout ------------------------------------------------------------------


def test_nothing_that_looks_like_a_data_set_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path / "pictures/a.png")

    with pytest.raises(DatasetError, match=r"dataset\.json, cases\.csv.*holds pictures"):
        find_cases(tmp_path, a_spec())
    with pytest.raises(DatasetError, match="no such folder"):
        find_cases(tmp_path / "typo", a_spec())
    with pytest.raises(DatasetError, match="list of cases is needed"):
        find_cases(tmp_path / "pictures/a.png", a_spec())


@pytest.mark.parametrize("layout", ["msd", "nnunet", "folders", "csv"])
def test_a_layout_that_is_asked_for_and_absent_is_an_error(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        find_cases(tmp_path, a_spec(format=layout))


# --- groups -------------------------------------------------------------------------------


def test_group_by_wins_and_must_exist(tmp_path: Path) -> None:
    items = [an_item("a", group=1, Site="x"), an_item("b", group=2, Site="x"), an_item("c")]
    root = an_msd_list(tmp_path, items)

    found = find_cases(root, a_spec(group_by="Site"))

    assert [case.group for case in found.cases] == ["x", "x"]
    assert "data.group_by" in found.faults[0].what
    with pytest.raises(DatasetError, match="its fields are group, site"):
        find_cases(root, a_spec(group_by="patient"))


def test_group_by_is_refused_where_no_case_can_have_fields(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.nii", tmp_path / "labels/a.nii")

    with pytest.raises(DatasetError, match="group_pattern"):
        find_cases(tmp_path, a_spec(group_by="patient"))


def test_group_pattern_takes_the_group_from_the_name(tmp_path: Path) -> None:
    root = an_msd_list(tmp_path, [an_item("p1_left"), an_item("p1_right"), an_item("other")])

    found = find_cases(root, a_spec(group_pattern=r"^(p\d+)_"))

    assert [case.group for case in found.cases] == ["other", "p1", "p1"]
    assert "1 of 3 names" in found.warnings[0]


# --- folds --------------------------------------------------------------------------------


def test_listed_folds_win(tmp_path: Path) -> None:
    cases = some_cases(6, fold=lambda n: n % 3)

    training, validation = split_cases(cases, DataSpec(), 2)

    assert [case.name for case in validation] == ["c2", "c5"]
    assert [case.name for case in training] == ["c0", "c1", "c3", "c4"]
    with pytest.raises(DatasetError, match=r"no fold 3.*0, 1, 2"):
        split_cases(cases, DataSpec(), 3)


def test_folds_of_only_some_cases_are_not_used_and_a_person_is_told(tmp_path: Path) -> None:
    items = [an_item(f"c{n}", **({"fold": 0} if n else {})) for n in range(10)]

    found = find_cases(an_msd_list(tmp_path, items), a_spec())

    assert "1 of 10 cases have no fold" in found.warnings[0]
    assert set(assign_folds(found.cases, DataSpec())) == {0, 1, 2, 3, 4}


def test_no_fold_trains_on_everything() -> None:
    cases = some_cases(1)

    assert split_cases(cases, DataSpec(), None) == (tuple(cases), ())


@given(st.lists(st.integers(1, 6), min_size=5, max_size=60), st.integers(0, 99), st.randoms())
def test_groups_stay_whole_folds_are_never_empty_and_order_does_not_matter(
    sizes: list[int], seed: int, random: Any
) -> None:
    data = DataSpec(seed=seed)
    cases = [
        Case(Scan(f"{group}-{n}", ()), Path(), None, f"g{group}")
        for group, size in enumerate(sizes)
        for n in range(size)
    ]
    folds = dict(zip((case.name for case in cases), assign_folds(cases, data), strict=True))
    shuffled = list(cases)
    random.shuffle(shuffled)

    assert set(folds.values()) == set(range(5))
    assert len({(case.group, folds[case.name]) for case in cases}) == len(sizes)
    assert folds == dict(
        zip((case.name for case in shuffled), assign_folds(shuffled, data), strict=True)
    )


def test_folds_are_balanced_differ_by_seed_and_hardly_change_with_one_more_case() -> None:
    cases = some_cases(101)
    before = assign_folds(cases[:100], DataSpec())
    after = assign_folds(cases, DataSpec())

    assert set(Counter(before).values()) == {20}
    assert before != assign_folds(cases[:100], DataSpec(seed=1))
    assert sum(one != other for one, other in zip(before, after, strict=False)) <= 5


def test_too_few_groups_say_what_can_be_done() -> None:
    with pytest.raises(DatasetError, match=r"1 usable case cannot be split into 5 folds; add"):
        split_cases(some_cases(1), DataSpec(), 0)
    with pytest.raises(DatasetError, match=r"set data\.folds to 3 or less"):
        split_cases(some_cases(3), DataSpec(), 0)
    with pytest.raises(DatasetError, match="all 3 cases are in fold 0"):
        split_cases(some_cases(3, fold=lambda n: 0), DataSpec(), 0)
    with pytest.raises(DatasetError, match="no usable case"):
        split_cases([], DataSpec(), None)


# --- real data ----------------------------------------------------------------------------


def test_the_hippocampus_set_has_195_cases_in_its_own_folds(shared_data: Path) -> None:
    found = find_cases(shared_data / "hippocampus", a_spec())

    assert len(found.cases) == 195
    assert found.faults == ()
    assert found.warnings == ()
    assert sorted(Counter(case.fold for case in found.cases).items()) == [
        (0, 35), (1, 43), (2, 36), (3, 45), (4, 36),
    ]  # fmt: skip
    assert len({case.group for case in found.cases}) < 195


def test_the_half_pairs_of_the_dirty_hippocampus_folder_are_named(shared_data: Path) -> None:
    found = find_cases(shared_data / "hippocampus" / "dirty", a_spec())

    assert found.cases == ()
    assert {fault.where: fault.what.split()[-1] for fault in found.faults} == {
        "hippocampus_010": "image",
        "hippocampus_118": "label",
        "hippocampus_281": "image",
    }


def test_one_case_cannot_be_validated(shared_data: Path) -> None:
    cases = find_cases(shared_data / "msd_spleen_crop", a_spec()).cases

    assert [case.name for case in cases] == ["spleen_2"]
    with pytest.raises(DatasetError, match="1 usable case"):
        split_cases(cases, DataSpec(), 0)


def test_patients_with_equal_file_names_get_names_of_their_own(shared_data: Path) -> None:
    found = find_cases(shared_data / "sts_ct_mr_pet", a_spec())

    assert found.cases[0].name == "STS_002_CT_image"
    assert "40 of the image files" in found.warnings[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.nii", tmp_path / "labels/a.nii")
    (tmp_path / "labels").chmod(0)
    try:
        assert "cannot be read" in " ".join(faults_of(tmp_path, a_spec()).values())
    finally:
        (tmp_path / "labels").chmod(0o700)


# --- what the list says of label values ---


def test_a_value_to_ignore_that_the_bundle_does_not_have_is_told(tmp_path: Path) -> None:
    said = {"0": "background", "1": "thing", "2": "ignore"}
    root = an_msd_list(tmp_path, [an_item("a")], labels=said)
    (warning,) = find_cases(root, a_spec()).warnings
    assert "set data.ignore to 2" in warning
    (warning,) = find_cases(root, a_spec(ignore=3)).warnings
    assert "has 3 there; set data.ignore to 2" in warning
    assert find_cases(root, a_spec(ignore=2)).warnings == ()


@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_a_list_that_says_regions_lists_its_cases(layout: str, tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumor": [1, 2], "core": [2], "ignore": 3}
    more = {"labels": labels, "regions_class_order": [1, 2]}
    if layout == "msd":
        root = an_msd_list(tmp_path, [an_item("a")], **more)
    else:
        touch(tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "labelsTr" / "a.nii.gz")
        (tmp_path / "dataset.json").write_text(json.dumps(more))
        root = tmp_path
    found = find_cases(root, a_spec(ignore=3))
    assert [case.name for case in found.cases] == ["a"]
    assert found.warnings == ()
    assert "set data.ignore to 3" in find_cases(root, a_spec()).warnings[0]


def test_the_old_lists_of_nnunet_name_images_without_their_channels(tmp_path: Path) -> None:
    items = [an_item("a"), an_item("b")]
    root = an_msd_list(tmp_path, items, make_files=False, labels={"0": "background", "1": "x"})
    for name in "ab":
        touch(root / "labelsTr" / f"{name}.nii.gz")
        touch(*(root / "imagesTr" / f"{name}_000{n}.nii.gz" for n in (0, 1)))
    found = find_cases(root, a_spec(channels=2))
    assert not found.faults
    assert [len(case.scan.parts) for case in found.cases] == [2, 2]


def test_a_list_for_validation_and_cases_without_a_patient_are_told(tmp_path: Path) -> None:
    items = [an_item("a", patient="P1"), an_item("b", patient="P1"), an_item("c", patient="")]
    root = an_msd_list(tmp_path, items, validation=[an_item("d")])
    said = find_cases(root, a_spec()).warnings
    assert [one for one in said if "lists 1 cases under 'validation'" in one]
    assert [one for one in said if one.startswith("1 of 3 cases have no 'patient'")]
    alone = an_msd_list(tmp_path / "alone", [an_item("a"), an_item("b")])
    assert find_cases(alone, a_spec()).warnings == ()
