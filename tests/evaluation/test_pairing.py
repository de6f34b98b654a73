from __future__ import annotations

from pathlib import Path

import pytest

from medseg.datasets.cases import Scan
from medseg.errors import DatasetError
from medseg.evaluation.pairing import (
    Pairing,
    pair_predictions,
    pair_with_scans,
)


def folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_bytes(b"")
    return path


def pair(
    tmp_path: Path, predictions: list[str], references: list[str]
) -> Pairing:
    return pair_predictions(
        folder(tmp_path / "p", *predictions),
        folder(tmp_path / "r", *references),
    )


def names(pairing: Pairing) -> list[tuple[str, str, str]]:
    return [
        (pair.case, pair.prediction.name, pair.reference.name)
        for pair in pairing.pairs
    ]


def test_equal_names_belong_together_whatever_their_format(tmp_path):
    found = pair(tmp_path, ["b.nii.gz", "a.nii.gz"], ["a.nrrd", "b.nii.gz"])
    assert names(found) == [
        ("a", "a.nii.gz", "a.nrrd"),
        ("b", "b.nii.gz", "b.nii.gz"),
    ]
    assert not found.faults
    assert not found.without_reference


@pytest.mark.parametrize(
    "addition", ["_seg", "-mask", "_label_v2", ".gt", " manual"]
)
def test_one_name_may_go_on_after_the_other(tmp_path, addition):
    longer = f"case_1{addition}.nii.gz"
    assert names(pair(tmp_path / "1", ["case_1.nii.gz"], [longer])) == [
        ("case_1", "case_1.nii.gz", longer)
    ]
    assert names(pair(tmp_path / "2", [longer], ["case_1.nii.gz"])) == [
        ("case_1", longer, "case_1.nii.gz")
    ]


def test_channel_number_of_an_image_is_no_part_of_the_case(tmp_path):
    found = pair(tmp_path, ["liver_7_0000.nii.gz"], ["liver_7.nii.gz"])
    assert names(found) == [
        ("liver_7", "liver_7_0000.nii.gz", "liver_7.nii.gz")
    ]


@pytest.mark.parametrize("images", ["images", "imagesTr", "imagesTs"])
def test_the_folder_of_a_data_set_is_no_part_of_the_case(tmp_path, images):
    found = pair(
        tmp_path,
        [f"{images}_c7.nii.gz", f"{images}_c8.nii.gz"],
        ["c7.mha", "c8.mha"],
    )
    assert names(found) == [
        (c, f"{images}_{c}.nii.gz", f"{c}.mha") for c in ("c7", "c8")
    ]
    both = pair(
        tmp_path / "both",
        ["imagesTr_a.nii.gz", "imagesTs_a.nii.gz", "b.nii.gz"],
        ["a.mha", "b.mha"],
    )
    assert [case for case, _, _ in names(both)] == ["b"]


@pytest.mark.parametrize(
    "other", ["case_10", "case_1_2", "case_1b", "case_1_0001", "xcase_1"]
)
def test_another_case_is_not_taken_for_it(tmp_path, other):
    found = pair(
        tmp_path, ["a.nii.gz", "case_1.nii.gz"], ["a.nii.gz", f"{other}.nii.gz"]
    )
    assert [case for case, _, _ in names(found)] == ["a"]
    assert found.without_reference == ("case_1",)
    assert [fault.where for fault in found.faults] == [other]


def test_an_equal_name_wins_over_a_longer_one(tmp_path):
    found = pair(tmp_path, ["a.nii.gz", "a_liver.nii.gz"], ["a.nii.gz"])
    assert names(found) == [("a", "a.nii.gz", "a.nii.gz")]
    assert found.without_reference == ("a_liver",)


