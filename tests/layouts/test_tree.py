"""Trees of folders and files as people have them, told by their names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pytest
from support.datasets import a_spec, touch

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.cases import find_cases
from medseg.datasets.folds import split_cases
from medseg.errors import DatasetError
from medseg.layouts import CaseListing, Selection, list_cases
from medseg.layouts.tree import TreeLayout
from medseg.testing.dataset_layouts import DatasetLayoutContract

BRATS = ("flair", "t1", "t1ce", "t2")
THREE = ("001", "002", "003")


def files(pattern: str, *values: Iterable[str]) -> list[str]:
    """Return a pattern with every combination of values in it: ``{0}``, ``{1}``."""
    return [pattern.format(*each) for each in product(*values)]


def a_tree(root: Path, *paths: str) -> Path:
    touch(*(root / path for path in paths))
    return root


def listed(root: Path, **wishes: object) -> CaseListing:
    return list_cases(root, "auto", Selection(**wishes))  # type: ignore[arg-type]


def pairs_of(root: Path, **wishes: object) -> dict[str, tuple[str, ...]]:
    """Return name → images and label of every case, relative to the data set."""
    pairs = {}
    for case in listed(root, **wishes).cases:
        paths = [*case.images, case.label]
        pairs[case.name or ""] = tuple(
            path.relative_to(root).as_posix() for path in paths
        )
    return pairs


# --- the contract -------------------------------------------------------------------------


class TestPairs(DatasetLayoutContract):
    layout = TreeLayout()

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        for name in names:
            a_tree(root, f"{name}.nii.gz", f"{name}_seg.nii.gz")


class TestFolders(DatasetLayoutContract):
    layout = TreeLayout()

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        for name in names:
            a_tree(root, f"imgs/{name}.png", f"gt/{name}.png")


class TestFolderPerCase(DatasetLayoutContract):
    layout = TreeLayout()
    channels = tuple(ChannelSpec(name=name) for name in BRATS)

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        a_tree(root, *files("{0}/{0}_{1}.nii.gz", names, (*BRATS, "seg")))


class TestMasks(DatasetLayoutContract):
    layout = TreeLayout()
    labels = ("liver", "spleen")

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        a_tree(root, *files("{0}/ct.nii.gz", names))
        masks = files("{0}/segmentations/{1}.nii.gz", names, self.labels)
        a_tree(root, *masks)


# --- the trees of the field ---------------------------------------------------------------

TREES: dict[str, tuple[list[str], tuple[str, tuple[str, ...]]]] = {
    "BraTS 2020": (
        files("BraTS20_{0}/BraTS20_{0}_{1}.nii.gz", THREE, (*BRATS, "seg")),
        (
            "BraTS20_001",
            tuple(
                f"BraTS20_001/BraTS20_001_{role}.nii.gz"
                for role in (*BRATS, "seg")
            ),
        ),
    ),
    "BraTS 2018, in two folders": (
        files(
            "{0}/Brats18_{0}{1}_1/Brats18_{0}{1}_1_{2}.nii.gz",
            ("HGG", "LGG"),
            THREE,
            ("flair", "t1", "seg"),
        ),
        (
            "Brats18_HGG001_1",
            tuple(
                f"HGG/Brats18_HGG001_1/Brats18_HGG001_1_{role}.nii.gz"
                for role in ("flair", "t1", "seg")
            ),
        ),
    ),
    "BraTS 2023": (
        files(
            "BraTS-GLI-00{0}-000/BraTS-GLI-00{0}-000-{1}.nii.gz",
            THREE,
            ("t1c", "t1n", "seg"),
        ),
        (
            "BraTS-GLI-00001-000",
            tuple(
                f"BraTS-GLI-00001-000/BraTS-GLI-00001-000-{role}.nii.gz"
                for role in ("t1c", "t1n", "seg")
            ),
        ),
    ),
    "KiTS": (
        files("case_00{0}/{1}.nii.gz", THREE, ("imaging", "segmentation")),
        (
            "case_00001",
            (
                "case_00001/imaging.nii.gz",
                "case_00001/segmentation.nii.gz",
            ),
        ),
    ),
    "BTCV": (
        files("{0}/{0}0{1}.nii.gz", ("img", "label"), THREE),
        ("0001", ("img/img0001.nii.gz", "label/label0001.nii.gz")),
    ),
    "images and masks": (
        files("{0}/{1}.png", ("images", "masks"), THREE),
        ("001", ("images/001.png", "masks/001.png")),
    ),
    "images and annotations": (
        files("{0}/{1}.png", ("images", "annotations"), THREE),
        ("001", ("images/001.png", "annotations/001.png")),
    ),
    "Images and Ground Truth": (
        files("{0}/{1}.png", ("Images", "Ground Truth"), THREE),
        ("001", ("Images/001.png", "Ground Truth/001.png")),
    ),
    "images of several suffixes": (
        [
            *files("images/{0}_img.nii.gz", THREE),
            *files("labels/{0}_seg.nii.gz", THREE),
        ],
        ("001", ("images/001_img.nii.gz", "labels/001_seg.nii.gz")),
    ),
    "labels beside images": (
        files("p{0}{1}.nii.gz", THREE, ("", "_seg")),
        ("p001", ("p001.nii.gz", "p001_seg.nii.gz")),
    ),
    "LiTS": (
        files("{0}-{1}.nii", ("volume", "segmentation"), THREE),
        ("001", ("volume-001.nii", "segmentation-001.nii")),
    ),
    "FLARE": (
        [
            *files("images/F_{0}_0000.nii.gz", THREE),
            *files("labels/F_{0}.nii.gz", THREE),
        ],
        ("F_001", ("images/F_001_0000.nii.gz", "labels/F_001.nii.gz")),
    ),
    "ISIC": (
        [
            *files("ISIC_Task1-2_Training_Input/ISIC_{0}.jpg", THREE),
            *files(
                "ISIC_Task1_Training_GroundTruth/ISIC_{0}_segmentation.png",
                THREE,
            ),
        ],
        (
            "ISIC_001",
            (
                "ISIC_Task1-2_Training_Input/ISIC_001.jpg",
                "ISIC_Task1_Training_GroundTruth/ISIC_001_segmentation.png",
            ),
        ),
    ),
    "CT_image and CT_mask": (
        files("P{0}/CT_{1}.nii.gz", THREE, ("image", "mask")),
        ("P001", ("P001/CT_image.nii.gz", "P001/CT_mask.nii.gz")),
    ),
    "channels in folders": (
        files("{0}/{1}.nii.gz", ("FLAIR", "T1", "labels"), THREE),
        (
            "001",
            ("FLAIR/001.nii.gz", "T1/001.nii.gz", "labels/001.nii.gz"),
        ),
    ),
    "a label of any name in each folder": (
        files("P{0}/{1}.nii.gz", THREE, ("T1", "lesion_seg")),
        ("P001", ("P001/T1.nii.gz", "P001/lesion_seg.nii.gz")),
    ),
    "in a folder whose name says label": (
        files("segmentation_data/case{0}/{1}.nii.gz", THREE, ("ct", "seg")),
        (
            "case001",
            (
                "segmentation_data/case001/ct.nii.gz",
                "segmentation_data/case001/seg.nii.gz",
            ),
        ),
    ),
    "letters of any script": (
        files("{0}/пациент{1}.nii.gz", ("снимки", "masks"), THREE),
        (
            "пациент001",
            ("снимки/пациент001.nii.gz", "masks/пациент001.nii.gz"),
        ),
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_the_field_is_read(tmp_path: Path, name: str) -> None:
    paths, (case, expected) = TREES[name]
    root = a_tree(tmp_path / "set", *paths)
    listing = listed(root)
    assert listing.faults == []
    assert listing.warnings == []
    assert listing.recognised
    pairs = pairs_of(root)
    assert pairs[case] == expected
    used = {path for each in pairs.values() for path in each}
    assert used == set(paths)


def test_hidden_files_and_those_of_macos_are_ignored(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("p{0}{1}.nii.gz", THREE, ("", "_seg")),
        "__MACOSX/._p001.nii.gz",
        "__MACOSX/p009_seg.nii.gz",
        ".DS_Store",
        "._p001.nii.gz",
    )
    listing = listed(root)
    assert len(listing.cases) == 3
    assert listing.faults == listing.warnings == []


# --- channels -----------------------------------------------------------------------------


def test_channels_are_named_after_what_tells_the_images_apart(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path, *files("P{0}/P{0}_{1}.nii.gz", THREE, (*BRATS, "seg"))
    )
    assert listed(root).channel_names == BRATS
    chosen = (ChannelSpec(name="T2"), ChannelSpec(name="flair"))
    case = listed(root, channels=chosen).cases[0]
    assert [image.name for image in case.images] == [
        "P001_t2.nii.gz",
        "P001_flair.nii.gz",
    ]


def test_a_case_without_a_channel_of_the_others_is_a_fault(
    tmp_path: Path,
) -> None:
    paths = files("P{0}/P{0}_{1}.nii.gz", THREE, (*BRATS, "seg"))
    paths.remove("P002/P002_t1ce.nii.gz")
    listing = listed(a_tree(tmp_path, *paths))
    (fault,) = listing.faults
    assert fault.where == "P002"
    assert "t1ce" in fault.detail
    assert len(listing.cases) == 2


def test_images_with_labels_of_their_own_in_one_folder_are_chosen(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path,
        *files("P{0}/{1}_{2}.nii.gz", THREE, ("CT", "MR"), ("image", "mask")),
    )
    with pytest.raises(DatasetError, match="--channel NAME") as caught:
        listed(root)
    assert "CT, MR" in str(caught.value)
    chosen = pairs_of(root, channels=(ChannelSpec(name="MR"),))
    assert chosen["P001"] == ("P001/MR_image.nii.gz", "P001/MR_mask.nii.gz")
    both = pairs_of(
        root, channels=(ChannelSpec(name="CT"), ChannelSpec(name="MR"))
    )
    assert both["P001"] == (
        "P001/CT_image.nii.gz",
        "P001/MR_image.nii.gz",
        "P001/CT_mask.nii.gz",
    )


# --- masks --------------------------------------------------------------------------------


def test_a_folder_of_masks_is_the_label_of_its_case(tmp_path: Path) -> None:
    organs = ("liver", "spleen", "kidney_left")
    root = a_tree(
        tmp_path,
        *files("s0{0}/ct.nii.gz", THREE),
        *files("s0{0}/segmentations/{1}.nii.gz", THREE, organs),
    )
    (root / "s0002/segmentations/spleen.nii.gz").unlink()
    listing = listed(root)
    assert listing.channel_names == ("ct",)
    assert listing.label_names == {1: "kidney_left", 2: "liver", 3: "spleen"}
    counts = [
        len(case.label_source.paths)
        for case in listing.cases
        if case.label_source
    ]
    assert counts == [3, 2, 3]
    assert any("spleen in 1" in warning for warning in listing.warnings)
    assert any("fewest voxels" in text for text in listing.recognised)
    one = listed(root, labels={"liver": 7})
    assert all(
        case.label_source is not None and len(case.label_source.paths) == 1
        for case in one.cases
    )


def test_folders_of_masks_may_be_called_like_images(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("images/{0}.nii.gz", THREE),
        *files("labels/{0}/{1}.nii.gz", THREE, ("liver", "spleen")),
    )
    listing = listed(root)
    assert listing.label_names == {1: "liver", 2: "spleen"}
    assert [case.name for case in listing.cases] == list(THREE)


def test_masks_of_single_nuclei_are_no_structures(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("{0}/images/{0}.png", THREE),
        *files("{0}/masks/{0}x{1}.png", THREE, "abcde"),
    )
    with pytest.raises(DatasetError, match="15 labels have no image"):
        listed(root)


# --- splits and groups --------------------------------------------------------------------

SPLITS = {
    "part/images": "{0}/{1}/{0}{2}.png",
    "images/part": "{1}/{0}/{0}{2}.png",
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_kept_as_folds(tmp_path: Path, name: str) -> None:
    root = a_tree(
        tmp_path,
        *files(SPLITS[name], ("train", "val"), ("images", "labels"), THREE),
    )
    spec = a_spec(folds=2)
    found = find_cases(root, spec)
    training, validation = split_cases(found.cases, spec.data, 0)
    assert [case.name for case in training] == [
        "train001",
        "train002",
        "train003",
    ]
    assert [case.name for case in validation] == ["val001", "val002", "val003"]
    assert any("split is kept" in text for text in listed(root).recognised)


def test_of_the_versions_of_cityscapes_and_voc_classes_are_the_labels(
    tmp_path: Path,
) -> None:
    parts = ("train", "val")
    versions = ("color", "instanceIds", "labelIds")
    cities = a_tree(
        tmp_path / "cities",
        *files("leftImg8bit/{0}/ulm/{0}_{1}_leftImg8bit.png", parts, THREE),
        *files("gtFine/{0}/ulm/{0}_{1}_gtFine_{2}.png", parts, THREE, versions),
    )
    pairs = pairs_of(cities)
    assert pairs["val_001_leftImg8bit"] == (
        "leftImg8bit/val/ulm/val_001_leftImg8bit.png",
        "gtFine/val/ulm/val_001_gtFine_labelIds.png",
    )
    assert {case.fields["fold"] for case in listed(cities).cases} == {0, 1}
    voc = a_tree(
        tmp_path / "voc",
        *files("JPEGImages/{0}.jpg", (*THREE, "009")),
        *files(
            "{0}/{1}.png", ("SegmentationClass", "SegmentationObject"), THREE
        ),
    )
    assert pairs_of(voc)["001"] == (
        "JPEGImages/001.jpg",
        "SegmentationClass/001.png",
    )


def test_a_test_set_is_left_out_and_said(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files(
            "{0}/{1}/{0}{2}.png",
            ("train", "test"),
            ("images", "masks"),
            THREE,
        ),
    )
    listing = listed(root)
    assert [case.name for case in listing.cases] == [
        f"train{number}" for number in THREE
    ]
    assert any("left out" in text for text in listing.recognised)


def test_camvid_is_read_with_its_own_suffix_and_split(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("{0}/{0}_{1}.png", ("train", "val"), THREE),
        *files("{0}_labels/{0}_{1}_L.png", ("train", "val"), THREE),
        "class_dict.csv",
    )
    assert pairs_of(root)["val_002"] == (
        "val/val_002.png",
        "val_labels/val_002_L.png",
    )
    folds = {case.fields["fold"] for case in listed(root).cases}
    assert folds == {0, 1}


def test_the_validation_set_of_amos_is_a_fold(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("images{0}/amos_{0}{1}.nii.gz", ("Tr", "Va", "Ts"), THREE),
        *files("labels{0}/amos_{0}{1}.nii.gz", ("Tr", "Va"), THREE),
    )
    listing = listed(root)
    folds = {case.name: case.fields["fold"] for case in listing.cases}
    assert folds["amos_Tr001"] == 1
    assert folds["amos_Va001"] == 0
    assert len(folds) == 6
    assert any("3 of 15 image files" in text for text in listing.warnings)


def test_frames_of_a_patient_are_cases_of_one_group(tmp_path: Path) -> None:
    roles = ("4d", "frame01", "frame01_gt", "frame12", "frame12_gt")
    root = a_tree(
        tmp_path, *files("patient{0}/patient{0}_{1}.nii.gz", THREE, roles)
    )
    found = find_cases(root, a_spec())
    assert [case.name for case in found.cases][:2] == [
        "patient001_frame01",
        "patient001_frame12",
    ]
    assert {case.group for case in found.cases} == {
        "patient001",
        "patient002",
        "patient003",
    }
    (warning,) = found.warnings
    assert "3 of 15 image files are not used" in warning
    assert "patient001_4d.nii.gz" in warning


def test_examinations_of_a_patient_stay_together(tmp_path: Path) -> None:
    brats = a_tree(
        tmp_path / "brats",
        *files(
            "BraTS-GLI-00{0}-{1}/BraTS-GLI-00{0}-{1}-{2}.nii.gz",
            THREE,
            ("000", "001"),
            ("t1c", "seg"),
        ),
    )
    visits = a_tree(
        tmp_path / "visits",
        *files("P{0}/visit{1}/{2}.nii.gz", THREE, ("1", "2"), ("t1", "seg")),
    )
    for root in (brats, visits):
        cases = find_cases(root, a_spec()).cases
        assert len(cases) == 6
        assert len({case.group for case in cases}) == 3


def test_classes_of_pictures_are_no_patients(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files(
            "{0}/{0} ({1}){2}.png",
            ("benign", "malignant"),
            "123",
            ("", "_mask"),
        ),
        "benign/benign (1)_mask_1.png",
    )
    cases = find_cases(root, a_spec()).cases
    assert len(cases) == len({case.group for case in cases}) == 6


# --- doubt --------------------------------------------------------------------------------


def test_two_labels_of_each_case_are_refused_with_both_and_a_way_out(
    tmp_path: Path,
) -> None:
    beside = a_tree(
        tmp_path / "beside",
        *files("P{0}/P{0}_{1}.nii.gz", THREE, ("t1", "seg", "mask")),
    )
    apart = a_tree(
        tmp_path / "apart",
        *files("{0}/{1}.png", ("images", "masks", "annotations"), THREE),
    )
    eyes = a_tree(
        tmp_path / "eyes",
        *files("training/images/{0}_training.tif", THREE),
        *files("training/1st_manual/{0}_manual1.png", THREE),
        *files("training/mask/{0}_training_mask.png", THREE),
    )
    for root, patterns in (
        (beside, ("*_mask.*", "*_seg.*")),
        (apart, ("**/annotations/**", "**/masks/**")),
        (eyes, ("**/1st_manual/**", "**/mask/**")),
    ):
        with pytest.raises(DatasetError, match="--labels PATTERN") as caught:
            listed(root)
        for pattern in patterns:
            assert pattern in str(caught.value)
            assert pattern not in caught.value.message
            cases = listed(root, label_pattern=pattern).cases
            assert len(cases) == 3


def test_another_mask_beside_the_label_is_said_and_not_used(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path, *files("P{0}/{1}.nii.gz", THREE, ("t1", "brainmask", "seg"))
    )
    listing = listed(root)
    assert [case.label.name for case in listing.cases] == ["seg.nii.gz"] * 3
    assert listing.faults == []
    assert "brainmask" in listing.warnings[0]


def test_scans_without_a_label_are_said_and_labels_without_a_scan_are_faults(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path,
        *files("case{0}/{1}.nii.gz", THREE, ("imaging", "segmentation")),
        "case009/imaging.nii.gz",
        "case010/segmentation.nii.gz",
    )
    listing = listed(root)
    assert len(listing.cases) == 3
    assert "case009/imaging.nii.gz" in listing.warnings[0]
    assert [fault.where for fault in listing.faults] == ["case010/segmentation"]


def test_what_is_not_recognised_is_shown_with_what_is_missing(
    tmp_path: Path,
) -> None:
    many = [f"{number:03d}" for number in range(40)]
    images = a_tree(tmp_path / "images", *files("a/b/{0}.png", many))
    with pytest.raises(DatasetError) as caught:
        listed(images)
    text = str(caught.value)
    assert "a/\n    b/\n      000.png" in text
    assert "and 37 more files" in text
    few = a_tree(tmp_path / "few", *files("{0}.png", many[:4]))
    with pytest.raises(DatasetError, match="and 1 more file\n"):
        listed(few)
    assert "none is called a label" in text
    assert "--draft-csv" in text
    others = a_tree(tmp_path / "others", "notes.txt", "more/scan.xyz")
    with pytest.raises(DatasetError, match="none of its files is an image"):
        listed(others)


def test_nothing_that_is_recorded_of_one_case_holds_its_name(
    tmp_path: Path,
) -> None:
    trees = (
        ("anna.nii.gz", "seg.nii.gz"),
        ("anna.nii.gz", "anna_seg.nii.gz"),
        ("anna_images/1.png", "anna_labels/1.png"),
        ("anna/ct.nii.gz", "anna/seg.nii.gz"),
    )
    for number, paths in enumerate(trees):
        listing = listed(a_tree(tmp_path / f"{number}", *paths))
        assert len(listing.cases) == 1
        recorded = (*listing.recognised, *listing.channel_names)
        assert "anna" not in " ".join(recorded)


def test_results_of_medseg_among_the_data_are_passed_over(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path,
        *files("p{0}{1}.nii.gz", THREE, ("", "_seg")),
        *files("results/p{0}.nii.gz", THREE),
        "results/ledger.jsonl",
        "results/previews/p001.png",
    )
    listing = listed(root)
    assert len(listing.cases) == 3
    assert listing.faults == listing.warnings == []


def test_the_longer_of_two_names_has_the_images_that_both_begin(
    tmp_path: Path,
) -> None:
    root = a_tree(
        tmp_path,
        *files("x{0}_{1}.nii.gz", ("", "_1", "_2"), ("t1", "t2", "seg")),
    )
    pairs = pairs_of(root)
    assert pairs["x"] == ("x_t1.nii.gz", "x_t2.nii.gz", "x_seg.nii.gz")
    assert pairs["x_2"][0] == "x_2_t1.nii.gz"


def test_a_list_of_amos_is_read_as_it_is(tmp_path: Path) -> None:
    root = a_tree(
        tmp_path,
        *files("{0}Tr/amos_{1}.nii.gz", ("images", "labels"), THREE),
        "imagesTs/amos_009.nii.gz",
    )
    training = [
        {
            "image": f"./imagesTr/amos_{number}.nii.gz",
            "label": f"./labelsTr/amos_{number}.nii.gz",
        }
        for number in THREE
    ]
    content = {
        "name": "AMOS",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "numTraining": 3,
        "training": training,
        "test": ["./imagesTs/amos_009.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(content))
    listing = listed(root)
    assert listing.layout == "msd"
    assert len(listing.cases) == 3
    assert listing.faults == listing.warnings == []
