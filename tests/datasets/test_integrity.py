"""The data check before training."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.label_maps import in_other_order

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.cases import Case, Scan, find_cases
from medseg.datasets.integrity import (
    IntegrityReport,
    check_cases,
    describe_absent_labels,
    open_case,
)
from medseg.errors import Fault, ScanError
from medseg.events import Event, Progress


def a_spec(
    channels: int = 1, *, pictures: bool = False, **label: Any
) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": f"c{number}"} for number in range(channels)],
            "labels": [{"index": 1, "name": "thing", **label}],
            "preprocessing": {"input": "picture" if pictures else "volume"},
            "network": {"dims": 2 if pictures else 3},
            "training": {"patch": [16] * (2 if pictures else 3)},
        }
    )


def save(file: Path, array: Any, affine: Any = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(array, np.eye(4) if affine is None else affine), file
    )
    return file


def an_image(seed: int, shape: tuple[int, ...] = (6, 5, 4)) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def a_label(seed: int = 0, shape: tuple[int, ...] = (6, 5, 4)) -> Any:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def a_case(
    root: Path,
    name: str,
    image: Any = None,
    label: Any = None,
    affine: Any = None,
) -> Case:
    seed = sum(map(ord, name))
    image = an_image(seed) if image is None else image
    label = a_label(seed) if label is None else label
    file = save(root / f"images/{name}.nii.gz", image)
    return Case(
        Scan(name, ((file,),)),
        save(root / f"labels/{name}.nii.gz", label, affine),
        None,
        name,
    )


def faults_of(inspection: IntegrityReport) -> dict[str, str]:
    return {fault.where: str(fault) for fault in inspection.faults}


def test_good_cases_stay_in_order_and_progress_is_told_in_the_calling_thread(
    tmp_path: Path,
) -> None:
    cases = [a_case(tmp_path, name) for name in "dacb"]
    heard: list[Event] = []
    threads: set[int] = set()

    def listen(event: Event) -> None:
        heard.append(event)
        threads.add(threading.get_ident())

    found = check_cases(cases, a_spec(), [listen])

    assert set(found.measures) == {case.name for case in cases}
    assert replace(found, measures={}) == IntegrityReport(
        tuple(cases), labels=frozenset({1})
    )
    assert heard == [Progress("checking cases", done, 4) for done in range(5)]
    assert threads == {threading.get_ident()}


def test_a_case_that_memory_does_not_hold_is_a_fault(tmp_path: Path) -> None:
    cases = [a_case(tmp_path, name) for name in "ab"]

    def allocate(case: Case, *_: object) -> None:
        if case.name == "a":
            np.empty((200_000,) * 3)

    found = check_cases(cases, a_spec(), handle_case=allocate)
    (fault,) = found.faults
    assert fault.where == "a"
    assert "not enough memory" in fault.what
    assert [case.name for case in found.good] == ["b"]


def test_every_bad_case_is_named_with_its_own_reason(tmp_path: Path) -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    cases = [
        a_case(tmp_path, "good"),
        a_case(tmp_path, "truncated"),
        a_case(tmp_path, "shape", label=a_label(shape=(6, 5, 3))),
        a_case(tmp_path, "flipped", affine=flipped),
        a_case(tmp_path, "value", label=np.full((6, 5, 4), 3, np.uint8)),
        a_case(tmp_path, "fraction", label=an_image(1)),
        a_case(tmp_path, "constant", image=np.ones((6, 5, 4), np.float32)),
        a_case(tmp_path, "channels", image=an_image(1, (6, 5, 4, 2))),
    ]
    broken = cases[1].scan.parts[0][0]
    broken.write_bytes(broken.read_bytes()[:-40])

    found = check_cases(cases, a_spec())
    faults = faults_of(found)

    assert [case.name for case in found.good] == ["good"]
    assert "truncated" in faults["truncated"]
    assert "(6, 5, 4) and (6, 5, 3) voxels" in faults["shape"]
    assert "10.00 mm apart" in faults["flipped"]
    assert (
        "3 (120 voxels); this bundle has 0 (background), 1 (thing)"
        in faults["value"]
    )
    assert "whole numbers" in faults["fraction"]
    assert "every voxel has the value" in faults["constant"]
    assert "2 channel(s), the bundle needs 1" in faults["channels"]


def test_what_is_only_odd_is_a_warning(tmp_path: Path) -> None:
    wild = an_image(1) * 1e6
    wild[0, 0, 0] = np.nan
    cases = [
        a_case(tmp_path, "wild", image=wild),
        a_case(tmp_path, "empty", label=np.zeros((6, 5, 4), np.uint8)),
        a_case(tmp_path, "bare", label=np.zeros((6, 5, 4), np.uint8)),
    ]

    found = check_cases(cases, a_spec())

    assert found.good == tuple(cases)
    assert found.faults == ()
    assert len(found.warnings) == 3
    assert "wild: 1 of 120 voxels were not numbers" in found.warnings[0]
    assert found.warnings[1] == "empty: its label is empty: only background"


def test_equal_voxels_in_another_shape_are_no_copy(tmp_path: Path) -> None:
    image = an_image(1)
    turned = image.ravel(order="F").reshape((5, 6, 4), order="F")
    cases = [
        a_case(tmp_path, "one", image=image),
        a_case(
            tmp_path, "turned", image=turned, label=np.ones((5, 6, 4), np.uint8)
        ),
    ]

    assert check_cases(cases, a_spec()).warnings == ()


def test_copies_are_named_together_whatever_their_files_are(
    tmp_path: Path,
) -> None:
    image, label = an_image(1), a_label(1)
    cases = [
        a_case(tmp_path, "one", image=image),
        a_case(tmp_path, "other", label=label),
        a_case(tmp_path, "copy", image=np.asfortranarray(image)),
        a_case(tmp_path, "relabelled", label=label.astype(np.float32)),
    ]
    save(cases[2].scan.parts[0][0].with_name("copy.nii"), image)

    warnings = check_cases(cases, a_spec()).warnings

    assert len(warnings) == 2
    assert "images of one, copy are identical" in warnings[0]
    assert "labels of other, relabelled are identical" in warnings[1]


def test_a_label_that_no_case_holds_is_mentioned(tmp_path: Path) -> None:
    empty = a_case(tmp_path, "a", label=np.zeros((6, 5, 4), np.uint8))

    found = check_cases([empty], a_spec())

    assert "no case holds the label thing" in next(
        describe_absent_labels(found.labels, a_spec())
    )


def test_pictures_for_a_volume_bundle_are_one_fault_and_are_not_opened(
    tmp_path: Path,
) -> None:
    pictures = [
        Case(
            Scan(name, ((tmp_path / f"{name}.png",),)),
            tmp_path / "l.png",
            None,
            name,
        )
        for name in "ab"
    ]
    volume = a_case(tmp_path, "v")

    found = check_cases([*pictures, volume], a_spec())
    other_way = check_cases([*pictures, volume], a_spec(pictures=True))

    assert found.good == (volume,)
    assert found.faults[0].where == "preprocessing.input"
    assert (
        "2 of 3 cases are pictures and the bundle is for volumes"
        in found.faults[0].what
    )
    assert found.faults[0].detail == "a, b"
    assert "1 of 3 cases are volumes" in other_way.faults[0].what
    assert len(found.faults) == 1


def test_colour_coded_label_pictures_are_read_by_their_colours(
    tmp_path: Path,
) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[2:4] = (10, 20, 30)
    Image.fromarray(grey).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    case = Case(
        Scan("a", ((tmp_path / "image.png",),)),
        tmp_path / "mask.png",
        None,
        "a",
    )

    image, labels = open_case(case, a_spec(pictures=True, colour=[10, 20, 30]))

    assert image.array.shape == (1, 8, 8, 1)
    assert labels.sum() == 16
    assert labels[0, 2, 0] == 1
    with pytest.raises(ScanError, match=r"\(10, 20, 30\) \(16 voxels\)"):
        open_case(case, a_spec(pictures=True, colour=[9, 9, 9]))


def test_channel_files_are_stacked_in_order_and_a_flat_channel_is_mentioned(
    tmp_path: Path,
) -> None:
    first = save(tmp_path / "a_0000.nii.gz", an_image(1))
    second = save(tmp_path / "a_0001.nii.gz", np.full((6, 5, 4), 2, np.float32))
    label = save(tmp_path / "l.nii.gz", a_label())
    case = Case(Scan("a", ((first,), (second,))), label, None, "a")

    image, _ = open_case(case, a_spec(2))
    found = check_cases([case], a_spec(2))

    assert image.array.shape == (2, 6, 5, 4)
    assert (image.array[1] == 2).all()
    assert "every voxel of the channel c1" in found.warnings[0]


def test_faults_of_the_list_are_carried_on(tmp_path: Path) -> None:
    a_case(tmp_path, "a")
    save(tmp_path / "images/half.nii.gz", an_image(2))

    found = check_cases(find_cases(tmp_path, a_spec()), a_spec())

    assert [case.name for case in found.good] == ["a"]
    assert found.faults == (Fault("half", "the image has no label"),)


def test_a_bug_is_not_reported_as_a_bad_case(tmp_path: Path) -> None:
    # A case that no list can hold stands for a programming error.
    case = Case(Scan("odd", ((None,),)), tmp_path, None, "odd")  # type: ignore[arg-type]

    with pytest.raises(Exception, match="None") as caught:
        check_cases([case], a_spec())
    assert not isinstance(caught.value, ScanError)


# --- real data ----------------------------------------------------------------------------


def two_labels(**more: Any) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": "MR"}],
            "labels": [
                {"index": 1, "name": "anterior"},
                {"index": 2, "name": "posterior"},
            ],
            "training": {"patch": [16, 16, 16]},
            **more,
        }
    )


def test_all_hippocampus_cases_are_good(shared_data: Path) -> None:
    found = check_cases(
        find_cases(shared_data / "hippocampus", two_labels()), two_labels()
    )

    assert len(found.good) == 195
    assert found.faults == ()
    assert found.warnings == ()


def test_a_bundle_with_too_few_labels_is_told_which_value_is_missing(
    shared_data: Path,
) -> None:
    cases = find_cases(shared_data / "hippocampus", a_spec()).cases[:3]

    found = check_cases(cases, a_spec())

    assert "holds 2 (1624 voxels)" in faults_of(found)["hippocampus_001"]


def test_the_label_of_another_scan_is_found_out(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "hippocampus"
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    shutil.copy(
        source / "imagesTr/hippocampus_011.nii.gz",
        tmp_path / "imagesTr/foreign.nii.gz",
    )
    shutil.copy(
        source / "dirty/labelsTr/hippocampus_281.nii.gz",
        tmp_path / "labelsTr/foreign.nii.gz",
    )

    found = check_cases(find_cases(tmp_path, two_labels()), two_labels())

    assert "(512, 512, 94) voxels" in faults_of(found)["foreign"]


def test_grey_labels_stored_as_colour_need_the_value_in_the_bundle(
    shared_data: Path,
) -> None:
    spec = a_spec(pictures=True, value=255)
    cases = find_cases(shared_data / "sunnybrook_cmr_2d", spec).cases[:20]

    found = check_cases(cases, spec)
    without = check_cases(cases[:1], a_spec(pictures=True))

    assert len(found.good) == 20
    assert "255 (587 voxels)" in without.faults[0].what


def test_a_table_of_ct_and_tumour_masks_is_good(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "sts_ct_mr_pet" / "nifti"
    lines = [
        f"{p}/CT_image.nii.gz,{p}/CT_mask.nii.gz,{p.name}"
        for p in sorted(folder.iterdir())
    ]
    (tmp_path / "cases.csv").write_text(
        "\n".join(["image,label,patient", *lines])
    )

    found = check_cases(find_cases(tmp_path, a_spec()), a_spec())

    assert len(found.good) == 10
    assert found.faults == ()
    assert found.good[0].group == "STS_002"


def test_a_series_is_a_case_like_any_other(
    shared_data: Path, tmp_path: Path
) -> None:
    series = shared_data / "sts_ct_mr_pet/dicom/STS_008/CT/image"
    mask = shared_data / "sts_ct_mr_pet/nifti/STS_008/CT_mask.nii.gz"
    (tmp_path / "cases.csv").write_text(f"image,label\n{series},{mask}\n")

    found = check_cases(find_cases(tmp_path, a_spec()), a_spec())

    assert found.faults == ()
    assert len(found.good) == 1


def test_a_case_that_nobody_annotated_is_a_fault_and_part_of_one_is_none(
    tmp_path: Path,
) -> None:
    spec = a_spec()
    spec = spec.model_copy(update={"data": DataSpec(ignore=9)})
    label = np.full((6, 5, 4), 9, np.uint8)
    nothing = a_case(tmp_path, "nothing", label=label.copy())
    label[:3] = a_label()[:3]
    some = a_case(tmp_path, "some", label=label)
    found = check_cases([nothing, some], spec)
    assert [case.name for case in found.good] == ["some"]
    (fault,) = found.faults
    assert "value 9" in fault.what
    assert found.labels == {1}


def test_a_label_map_stored_in_another_order_is_learned_voxel_for_voxel(
    tmp_path: Path,
) -> None:
    case = a_case(tmp_path, "turned")
    _, straight = open_case(case, a_spec())
    stored = in_other_order(nib.load(case.label), (2, 0, 1), (1, -1, -1))
    nib.save(stored, case.label)
    assert stored.shape == (5, 4, 6)
    image, turned = open_case(case, a_spec())
    assert np.array_equal(turned, straight)
    assert image.shape == turned.shape


def test_channels_stored_in_another_order_are_stacked_voxel_for_voxel(
    tmp_path: Path,
) -> None:
    case = a_case(tmp_path, "first")
    second = nib.Nifti1Image(an_image(7), np.eye(4))
    other = tmp_path / "second.nii.gz"
    nib.save(in_other_order(second, (1, 2, 0), (-1, 1, -1)), other)
    scan = Scan("two", (*case.scan.parts, (other,)))
    image, _ = open_case(Case(scan, case.label, None, "two"), a_spec(2))
    assert np.array_equal(image.array[1], an_image(7))


def test_a_label_map_in_another_unit_of_length_lies_on_its_image(
    tmp_path: Path,
) -> None:
    case = a_case(tmp_path, "microns")
    label = nib.load(case.label)
    in_microns = nib.Nifti1Image(
        np.asarray(label.dataobj), np.diag([1000.0, 1000, 1000, 1])
    )
    in_microns.header.set_xyzt_units("micron")
    nib.save(in_microns, case.label)
    _, indices = open_case(case, a_spec())
    assert np.array_equal(indices, a_label(sum(map(ord, "microns"))))


def test_a_case_whose_voxels_have_no_size_is_named(tmp_path: Path) -> None:
    case = a_case(tmp_path, "flat")
    plain = tmp_path / "images" / "flat.nii"
    nib.save(nib.load(case.scan.files[0]), plain)
    content = bytearray(plain.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header["sform_code"], header["qform_code"] = 0, 1
    header["pixdim"][3] = 0
    content[:348] = header.binaryblock
    plain.write_bytes(content)
    flat = Case(Scan("flat", ((plain,),)), case.label, None, "flat")
    found = check_cases([flat], a_spec())
    assert "(pixdim); each must be above 0" in faults_of(found)["flat"]