def test_two_possible_partners_are_none(tmp_path):
    found = pair(
        tmp_path,
        ["a.nii.gz", "b.nii.gz"],
        ["a_left.nii.gz", "a_right.nii.gz", "b.nii"],
    )
    assert [case for case, _, _ in names(found)] == ["b"]
    assert [fault.where for fault in found.faults] == ["a_left", "a_right"]
    assert "not certain" in found.faults[0].what
    assert str(found.faults[0]).endswith("(candidates: a)")
    assert found.without_reference == ("a",)


def test_a_missing_prediction_is_a_fault(tmp_path):
    found = pair(tmp_path, ["a.nii.gz"], ["a.nii.gz", "b.nii.gz"])
    assert [str(fault) for fault in found.faults] == [
        "b: has no prediction; segment its scan, or rename its file"
    ]


def test_of_several_formats_the_same_one_is_compared(tmp_path):
    found = pair(
        tmp_path,
        ["a.nii.gz", "a.png", "b.png", "b.nrrd"],
        ["a.nii.gz", "b.nii.gz"],
    )
    assert names(found) == [("a", "a.nii.gz", "a.nii.gz")]
    assert found.faults[0].detail == "b.nrrd, b.png"


def test_what_is_no_label_map_is_not_looked_at(tmp_path):
    found = pair(
        tmp_path,
        [
            "a.nii.gz",
            "ledger.jsonl",
            "volumes.csv",
            "report.html",
            "._a.nii.gz",
            ".part-x.nii.gz",
        ],
        ["a.nii.gz", "README.md"],
    )
    assert names(found) == [("a", "a.nii.gz", "a.nii.gz")]
    assert not found.without_reference


@pytest.mark.parametrize("inside", ["labelsTr", "labels"])
def test_a_dataset_folder_is_a_reference(tmp_path, inside):
    folder(tmp_path / "data", "dataset.json")
    folder(tmp_path / "data" / "imagesTr", "a.nii.gz", "b.nii.gz")
    folder(tmp_path / "data" / inside, "a.nii.gz")
    found = pair_predictions(
        folder(tmp_path / "p", "a.nii.gz"), tmp_path / "data"
    )
    assert found.pairs[0].reference == tmp_path / "data" / inside / "a.nii.gz"


def test_two_files_are_one_pair(tmp_path):
    folder(tmp_path, "result.nii.gz", "truth.nrrd")
    found = pair_predictions(
        tmp_path / "result.nii.gz", tmp_path / "truth.nrrd"
    )
    assert names(found) == [("result", "result.nii.gz", "truth.nrrd")]


def test_nothing_to_compare(tmp_path):
    with pytest.raises(
        DatasetError, match=r"no prediction has the name of a reference"
    ) as caught:
        pair(tmp_path, ["a.nii.gz"], ["b.nii.gz"])
    assert [fault.where for fault in caught.value.faults] == ["b"]
    with pytest.raises(DatasetError, match="holds no label maps"):
        pair_predictions(folder(tmp_path / "empty"), tmp_path / "r")
    with pytest.raises(DatasetError, match="does not exist"):
        pair_predictions(tmp_path / "nowhere", tmp_path / "r")
    with pytest.raises(DatasetError, match="is a file"):
        pair_predictions(tmp_path / "p", tmp_path / "r" / "b.nii.gz")


