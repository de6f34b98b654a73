"""Segments of a ``.seg.nrrd`` are labels by name, whatever values a file gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import made_spec
from support.seg_nrrd import write_seg_nrrd

from medseg import plan
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import check_cases, open_case
from medseg.datasets.named_segments import join_segments
from medseg.errors import ScanError
from medseg.io.seg_nrrd import read_segments
from medseg.layouts import Selection
from medseg.planning import inspect_dataset

SPEC = made_spec(
    labels=[
        {"index": 1, "name": "liver", "value": 1},
        {"index": 2, "name": "kidney", "value": 5},
    ]
)
VALUES = {"liver": 1, "kidney": 5}


@pytest.fixture
def painted() -> Any:
    """Label indices of liver and kidney."""
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[:2, :3] = 1
    labels[3:, 1:, 2:] = 2
    return labels


def write_case(
    root: Path, name: str, labels: Any, segments: Any, ending: str = ".seg.nrrd"
) -> Path:
    """Write an image and its segmentation, and list them as a case."""
    image = np.random.default_rng(0).normal(size=labels.shape[-3:])
    root.mkdir(exist_ok=True)
    scan = nib.Nifti1Image(image.astype(np.float32), np.eye(4))
    nib.save(scan, root / f"{name}.nii.gz")
    table = root / "cases.csv"
    if not table.exists():
        table.write_text("image,label\n")
    line = f"{name}.nii.gz,{name}{ending}\n"
    if line not in table.read_text():
        table.write_text(table.read_text() + line)
    return write_seg_nrrd(root / f"{name}{ending}", labels, segments)


def renumber(labels: Any, *values: int) -> Any:
    table = np.array([0, *values], np.uint8)
    return table[labels]


def test_each_case_is_read_by_the_names_of_its_own_file(
    tmp_path: Path, painted: Any
) -> None:
    write_case(tmp_path, "a", painted, [("Liver", 1), ("kidney", 2)])
    turned = renumber(painted, 2, 1)
    write_case(tmp_path, "b", turned, [("Kidney", 1), ("LIVER", 2)])
    other = renumber(painted, 7, 3)
    write_case(tmp_path, "c", other, [("kidney", 3), ("liver", 7)], ".nrrd")
    found = find_cases(tmp_path, SPEC)
    assert [case.name for case in found.cases] == ["a", "b", "c"]
    for case in found.cases:
        _, indices = open_case(case, SPEC)
        assert np.array_equal(indices, painted)
    report = check_cases(found, SPEC)
    assert report.faults == ()
    assert len(report.good) == 3


def test_values_count_when_they_are_trusted(
    tmp_path: Path, painted: Any
) -> None:
    swapped = [("kidney", 1), ("liver", 5)]
    write_case(tmp_path, "a", renumber(painted, 1, 5), swapped)
    (case,) = find_cases(tmp_path, SPEC, trust_values=True).cases
    assert np.array_equal(open_case(case, SPEC)[1], painted)
    (case,) = find_cases(tmp_path, SPEC).cases
    assert np.array_equal(open_case(case, SPEC)[1], renumber(painted, 2, 1))


def test_other_names_are_a_fault_that_names_both_lists(
    tmp_path: Path, painted: Any
) -> None:
    write_case(tmp_path, "a", painted, [("Segment_1", 1), ("kidney", 2)])
    report = check_cases(find_cases(tmp_path, SPEC), SPEC)
    (fault,) = report.faults
    assert fault.where == "a"
    assert "1 of its segments" in fault.what
    assert "liver, kidney" in fault.what
    assert "--trust-values" in fault.what
    assert "Segment_1" not in fault.what
    assert "'Segment_1' = 1" in fault.detail


def test_a_segment_that_is_not_painted_may_have_any_name(
    tmp_path: Path, painted: Any
) -> None:
    named = [("liver", 1), ("kidney", 2), ("spare", 3), ("background", 4)]
    labels = painted.copy()
    labels[5, 0, 0] = 4
    file = write_case(tmp_path, "a", labels, named)
    joined = join_segments(file, read_segments(file), VALUES)
    assert np.array_equal(joined.array[0], renumber(painted, 1, 5))


def test_layers_are_joined_unless_segments_overlap(
    tmp_path: Path, painted: Any
) -> None:
    layers = np.stack([painted == 1, painted == 2]).astype(np.uint8)
    named = [("liver", 1, 0), ("kidney", 1, 1)]
    file = write_case(tmp_path, "a", layers, named)
    joined = join_segments(file, read_segments(file), VALUES)
    assert np.array_equal(joined.array[0], renumber(painted, 1, 5))
    (case,) = find_cases(tmp_path, SPEC).cases
    assert np.array_equal(open_case(case, SPEC)[1], painted)
    layers[0, 3, 1:3, 2] = 1
    file = write_case(tmp_path, "a", layers, named)
    with pytest.raises(ScanError, match="overlap in 2 voxels"):
        join_segments(file, read_segments(file), VALUES)


def test_voxels_of_no_segment_are_refused(tmp_path: Path, painted: Any) -> None:
    file = write_case(tmp_path, "a", painted, [("liver", 1)])
    with pytest.raises(ScanError, match="holds the value 2, which is none"):
        join_segments(file, read_segments(file), VALUES)


def test_an_ignored_segment_is_unlabelled(tmp_path: Path, painted: Any) -> None:
    spec = made_spec(data={"ignore": 9})
    labels = painted.copy()
    labels[5, 0] = 3
    named = [("liver", 1), ("kidney", 2), ("Ignore", 3)]
    write_case(tmp_path, "a", labels, named)
    (case,) = find_cases(tmp_path, spec).cases
    _, indices = open_case(case, spec)
    assert set(indices[5, 0].tolist()) == {spec.label_set.ignore_index}


def test_a_plan_names_labels_by_segments(
    tmp_path: Path, painted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    write_case(data, "a", painted, [("Liver", 1), ("kidney", 2)])
    turned = renumber(painted, 2, 1)
    write_case(data, "b", turned, [("kidney", 1), ("liver", 2), ("spare", 3)])
    dataset = inspect_dataset(data, Selection(), ())
    assert dataset.fingerprint.faults == ()
    names = dataset.description.label_names
    voxels = [
        {names[label.value].lower(): label.voxels for label in case.labels}
        for case in dataset.fingerprint.cases
    ]
    sizes = {"liver": (painted == 1).sum(), "kidney": (painted == 2).sum()}
    assert voxels == [sizes, sizes]


def test_a_plan_numbers_segments_as_the_list_of_the_data_does(
    tmp_path: Path, painted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    write_case(data, "a", painted, [("Liver", 1), ("kidney", 2)])
    items = [{"image": "a.nii.gz", "label": "a.seg.nrrd"}]
    labels = {"0": "background", "1": "kidney", "5": "liver"}
    listing = {"training": items, "labels": labels}
    (data / "dataset.json").write_text(json.dumps(listing))
    file = tmp_path / "bundle.json"
    planned = plan(data, file, device="cpu").spec
    assert {label.name: label.value for label in planned.labels} == {
        "kidney": None,
        "liver": 5,
    }
    found = find_cases(data, planned)
    assert found.contradictions == ()
    _, indices = open_case(found.cases[0], planned)
    assert np.array_equal(indices, renumber(painted, 2, 1))


def test_a_segmentation_that_was_cropped_is_placed_on_its_image(
    tmp_path: Path, painted: Any
) -> None:
    named = [("liver", 1), ("kidney", 2)]
    file = write_case(tmp_path, "a", painted, named)
    expected = painted.copy()
    expected[:, 0] = 0
    shift = np.eye(4)
    shift[1, 3] = 1
    write_seg_nrrd(file, painted[:, 1:], named, shift)
    (case,) = find_cases(tmp_path, SPEC).cases
    assert np.array_equal(open_case(case, SPEC)[1], expected)
    shift[1, 3] = 1.5
    write_seg_nrrd(file, painted[:, 1:], named, shift)
    (fault,) = check_cases(find_cases(tmp_path, SPEC), SPEC).faults
    assert "0.50 voxels off" in fault.what
