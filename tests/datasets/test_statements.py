"""What a data set says of its labels and channels must be what the bundle says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec
from support.datasets import an_item, an_msd_list, touch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import CaseList, find_cases
from medseg.datasets.statements import find_standing


def a_bundle(
    labels: Mapping[str, Any] | None = None, **more: Any
) -> BundleSpec:
    """Return a bundle with these labels, name → value."""
    fields: list[dict[str, Any]] = []
    named = labels or {"liver": 1, "kidney": 2}
    for index, (name, value) in enumerate(named.items(), start=1):
        fields.append({"index": index, "name": name, "value": value})
    return made_spec(labels=fields, **more)


def found(
    tmp_path: Path, spec: BundleSpec, trust: bool = False, **listing: Any
) -> CaseList:
    """Return the cases of a data set whose ``dataset.json`` says this."""
    an_msd_list(tmp_path, [an_item("a")], **listing)
    return find_cases(tmp_path, spec, trust_values=trust)


def faults(cases: CaseList, present: tuple[int, ...] = ()) -> list[str]:
    standing = find_standing(cases.contradictions, present)
    return [f"{fault.where}: {fault.what}" for fault in standing]


SWAPPED = [
    {"0": "background", "1": "kidney", "2": "liver"},
    {"background": 0, "kidney": 1, "liver": 2},
    {"background": 0, "Kidney ": [1], "LIVER": "2"},
    {"kidney": 1.0, "liver": 2.0},
]


@pytest.mark.parametrize("labels", SWAPPED)
def test_the_same_names_in_another_order_are_a_fault_that_names_both(
    tmp_path: Path, labels: dict[str, Any]
) -> None:
    cases = found(tmp_path, a_bundle(), labels=labels)
    (fault,) = faults(cases, present=(1, 2))
    assert fault.startswith("labels: ")
    assert "kidney = 1, liver = 2" in fault
    assert "liver = 1" in fault
    assert "--trust-values" in fault
    trusted = found(tmp_path, a_bundle(), trust=True, labels=labels)
    assert trusted.contradictions == ()


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "liver", "2": "kidney"},
        {"background": 0, "Liver": 1, "KIDNEY": 2},
        {"liver": 1},
        {"liver": 1, "kidney": 2, "spleen": 3},
        {"liver": 1, "kidney": 2, "ignore": 9},
        {},
        {"1": {"name": "liver"}},
    ],
)
def test_what_agrees_is_not_mentioned(
    tmp_path: Path, labels: dict[str, Any]
) -> None:
    spec = a_bundle(data={"ignore": 9})
    cases = found(tmp_path, spec, labels=labels)
    assert (cases.contradictions, cases.warnings) == ((), ())


def test_one_name_with_another_value_is_a_fault(tmp_path: Path) -> None:
    labels = {"liver": 1, "spleen": 2, "kidney": 3}
    (fault,) = faults(found(tmp_path, a_bundle(), labels=labels), (1, 2))
    assert "the data set has kidney = 3, and the bundle kidney = 2" in fault


def test_background_elsewhere_is_a_fault(tmp_path: Path) -> None:
    spec = a_bundle({"liver": 1})
    (fault,) = faults(
        found(tmp_path, spec, labels={"0": "liver", "1": "background"}), (1,)
    )
    assert "liver = 0" in fault
    assert "background = 1" in fault
    only = found(tmp_path, spec, labels={"0": "liver"})
    assert len(faults(only, (1,))) == 1


def test_sides_are_told_apart_however_they_are_written(tmp_path: Path) -> None:
    spec = a_bundle({"left kidney": 1, "right kidney": 2})
    same = {"Kidney_L": 1, "RightKidney": 2}
    assert found(tmp_path, spec, labels=same).contradictions == ()
    swapped = {"kidney (right)": 1, "Left-Kidney": 2}
    assert len(faults(found(tmp_path, spec, labels=swapped), (1, 2))) == 1


def test_label_files_settle_what_is_only_numbered_from_elsewhere(
    tmp_path: Path,
) -> None:
    cases = found(tmp_path, a_bundle({"liver": 255}), labels={"1": "liver"})
    assert faults(cases, present=(1,)) == []
    (fault,) = faults(cases)
    assert "liver = 1, and the bundle liver = 255" in fault


def test_several_values_of_a_label_may_be_named_in_part(tmp_path: Path) -> None:
    spec = a_bundle({"myelin": [127, 128], "axon": 255})
    named = {"myelin": 127, "axon": 255}
    assert found(tmp_path, spec, labels=named).contradictions == ()
    swapped = {"myelin": 255, "axon": 127}
    assert len(faults(found(tmp_path, spec, labels=swapped), (1, 2))) == 1


def test_regions_are_compared_as_wholes(tmp_path: Path) -> None:
    regions = [
        {"name": "whole tumor", "labels": ["edema", "core"]},
        {"name": "tumor core", "labels": ["core"]},
    ]
    spec = a_bundle({"edema": 1, "core": 2}, regions=regions)
    same = {"background": 0, "Whole Tumour": [1, 2], "tumor_core": [2]}
    assert found(tmp_path, spec, labels=same).contradictions == ()
    other = {"whole tumor": [1, 2], "tumor core": [1]}
    (fault,) = faults(found(tmp_path, spec, labels=other), (1, 2))
    assert "tumor core = 1, and the bundle tumor core = 2" in fault
    plain = a_bundle({"whole tumor": 1})
    (fault,) = faults(found(tmp_path, plain, labels=same), (1,))
    assert "whole tumor = 1 + 2" in fault


def test_a_value_of_another_name_is_a_warning_unless_both_share_a_word(
    tmp_path: Path,
) -> None:
    cases = found(tmp_path, a_bundle(), labels={"1": "spleen", "2": "kidney"})
    (warning,) = cases.warnings
    assert "1 is 'spleen' there and 'liver' here" in warning
    similar = {"1": "liver lesion", "2": "Kidneys", "3": "label_3"}
    spec = a_bundle({"liver": 1, "kidney": 2, "spleen": 3})
    assert found(tmp_path, spec, labels=similar).warnings == ()
    sides = a_bundle({"left kidney": 1})
    (warning,) = found(tmp_path, sides, labels={"1": "right kidney"}).warnings
    assert "'right kidney' there" in warning


def test_a_label_that_the_data_leave_unlabelled_is_a_fault(
    tmp_path: Path,
) -> None:
    labels = {"liver": 1, "ignore": 2}
    (fault,) = faults(found(tmp_path, a_bundle(), labels=labels), (1, 2))
    assert fault.startswith("data.ignore: the value 2")
    assert "kidney" in fault


# --- channels -----------------------------------------------------------------------------


def with_channels(*names: str, modality: str = "MR") -> BundleSpec:
    return made_spec(
        channels=[{"name": name, "modality": modality} for name in names]
    )


def found_nnunet(
    tmp_path: Path, spec: BundleSpec, names: Any, key: str = "channel_names"
) -> CaseList:
    content = {"labels": {"liver": 1}, "file_ending": ".nii.gz", key: names}
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    for number in range(len(spec.channels)):
        touch(tmp_path / "imagesTr" / f"a_{number:04d}.nii.gz")
    touch(tmp_path / "labelsTr" / "a.nii.gz")
    return find_cases(tmp_path, spec)


def test_channels_in_another_order_are_a_fault_that_names_both(
    tmp_path: Path,
) -> None:
    spec = with_channels("FLAIR", "T1")
    cases = found_nnunet(tmp_path, spec, {"0": "T1w", "1": "flair"})
    (fault,) = faults(cases, (1, 2))
    assert fault.startswith("channels: the data set has the channels T1, FLAIR")
    assert "the bundle FLAIR, T1" in fault
    (contradiction,) = cases.contradictions
    assert contradiction.fault.detail == "its names are T1w, flair"


@pytest.mark.parametrize(
    "names",
    [
        {"0": "FLAIR", "1": "T1w"},
        {"0": "t2f", "1": "t1n"},
        {"1": "T1", "0": "T2-FLAIR"},
        {"0": "zscore", "1": "noNorm"},
        {"0": "MRI", "1": "MRI"},
        {"0": "nonCT", "1": "rescale_to_0_1"},
        {"0": "FLAIR"},
        "MRI",
        7,
    ],
)
def test_other_words_for_the_same_channels_are_not_mentioned(
    tmp_path: Path, names: Any
) -> None:
    cases = found_nnunet(tmp_path, with_channels("FLAIR", "T1"), names)
    assert (cases.contradictions, cases.warnings) == ((), ())


@pytest.mark.parametrize("names", [{"0": "MRI"}, "MRI", ["T1w"]])
def test_another_modality_is_a_fault(tmp_path: Path, names: Any) -> None:
    spec = with_channels("CT", modality="CT")
    (fault,) = faults(found_nnunet(tmp_path, spec, names, "modality"))
    assert fault.startswith("channels.0: ")
    assert "channel 1 is MR" in fault
    assert "the bundle's 'CT' is CT" in fault
    unsaid = with_channels("CT", modality="OT")
    assert len(faults(found_nnunet(tmp_path, unsaid, names, "modality"))) == 1


def test_another_sequence_is_a_fault_and_contrast_a_warning(
    tmp_path: Path,
) -> None:
    (fault,) = faults(found_nnunet(tmp_path, with_channels("FLAIR"), ["T1w"]))
    assert "channel 1 is T1, and the bundle's 'FLAIR' is FLAIR" in fault
    cases = found_nnunet(tmp_path, with_channels("T1"), {"0": "t1gd"})
    assert cases.contradictions == ()
    (warning,) = cases.warnings
    assert "'t1gd' is T1 with contrast" in warning


def test_the_modality_of_a_listed_case_is_compared(tmp_path: Path) -> None:
    items = [an_item("a", modality="CT"), an_item("b", modality="MRI")]
    an_msd_list(tmp_path, [*items, an_item("c")])
    spec = with_channels("CT", modality="CT")
    cases = find_cases(tmp_path, spec)
    assert [case.name for case in cases.cases] == ["a", "c"]
    (fault,) = cases.faults
    assert fault.where == "b"
    assert "says that it is MR" in fault.what
    trusted = find_cases(tmp_path, spec, trust_values=True)
    assert trusted.faults == ()


def test_a_csv_list_is_compared_like_any_other(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz", tmp_path / "a_seg.nii.gz")
    (tmp_path / "cases.csv").write_text(
        "image,label,modality\na.nii.gz,a_seg.nii.gz,PET\n"
    )
    spec = with_channels("CT", modality="CT")
    (fault,) = find_cases(tmp_path, spec).faults
    assert "says that it is PT" in fault.what


# --- BIDS ---------------------------------------------------------------------------------


def a_bids_set(root: Path, *suffixes: str) -> Path:
    touch(root / "dataset_description.json")
    for suffix in suffixes:
        touch(root / "sub-1" / "anat" / f"sub-1_{suffix}.nii.gz")
    derived = root / "derivatives" / "manual"
    touch(derived / "sub-1" / "anat" / "sub-1_dseg.nii.gz")
    table = derived / "dseg.tsv"
    table.write_text("index\tname\n1\tKidney\n2\tliver\n")
    return root


def test_the_names_of_a_dseg_table_are_compared(tmp_path: Path) -> None:
    root = a_bids_set(tmp_path, "T1w")
    spec = a_bundle(channels=[{"name": "T1", "modality": "MR"}])
    cases = find_cases(root, spec)
    assert len(cases.cases) == 1
    (fault,) = faults(cases, (1, 2))
    assert "kidney = 1, liver = 2" in fault
    right = a_bundle({"kidney": 1, "liver": 2}, channels=spec.channels)
    cases = find_cases(root, right)
    assert (cases.contradictions, cases.warnings) == ((), ())


def test_bids_channels_are_taken_by_any_word_for_them(tmp_path: Path) -> None:
    root = a_bids_set(tmp_path, "T1w", "FLAIR", "T2w")
    labels = {"kidney": 1, "liver": 2}
    channels = [{"name": "T2", "modality": "MR"}, {"name": "t1"}]
    cases = find_cases(root, a_bundle(labels, channels=channels))
    (case,) = cases.cases
    names = [file.name for file in case.scan.files]
    assert names == ["sub-1_T2w.nii.gz", "sub-1_T1w.nii.gz"]
    assert (cases.contradictions, cases.warnings) == ((), ())


def test_a_bids_set_of_another_sequence_is_a_fault(tmp_path: Path) -> None:
    root = a_bids_set(tmp_path, "T1w")
    labels = {"kidney": 1, "liver": 2}
    spec = a_bundle(labels, channels=[{"name": "FLAIR", "modality": "MR"}])
    (fault,) = faults(find_cases(root, spec), (1, 2))
    assert "channel 1 is T1" in fault


# --- trees --------------------------------------------------------------------------------


def test_channels_of_a_tree_are_taken_by_any_word_for_them(
    tmp_path: Path,
) -> None:
    for case in ("BraTS20_001", "BraTS20_002"):
        for suffix in ("flair", "t1", "t1ce", "t2", "seg"):
            touch(tmp_path / case / f"{case}_{suffix}.nii.gz")
    spec = with_channels("T1w", "T1c", "FLAIR")
    cases = find_cases(tmp_path, spec)
    files = [file.name for file in cases.cases[0].scan.files]
    ends = [name.rsplit("_")[-1] for name in files]
    assert ends == ["t1.nii.gz", "t1ce.nii.gz", "flair.nii.gz"]
    assert cases.contradictions == ()
