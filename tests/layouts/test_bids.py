"""BIDS data sets: which images belong to which label, and who stays together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.datasets import touch

from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.cases import find_cases
from medseg.datasets.folds import assign_folds
from medseg.datasets.integrity import check_cases
from medseg.errors import DatasetError
from medseg.layouts import list_cases
from medseg.layouts.bids import BidsLayout
from medseg.planning import read_description
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestBidsLayout(DatasetLayoutContract):
    layout = BidsLayout()
    channels = (ChannelSpec(name="T1w"),)

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        (root / "dataset_description.json").write_text(
            '{"Name": "x", "BIDSVersion": "1.9.0"}'
        )
        for name in names:
            touch(root / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
            touch(
                root
                / f"derivatives/manual/sub-{name}/anat/sub-{name}_dseg.nii.gz"
            )


MANUAL = "derivatives/manual"


def a_spec(*channels: str, **data: Any) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": name} for name in channels or ("T1w",)],
            "labels": [{"index": 1, "name": "lesion"}],
            "data": data,
            "training": {"patch": [16, 16, 16]},
        }
    )


def a_data_set(root: Path, *files: str) -> Path:
    for folder in (root, root / MANUAL):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset_description.json").write_text(
            json.dumps({"Name": "x"})
        )
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def two_subjects(root: Path) -> Path:
    """Subject 01 in two sessions, 02 in none; T1w and FLAIR each, and what is no scan."""
    stems = [
        "sub-01/ses-1/anat/sub-01_ses-1",
        "sub-01/ses-2/anat/sub-01_ses-2",
        "sub-02/anat/sub-02",
    ]
    images = [
        f"{stem}_{suffix}.nii.gz"
        for stem in stems
        for suffix in ("T1w", "FLAIR")
    ]
    labels = [
        f"{MANUAL}/{stem}_space-orig_desc-lesion_dseg.nii.gz" for stem in stems
    ]
    others = [
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.json",
        "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz",
        "sub-01/ses-1/dwi/sub-01_ses-1_dwi.nii.gz",
        "sourcedata/sub-01/anat/sub-01_ses-1_T1w.nii.gz",
        "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
        "derivatives/fmriprep/sub-02/anat/sub-02_desc-brain_mask.nii.gz",
        "participants.tsv",
    ]
    return a_data_set(root, *images, *labels, *others)


def test_every_labelled_session_is_a_case_and_a_subject_stays_together(
    tmp_path: Path,
) -> None:
    root = two_subjects(tmp_path)
    found = find_cases(root, a_spec("T1w", "FLAIR", folds=2))
    assert found.faults == ()
    assert found.warnings == ()
    assert [case.name for case in found.cases] == [
        "sub-01_ses-1",
        "sub-01_ses-2",
        "sub-02",
    ]
    assert [case.group for case in found.cases] == [
        "sub-01",
        "sub-01",
        "sub-02",
    ]
    first, second, third = assign_folds(found.cases, a_spec(folds=2).data)
    assert first == second != third
    case = found.cases[2]
    assert [part[0].name for part in case.scan.parts] == [
        "sub-02_T1w.nii.gz",
        "sub-02_FLAIR.nii.gz",
    ]
    assert (
        case.label
        == root
        / MANUAL
        / "sub-02/anat/sub-02_space-orig_desc-lesion_dseg.nii.gz"
    )


def test_the_bundle_chooses_its_channels_by_name(tmp_path: Path) -> None:
    root = two_subjects(tmp_path)
    (case, *_) = find_cases(root, a_spec("FLAIR")).cases
    assert [part[0].name for part in case.scan.parts] == [
        "sub-01_ses-1_FLAIR.nii.gz"
    ]
    assert list_cases(root, "auto").channel_names == ("FLAIR", "T1w")


def test_a_session_without_a_channel_is_named_and_a_rare_one_is_not_taken(
    tmp_path: Path,
) -> None:
    root = two_subjects(tmp_path)
    (root / "sub-02/anat/sub-02_FLAIR.nii.gz").unlink()
    (root / "sub-02/anat/sub-02_T2w.nii.gz").write_bytes(b"")
    found = list_cases(root, "bids")
    assert [fault.where for fault in found.faults] == ["sub-02"]
    assert "has no FLAIR (it has T1w, T2w)" in str(found.faults[0])
    assert "T2w" in found.warnings[0]
    both = find_cases(root, a_spec("T1w", "T2w"))
    assert [case.name for case in both.cases] == ["sub-02"]


def test_a_channel_that_half_of_the_sessions_have_is_not_taken(
    tmp_path: Path,
) -> None:
    files = [f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in (1, 2)]
    files += [f"{MANUAL}/sub-0{n}/anat/sub-0{n}_dseg.nii.gz" for n in (1, 2)]
    root = a_data_set(tmp_path, *files, "sub-01/anat/sub-01_T2w.nii.gz")
    assert list_cases(root, "auto").channel_names == ("T1w",)


def test_images_of_one_suffix_are_told_apart(tmp_path: Path) -> None:
    root = a_data_set(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_ce-gad_T1w.nii.gz",
        f"{MANUAL}/sub-01/anat/sub-01_dseg.nii.gz",
    )
    assert list_cases(root, "auto").channel_names == ("T1w", "ce-gad_T1w")


def test_runs_are_matched_and_what_is_not_certain_is_a_fault(
    tmp_path: Path,
) -> None:
    runs = [f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2)]
    root = a_data_set(
        tmp_path, *runs, f"{MANUAL}/sub-01/anat/sub-01_run-2_dseg.nii.gz"
    )
    (case,) = find_cases(root, a_spec()).cases
    assert (case.name, case.scan.parts[0][0].name) == (
        "sub-01_run-2",
        "sub-01_run-2_T1w.nii.gz",
    )
    (root / f"{MANUAL}/sub-01/anat/sub-01_run-2_dseg.nii.gz").rename(
        root / f"{MANUAL}/sub-01/anat/sub-01_dseg.nii.gz"
    )
    (fault,) = find_cases(root, a_spec()).faults
    assert "several images may be one channel" in fault.what
    assert "T1w: sub-01_run-1_T1w.nii.gz" in fault.detail


def test_labels_of_several_pipelines_have_to_be_chosen_from(
    tmp_path: Path,
) -> None:
    other = "derivatives/auto/sub-01/anat/sub-01_dseg.nii.gz"
    root = a_data_set(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        f"{MANUAL}/sub-01/anat/sub-01_dseg.nii.gz",
        other,
    )
    (fault,) = find_cases(root, a_spec()).faults
    assert "give the folder of one pipeline" in fault.what
    (case,) = find_cases(root / "derivatives/auto", a_spec()).cases
    assert case.label.name == "sub-01_dseg.nii.gz"
    assert case.label.parts[-4] == "auto"
    assert case.scan.parts[0][0] == root / "sub-01/anat/sub-01_T1w.nii.gz"


def test_half_of_a_pair_is_a_fault_only_where_the_image_is_missing(
    tmp_path: Path,
) -> None:
    root = a_data_set(
        tmp_path,
        "sub-01/ct/sub-01_ct.nii.gz",
        f"{MANUAL}/sub-01/ct/sub-01_dseg.nii.gz",
        f"{MANUAL}/sub-02/ct/sub-02_dseg.nii.gz",
        "sub-03/ct/sub-03_ct.nii.gz",
    )
    found = find_cases(root, a_spec("CT"))
    assert [case.name for case in found.cases] == ["sub-01"]
    assert [str(fault) for fault in found.faults] == [
        "sub-02: the label has no image (sub-02_dseg.nii.gz)"
    ]


@pytest.mark.parametrize("place", ["", MANUAL, f"{MANUAL}/sub-02/anat"])
def test_the_nearest_table_names_the_labels(tmp_path: Path, place: str) -> None:
    root = two_subjects(tmp_path)
    table = (
        "index\tname\tcolor\n0\tBackground\t#000000\n"
        "1\tLesion\t#ff0000\n4\tLeft Cyst\t#00ff00\n"
    )
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / "dseg.tsv").write_text(table)
    (root / "desc-other_dseg.tsv").write_text(table.replace("Lesion", "Wrong"))
    subject = read_description(root, list_cases(root, "auto"))
    assert dict(subject.label_names) == {1: "Lesion", 4: "Left Cyst"}


def test_a_mask_is_named_by_its_label(tmp_path: Path) -> None:
    root = a_data_set(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        f"{MANUAL}/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
    )
    assert list_cases(root, "auto").label_names == {1: "lesion"}


def test_a_table_that_is_none_and_a_set_without_labels_are_errors(
    tmp_path: Path,
) -> None:
    root = two_subjects(tmp_path / "a")
    (root / "dseg.tsv").write_text("value\tname\n1\tLesion\n")
    with pytest.raises(DatasetError, match="columns index and name"):
        list_cases(root, "auto")
    (root / "dseg.tsv").write_text("index\tname\nx\tLesion\n")
    with pytest.raises(DatasetError, match="line 2"):
        list_cases(root, "auto")
    bare = a_data_set(tmp_path / "b", "sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(DatasetError, match="no label was found"):
        find_cases(bare, a_spec())


def test_the_files_are_read_as_they_lie(tmp_path: Path) -> None:
    root = two_subjects(tmp_path)
    rng = np.random.default_rng(0)
    for file in root.rglob("sub-*.nii.gz"):
        label = np.zeros((6, 5, 4), np.uint8)
        label[2:4, 2:4, 1:3] = 1
        array = (
            label if "dseg" in file.name else rng.random((6, 5, 4), np.float32)
        )
        nib.save(nib.Nifti1Image(array, np.eye(4)), file)
    spec = a_spec("T1w", "FLAIR")
    checked = check_cases(find_cases(root, spec), spec)
    assert len(checked.good) == 3
    assert checked.labels == {1}
