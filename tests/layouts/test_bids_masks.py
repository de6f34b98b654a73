"""Several masks of one BIDS session: one label map, by the names in their ``label-`` entities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case, CaseList, find_cases
from medseg.datasets.integrity import check_cases, open_case
from medseg.errors import DatasetError, GeometryError, ScanError
from medseg.layouts import list_cases
from medseg.planning.fingerprint_cache import extract_fingerprint

SHAPE = (6, 5, 4)
MANUAL = "derivatives/manual"
WHERE = {
    "liver": np.s_[1:3, 1:3, :2],
    "kidney": np.s_[3:5, :2, 1:],
    "spleen": np.s_[:1, 3:, :],
}


def a_spec(*labels: str, **data: Any) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": "ct", "modality": "CT"}],
            "labels": [
                {"index": n, "name": name}
                for n, name in enumerate(labels, start=1)
            ],
            "data": data,
            "training": {"patch": [16, 16, 16]},
        }
    )


def write(
    file: Path, array: np.ndarray, affine: np.ndarray | None = None
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(array, np.eye(4) if affine is None else affine), file
    )
    return file


def mask_of(name: str) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[WHERE[name]] = 1
    return mask


def a_session(
    root: Path, subject: str, *names: str, more: str = ""
) -> list[Path]:
    """Write an image and a mask of each name; return the masks."""
    voxels = np.random.default_rng(int(subject)).random(SHAPE, np.float32)
    write(root / f"sub-{subject}/ct/sub-{subject}_ct.nii.gz", voxels)
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.9.0"}'
    )
    folder = root / MANUAL / f"sub-{subject}" / "ct"
    return [
        write(
            folder / f"sub-{subject}_label-{name}{more}_mask.nii.gz",
            mask_of(name),
        )
        for name in names
    ]


def the_case(root: Path, spec: BundleSpec) -> Case:
    found = find_cases(root, spec)
    assert found.faults == ()
    (case,) = found.cases
    return case


def test_masks_become_one_label_map_with_the_bundles_values(
    tmp_path: Path,
) -> None:
    a_session(tmp_path, "01", "liver", "kidney", more="_desc-x")
    spec = a_spec("Liver", "kidney")
    case = the_case(tmp_path, spec)
    assert case.name == "sub-01"
    assert [file.name[7:18] for file in case.label_files] == [
        "label-kidne",
        "label-liver",
    ]
    _, labels = open_case(case, spec)
    assert np.array_equal(labels, mask_of("liver") + 2 * mask_of("kidney"))
    assert check_cases([case], spec).labels == {1, 2}


def test_without_a_bundle_they_are_numbered_by_name(tmp_path: Path) -> None:
    a_session(tmp_path, "01", "liver", "kidney")
    a_session(tmp_path, "02", "spleen")
    found = list_cases(tmp_path, "auto")
    assert found.label_names == {1: "kidney", 2: "liver", 3: "spleen"}
    assert [dict(case.label_source.values) for case in found.cases] == [
        {"kidney": 1, "liver": 2},
        {"spleen": 3},
    ]
    (warning,) = found.warnings
    assert "kidney in 1 of 2, liver in 1 of 2, spleen in 1 of 2" in warning


def test_masks_that_the_bundle_does_not_name_are_background(
    tmp_path: Path,
) -> None:
    a_session(tmp_path, "01", "liver", "kidney", "spleen")
    spec = a_spec("spleen")
    assert np.array_equal(
        open_case(the_case(tmp_path, spec), spec)[1], mask_of("spleen")
    )
    (warning,) = find_cases(tmp_path, spec).warnings
    assert warning.endswith("count as background: kidney, liver")
    with pytest.raises(
        DatasetError, match="holds no mask with the name of one"
    ):
        find_cases(tmp_path, a_spec("brain"))
    a_session(tmp_path, "02", "liver")
    (fault,) = find_cases(tmp_path, spec).faults
    assert (
        str(fault) == "sub-02: has no mask of the labels (its masks are liver)"
    )


def test_overlapping_masks_are_refused_by_both_names(tmp_path: Path) -> None:
    liver, _ = a_session(tmp_path, "01", "liver", "kidney")
    write(liver, np.ones(SHAPE, np.uint8))
    both = a_spec("kidney", "liver")
    with pytest.raises(
        ScanError, match=r"two masks overlap in 12 voxels.*'kidney' and 'liver'"
    ):
        open_case(the_case(tmp_path, both), both)
    alone = a_spec("liver")
    assert open_case(the_case(tmp_path, alone), alone)[1].all()


def test_what_is_no_mask_or_lies_elsewhere_is_refused_by_its_file(
    tmp_path: Path,
) -> None:
    liver, _ = a_session(tmp_path, "01", "liver", "kidney")
    spec = a_spec("kidney", "liver")
    case = the_case(tmp_path, spec)
    write(liver, mask_of("liver") * 255)
    assert open_case(case, spec)[1].max() == 2
    write(liver, mask_of("liver") + 3 * mask_of("spleen"))
    with pytest.raises(
        ScanError, match=r"label-liver_mask.*holds 2 values besides 0"
    ):
        open_case(case, spec)
    write(liver, mask_of("liver"), np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(
        GeometryError, match=r"label-liver_mask.*a mask.* 3.00 mm apart"
    ):
        open_case(case, spec)
    write(liver, mask_of("liver")[:-1])
    with pytest.raises(
        GeometryError, match=r"\(6, 5, 4\) and \(5, 5, 4\) voxels"
    ):
        open_case(case, spec)


@pytest.mark.parametrize(
    "other",
    [
        "derivatives/auto/sub-01/ct/sub-01_label-spleen_mask.nii.gz",
        f"{MANUAL}/sub-01/ct/sub-01_label-spleen_desc-late_mask.nii.gz",
        f"{MANUAL}/sub-01/ct/sub-01_label-Liver_mask.nii.gz",
        f"{MANUAL}/sub-01/ct/sub-01_desc-brain_mask.nii.gz",
    ],
)
def test_masks_that_differ_in_more_than_their_label_have_to_be_chosen_from(
    tmp_path: Path, other: str
) -> None:
    a_session(tmp_path, "01", "liver", "kidney")
    write(tmp_path / other, mask_of("spleen"))
    (fault,) = find_cases(tmp_path, a_spec("liver", "kidney")).faults
    assert "has several label files" in fault.what
    assert "whose names differ in label- alone are one label map" in fault.what


def test_a_mask_without_a_label_beside_named_ones_is_a_fault(
    tmp_path: Path,
) -> None:
    a_session(tmp_path, "01", "liver", "kidney")
    (mask,) = a_session(tmp_path, "02", "liver")
    mask.rename(mask.with_name("sub-02_mask.nii.gz"))
    (fault,) = find_cases(tmp_path, a_spec("liver", "kidney")).faults
    assert fault.where == "sub-02"
    assert "has no label- in its name" in fault.what


def test_one_mask_a_session_of_one_label_is_a_label_file_as_it_is(
    tmp_path: Path,
) -> None:
    a_session(tmp_path, "01", "liver")
    (case,) = find_cases(tmp_path, a_spec("whatever it is")).cases
    assert case.label_source is None
    assert list_cases(tmp_path, "auto").label_names == {1: "liver"}


def test_masks_beside_label_maps_take_the_values_that_a_table_names(
    tmp_path: Path,
) -> None:
    a_session(tmp_path, "01", "liver", "kidney")
    a_session(tmp_path, "02")
    write(
        tmp_path / MANUAL / "sub-02/ct/sub-02_dseg.nii.gz",
        4 * mask_of("kidney"),
    )
    with pytest.raises(DatasetError, match=r"add a dseg\.tsv"):
        list_cases(tmp_path, "auto")
    (tmp_path / "dseg.tsv").write_text("index\tname\n4\tKidney\n")
    found = list_cases(tmp_path, "auto")
    assert found.label_names == {4: "Kidney", 5: "liver"}
    (masks,) = [case.label_source for case in found.cases if case.label_source]
    assert dict(masks.values) == {"kidney": 4, "liver": 5}


def test_a_fingerprint_knows_which_mask_is_which(tmp_path: Path) -> None:
    liver, kidney = a_session(tmp_path, "01", "liver", "kidney")
    spec = a_spec("kidney", "liver")
    sizes = []
    for _ in range(2):
        found = CaseList((the_case(tmp_path, spec),))
        fingerprint = extract_fingerprint(found, tmp_path / "seen")
        sizes.append(
            [
                fingerprint.find_label_statistics(value)[0].voxels
                for value in (1, 2)
            ]
        )
        liver.rename(tmp_path / "aside")
        kidney.rename(liver)
        (tmp_path / "aside").rename(kidney)
    assert sizes[0] == [
        int(mask_of(name).sum()) for name in ("kidney", "liver")
    ]
    assert sizes[1] == sizes[0][::-1]