def test_a_result_is_found_by_the_name_that_segment_made_of_it(tmp_path):
    results = ["case_7.nii.gz", "imagesTr_p_t_1.nii.gz"]
    found = pair(tmp_path, results, ["case 7.nii.gz", "pät 1.nii.gz"])
    assert [(p.prediction.name, p.reference.name) for p in found.pairs] == [
        ("case_7.nii.gz", "case 7.nii.gz"),
        ("imagesTr_p_t_1.nii.gz", "pät 1.nii.gz"),
    ]
    with pytest.raises(
        DatasetError, match="no prediction"
    ):  # one name of release 0.1.0 for two cases
        pair(
            tmp_path / "two", ["p_t_1.nii.gz"], ["pät 1.nii.gz", "pöt 1.nii.gz"]
        )


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("c.nii.gz", "c.seg.nrrd"),
        ("c.nii.gz", "c-label.nrrd"),
        ("c.nii.gz", "c_gt.nii.gz"),
        ("c_pred.nii.gz", "c_gt.nii.gz"),
        ("pred_c.nii.gz", "c-label.nii.gz"),
        ("img0001.nii.gz", "label0001.nii.gz"),
        ("img_img0001.nii.gz", "label0001.nii.gz"),
        ("image_001.png", "mask_001.png"),
        ("img0001_0000.nii.gz", "label0001.nii.gz"),
        ("肝_01.nii.gz", "肝 01.nii.gz"),
        ("肝_01.nii.gz", "肝_01_标签.nii.gz"),
        ("Mu\u0308ller.nii.gz", "Müller.nii.gz"),
        ("Müller.nii.gz", "Mu\u0308ller_seg.nii.gz"),
        ("imagesTr_Case_7.nii.gz", "case_7.mha"),
        ("M_ller.nii.gz", "Müller.nii.gz"),
        ("Mu_ller.nii.gz", "Mu\u0308ller.nii.gz"),
        ("_con.nii.gz", "con-label.nii.gz"),
        ("_con.nii.gz", "con.nii.gz"),
        ("con.nii.gz", "con_gt.nii.gz"),
    ],
)
def test_what_means_one_case_is_paired(tmp_path, prediction, reference):
    found = pair(
        tmp_path, ["other.nii.gz", prediction], ["other.nii.gz", reference]
    )
    files = [(p.prediction.name, p.reference.name) for p in found.pairs]
    assert (prediction, reference) in files
    assert not found.faults


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("img0001", "label0010"),
        ("img1", "label0001"),
        ("image_1_2", "mask_1"),
        ("masked_1", "1"),
        ("c_segmented", "c2_gt"),
        ("Мария", "Марина"),
        ("a", "ä"),
        ("mask", "label"),
        ("Müller", "Mäller"),
        ("M", "Müller"),
    ],
)
def test_what_may_mean_two_cases_is_not_paired(tmp_path, prediction, reference):
    found = pair(
        tmp_path,
        ["x.nii.gz", f"{prediction}.nii.gz"],
        ["x.nii.gz", f"{reference}.nii.gz"],
    )
    assert [case for case, _, _ in names(found)] == ["x"]
    assert [fault.where for fault in found.faults] == [reference]


def test_two_possible_partners_are_named(tmp_path):
    found = pair(
        tmp_path,
        ["x.nii.gz", "img_1.nii.gz", "pred_1.nii.gz"],
        ["x.nii.gz", "label_1.nii.gz"],
    )
    assert found.faults[0].detail == "candidates: img_1, pred_1"


def test_one_name_in_two_forms_of_unicode_is_refused(tmp_path):
    found = pair(
        tmp_path,
        ["x.nii.gz", "\u00e9.nii.gz", "e\u0301.nii.gz"],
        ["x.nii.gz", "\u00e9.nii.gz"],
    )
    assert [fault.where for fault in found.faults] == ["\u00e9"]
    assert "keep one" in found.faults[0].what


def test_label_maps_are_paired_with_scans_by_the_same_rules(tmp_path):
    scans = [
        Scan(name, ((tmp_path / f"{name}.nii.gz",),))
        for name in ("img0001", "Müller", "a_1", "a_2")
    ]
    label_maps = ["label0001", "Mu\u0308ller.seg", "a", "b"]
    found = pair_with_scans(
        folder(tmp_path, *(f"{name}.nrrd" for name in label_maps)), scans
    )
    assert [(file.name, scan.name) for file, scan in found.pairs] == [
        ("Mu\u0308ller.seg.nrrd", "Müller"),
        ("label0001.nrrd", "img0001"),
    ]
    assert found.without_prediction == ("a_1", "a_2")
    assert [fault.where for fault in found.faults] == ["a", "b"]
