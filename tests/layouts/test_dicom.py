"""DICOM folders as training data: what medseg writes as SEG or RTSTRUCT it learns from again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from support.studies import NAMES, Kind, a_series, label, made, random_labels

from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.commands.plan import plan
from medseg.datasets.cache import make_entry_key
from medseg.datasets.cases import Case, CaseList, find_cases
from medseg.datasets.integrity import check_cases, open_case
from medseg.errors import DatasetError, ScanError
from medseg.io import find_series, read_image
from medseg.labels import Label, LabelSet
from medseg.layouts import Selection, list_cases
from medseg.layouts.dicom import DicomLayout
from medseg.planning.fingerprint_cache import extract_fingerprint
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestDicomLayout(DatasetLayoutContract):
    layout = DicomLayout()
    channels = (ChannelSpec(name="CT", modality="CT"),)
    labels = ("liver", "tumour")
    secrets = (made.PATIENT,)

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        for name in names:
            series = a_series(root / name / "ct", name, name)
            label(root / name / "label", series, random_labels())


def a_spec(*names: str, modality: str = "CT", **data: Any) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": "CT", "modality": modality}],
            "labels": [
                {"index": n, "name": name}
                for n, name in enumerate(names, start=1)
            ],
            "data": data,
            "training": {"patch": [16, 16, 16]},
        }
    )


def changed(file: Path, **values: Any) -> FileDataset:
    ds = pydicom.dcmread(file)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.save_as(file)
    return ds


def the_case(root: Path, spec: BundleSpec) -> Case:
    found = find_cases(root, spec)
    assert found.faults == ()
    (case,) = found.cases
    return case


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_what_was_written_is_what_is_learned_from(
    tmp_path: Path, kind: Kind
) -> None:
    labels = random_labels()
    like = a_series(tmp_path / "study" / "ct")
    label(tmp_path / "elsewhere" / "deep" / "label", like, labels, kind)
    spec = a_spec("liver", "Tumour")
    image, found = open_case(the_case(tmp_path, spec), spec)
    assert np.array_equal(found, labels)
    assert image.shape == like.shape
    assert np.allclose(image.affine, like.affine)


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_where_nothing_was_found_there_is_only_background(
    tmp_path: Path, kind: Kind
) -> None:
    label(
        tmp_path / "label",
        a_series(tmp_path / "ct"),
        np.zeros(made.SHAPE, np.uint8),
        kind,
    )
    spec = a_spec("liver", "tumour")
    assert not open_case(the_case(tmp_path, spec), spec)[1].any()


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_the_bundle_says_which_structures_are_learned_and_as_what(
    tmp_path: Path, kind: Kind
) -> None:
    labels = random_labels()
    label(tmp_path / "label", a_series(tmp_path / "ct"), labels, kind)
    spec = a_spec("tumour")
    assert np.array_equal(
        open_case(the_case(tmp_path, spec), spec)[1], labels == 2
    )
    assert "do not" not in "".join(find_cases(tmp_path, spec).warnings)
    assert "Liver" in "".join(find_cases(tmp_path, spec).warnings)


def test_structures_of_several_files_make_up_one_label_map(
    tmp_path: Path,
) -> None:
    labels, like = random_labels(), a_series(tmp_path / "ct")
    for one in NAMES:
        alone = LabelSet([Label(1, one.name, 1, one.colour, one.code)])
        kind: Kind = "seg" if one.index == 1 else "rtstruct"
        label(
            tmp_path / f"label{one.index}",
            like,
            (labels == one.index).astype("u1"),
            kind,
            alone,
        )
    spec = a_spec("liver", "tumour")
    assert np.array_equal(open_case(the_case(tmp_path, spec), spec)[1], labels)


def test_what_overlaps_is_refused_unless_the_bundle_leaves_it_out(
    tmp_path: Path,
) -> None:
    like = a_series(tmp_path / "ct")
    for number, name in enumerate(("body", "liver"), start=1):
        alone = LabelSet([Label(1, name, 1, (9, 9, number))])
        label(
            tmp_path / f"label{number}",
            like,
            np.ones(made.SHAPE, np.uint8),
            "seg",
            alone,
        )
    both = a_spec("body", "liver")
    with pytest.raises(ScanError, match="name fewer labels"):
        open_case(the_case(tmp_path, both), both)
    assert open_case(the_case(tmp_path, a_spec("liver")), a_spec("liver"))[
        1
    ].all()


def test_series_are_grouped_by_patient_and_nobody_is_named(
    tmp_path: Path,
) -> None:
    for name, patient in (
        ("one", "Meier-1"),
        ("three", "Meier-1"),
        ("eleven", "Schulze-2"),
    ):
        like = a_series(tmp_path / name, name, patient)
        label(tmp_path / name / "label", like, random_labels())
    found = find_cases(tmp_path, a_spec("liver", "tumour"))
    assert len({case.name for case in found.cases}) == 3
    groups = sorted(case.group for case in found.cases)
    assert len(set(groups)) == 2
    said = repr([(case.name, case.group) for case in found.cases])
    assert not any(
        secret in said for secret in ("Meier", "Schulze", made.PATIENT)
    )


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_label_is_matched_by_instances_or_frame_where_it_names_no_series(
    tmp_path: Path, kind: Kind
) -> None:
    like = a_series(tmp_path / "ct")
    frame = generate_uid(entropy_srcs=["another"])
    a_series(tmp_path / "other", "other", FrameOfReferenceUID=frame)
    file = label(tmp_path / "label", like, random_labels(), kind)
    keyword = (
        "ReferencedSeriesSequence"
        if kind == "seg"
        else "ReferencedFrameOfReferenceSequence"
    )
    ds = changed(file, **{keyword: None})
    spec = a_spec("liver", "tumour")
    assert np.array_equal(
        open_case(the_case(tmp_path, spec), spec)[1], random_labels()
    )
    for item in ds.get("PerFrameFunctionalGroupsSequence") or ():
        del item.DerivationImageSequence
    for item in ds.get("ROIContourSequence") or ():
        for contour in item.ContourSequence:
            contour.pop("ContourImageSequence", None)
    ds.save_as(file)
    assert np.array_equal(
        open_case(the_case(tmp_path, spec), spec)[1], random_labels()
    )


def test_a_label_without_its_series_is_a_fault_of_its_own(
    tmp_path: Path,
) -> None:
    label(tmp_path / "a", a_series(tmp_path / "ct"), random_labels())
    gone = a_series(tmp_path / "gone", "gone")
    label(tmp_path / "b", gone, random_labels())
    for file in (tmp_path / "gone").iterdir():
        file.unlink()
    found = find_cases(tmp_path, a_spec("liver", "tumour"))
    assert len(found.cases) == 1
    assert [(fault.where, fault.what) for fault in found.faults] == [
        ("b", "refers to a DICOM series that is not here")
    ]


def test_a_structure_that_is_there_twice_or_not_at_all_is_a_fault(
    tmp_path: Path,
) -> None:
    like = a_series(tmp_path / "ct")
    for name in ("a", "b"):
        label(tmp_path / name, like, random_labels())
    (fault,) = find_cases(tmp_path, a_spec("liver")).faults
    assert (
        fault.what == "several files have the same structure; keep one of them"
    )
    assert fault.detail == "'Liver' in a, b"
    with pytest.raises(
        DatasetError, match="holds no structure with the name of one"
    ):
        find_cases(tmp_path, a_spec("spleen"))


def test_the_modality_of_the_channel_chooses_the_series(tmp_path: Path) -> None:
    for name, modality in (("ct", "CT"), ("mr", "MR")):
        like = a_series(tmp_path / name, name, Modality=modality)
        label(tmp_path / f"{name}-label", like, random_labels())
    spec = a_spec("liver", "tumour", modality="MR")
    assert "mr" in str(the_case(tmp_path, spec).scan.parts)
    assert list_cases(tmp_path, "auto").channel_names == ("CT",)
    assert "1 of MR" in list_cases(tmp_path, "auto", Selection()).warnings[0]
    other = find_cases(tmp_path, a_spec("liver", "tumour", modality="PT"))
    assert other.warnings[0] == (
        "no labelled series is of PT, as the bundle's channels are; those of CT are taken"
    )
    (contradiction,) = other.contradictions
    assert "channel 1 is CT" in contradiction.fault.what
    assert find_cases(tmp_path, spec).contradictions == ()


def test_damaged_labels_and_series_without_any_are_told(tmp_path: Path) -> None:
    label(
        tmp_path / "a", a_series(tmp_path / "ct"), random_labels(), "rtstruct"
    )
    a_series(tmp_path / "bare", "bare")
    torn = label(
        tmp_path / "torn",
        a_series(tmp_path / "third", "third"),
        random_labels(),
        "seg",
    )
    torn.write_bytes(torn.read_bytes()[:1500])
    found = find_cases(tmp_path, a_spec("liver", "tumour"))
    assert len(found.cases) == 1
    assert [fault.where for fault in found.faults] == ["torn"]
    assert any(
        "2 DICOM series have no SEG" in warning for warning in found.warnings
    )


def test_a_folder_without_labels_is_an_error(tmp_path: Path) -> None:
    a_series(tmp_path / "ct")
    with pytest.raises(
        DatasetError, match="of 1 DICOM series none has a SEG or RTSTRUCT"
    ):
        find_cases(tmp_path, a_spec("liver"))


def test_a_fingerprint_and_an_entry_know_which_structures_they_saw(
    tmp_path: Path,
) -> None:
    label(
        tmp_path / "data" / "label",
        a_series(tmp_path / "data" / "ct"),
        random_labels(),
    )
    both, one = a_spec("liver", "tumour"), a_spec("tumour")
    cases = [the_case(tmp_path / "data", spec) for spec in (both, one)]
    seen = [
        extract_fingerprint(CaseList((case,)), tmp_path / "seen")
        for case in cases
    ]
    assert [fingerprint.label_values for fingerprint in seen] == [(1, 2), (1,)]
    assert make_entry_key(cases[0], both) != make_entry_key(cases[1], both)


def test_real_rtstructs_are_the_masks_they_were_drawn_as(
    shared_data: Path,
) -> None:
    spec = a_spec("GTV_Mass_CT")
    root = shared_data / "sts_ct_mr_pet" / "dicom"
    found = find_cases(root, spec)
    assert len(found.cases) == 2
    checked = check_cases(found.cases, spec)
    assert checked.faults == ()
    voxels = sorted(
        int(open_case(case, spec)[1].sum()) for case in checked.good
    )
    # Those of the masks as NIfTI.
    assert voxels == pytest.approx([8862, 9655], rel=0.01)


def test_without_a_bundle_structures_are_numbered_by_name_whatever_their_capitals(
    tmp_path: Path,
) -> None:
    like = a_series(tmp_path / "ct")
    names = LabelSet(
        [Label(1, "Tumour", 1, (9, 9, 1)), Label(2, "liver", 2, (9, 9, 2))]
    )
    label(tmp_path / "label", like, random_labels(), "seg", names)
    assert list_cases(tmp_path, "dicom").label_names == {
        1: "liver",
        2: "Tumour",
    }


def test_a_label_drawn_as_lines_alone_is_a_fault_of_its_case(tmp_path):
    for name in ("one", "two", "three"):
        like = a_series(tmp_path / name, name, name)
        file = tmp_path / name / "rt.dcm"
        label(file, like, random_labels(), "rtstruct")
    open_lines = pydicom.dcmread(file)
    for contour in open_lines.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "OPEN_PLANAR"
    open_lines.save_as(file)
    found = find_cases(tmp_path, a_spec("liver", "tumour"))
    checked = check_cases(found, a_spec("liver", "tumour"))
    (fault,) = checked.faults
    assert "drawn as points and open lines alone" in fault.what
    # Where no case has it as an area, it is no label.
    names = list_cases(tmp_path / "three", "dicom").label_names
    assert list(names.values()) == ["tumour"]


def test_a_case_that_may_have_lost_a_slice_is_told(tmp_path: Path) -> None:
    like = a_series(tmp_path / "ct")
    label(tmp_path / "label", like, random_labels())
    orphan = made.slice_dataset(made.voxels()[:, :, 0], made.SHAPE[2], "1.2.3")
    made.save(tmp_path / "ct", [orphan], prefix="orphan")
    case = the_case(tmp_path, a_spec("liver", "tumour"))
    image, _ = open_case(case, a_spec("liver", "tumour"))
    (warning,) = [text for text in image.warnings if "continue this" in text]
    assert "the scan is incomplete" in warning


def write_time_points(root: Path) -> np.ndarray:
    """Two volumes that only instance numbers tell apart; the second one has labels."""
    datasets = []
    for time in range(2):
        volume = made.series(made.voxels(seed=time), name="dynamic")
        for k, ds in enumerate(volume):
            ds.InstanceNumber = time * len(volume) + k + 1
            uid = generate_uid(entropy_srcs=[str(ds.InstanceNumber)])
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        datasets.extend(volume)
    folder = made.save(root / "dynamic", datasets)
    _, second = find_series(folder, split_4d="instance-number")[0]
    labels = random_labels()
    label(root / "label", read_image(second.files), labels)
    return labels


def test_a_labelled_volume_is_found_by_instance_numbers_if_asked_for(
    tmp_path: Path,
) -> None:
    labels = write_time_points(tmp_path)
    names = ("liver", "tumour")
    (refused,) = check_cases(
        find_cases(tmp_path, a_spec(*names)), a_spec(*names)
    ).faults
    assert "split-4d instance-number" in refused.what
    spec = a_spec(*names, split_4d="instance-number")
    image, indices = open_case(the_case(tmp_path, spec), spec)
    assert np.array_equal(image.array[0], made.voxels(seed=1))
    assert np.array_equal(indices, labels)


def test_a_plan_keeps_how_series_are_split(tmp_path: Path) -> None:
    write_time_points(tmp_path / "data")
    with pytest.raises(DatasetError, match="no case"):
        plan(tmp_path / "data", tmp_path / "refused.json", device="cpu")
    planned = plan(
        tmp_path / "data",
        tmp_path / "bundle.json",
        split_4d="instance-number",
        device="cpu",
    )
    assert planned.spec.data.split_4d == "instance-number"
    the_case(tmp_path / "data", planned.spec)


def test_labelled_series_go_before_pictures_and_those_before_others(
    tmp_path: Path,
) -> None:
    for name in ("1", "2"):
        for ending in ("", "_mask"):
            (tmp_path / f"shot{name}{ending}.png").write_bytes(b"")
    series = a_series(tmp_path / "ct", "a", "a")
    assert list_cases(tmp_path, "auto").layout == "tree"
    label(tmp_path / "label", series, random_labels())
    assert list_cases(tmp_path, "auto").layout == "dicom"
