"""Which series of a study become the channels of a labelled one, and when that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid
from support.studies import NAMES, a_series, label, made, random_labels

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import make_entry_key
from medseg.datasets.cases import Case, find_cases
from medseg.datasets.integrity import open_case
from medseg.io import read_image
from medseg.labels import Label, LabelSet

Channel = tuple[str, str]


def a_spec(
    *channels: Channel, labels: tuple[str, ...] = ("liver", "tumour")
) -> BundleSpec:
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [
                {"name": name, "modality": modality}
                for name, modality in channels
            ],
            "labels": [
                {"index": n, "name": name}
                for n, name in enumerate(labels, start=1)
            ],
            "training": {"patch": [16, 16, 16]},
        }
    )


def scan(root: Path, said: str, modality: str = "MR", **changes: Any) -> Path:
    """Write a series with a description; return its folder."""
    folder = root / said.replace(" ", "-")
    a_series(folder, said, SeriesDescription=said, Modality=modality, **changes)
    return folder


def labelled(folder: Path, only: Label | None = None) -> np.ndarray:
    """Label a series, with one label only where it is given; return what of it is labelled."""
    labels = random_labels()
    file, image = folder.with_name(f"{folder.name}.label"), read_image(folder)
    if only is None:
        label(file, image, labels)
        return labels
    names = LabelSet([Label(1, only.name, 1, only.colour, only.code)])
    label(file, image, (labels == only.index).astype(np.uint8), "seg", names)
    return np.where(labels == only.index, labels, 0)


def the_case(root: Path, spec: BundleSpec) -> Case:
    found = find_cases(root, spec)
    assert found.faults == ()
    (case,) = found.cases
    return case


def check_case(
    root: Path, spec: BundleSpec, folders: list[Path], labels: np.ndarray
) -> None:
    """Check that the channels are the series of these folders, and the labels lie on them."""
    image, found = open_case(the_case(root, spec), spec)
    for channel, folder in zip(image.array, folders, strict=True):
        assert np.array_equal(channel, read_image(folder).array[0])
    assert np.array_equal(found, labels)


def fault(root: Path, *channels: Channel) -> str:
    found = find_cases(root, a_spec(*channels))
    assert found.cases == ()
    (one,) = found.faults
    assert one.where.startswith("series-")
    return str(one)


def test_one_channel_of_each_modality_is_found_by_it_on_the_labels_grid(
    tmp_path: Path,
) -> None:
    ct = scan(tmp_path, "thorax", "CT")
    pet = scan(tmp_path, "resampled", "PT")
    scan(tmp_path, "PET", "PT", PixelSpacing=[4.0, 4.0])
    scan(tmp_path, "bone kernel", "CT")
    labels = labelled(ct)
    spec = a_spec(("SUV", "PT"), ("density", "CT"))
    check_case(tmp_path, spec, [pet, ct], labels)
    turned = a_spec(("density", "CT"), ("SUV", "PT"))
    check_case(tmp_path, turned, [ct, pet], labels)
    keys = {
        make_entry_key(the_case(tmp_path, one), one) for one in (spec, turned)
    }
    assert len(keys) == 2


def test_several_channels_of_one_modality_are_told_by_their_descriptions(
    tmp_path: Path,
) -> None:
    t1, t2 = scan(tmp_path, "Ax T1_mprage"), scan(tmp_path, "ax T2 TSE")
    post = scan(tmp_path, "ax T1 post gd")
    labels = labelled(t2)
    mr = a_spec(("t2", "MR"), ("T1 mprage", "MR"))
    check_case(tmp_path, mr, [t2, t1], labels)
    # Every word of "T1" is in two of them, and one of these is the only "T1 post".
    check_case(
        tmp_path, a_spec(("T1", "MR"), ("T1 post", "MR")), [t1, post], labels
    )


def test_a_description_that_is_the_name_goes_before_those_that_have_its_words(
    tmp_path: Path,
) -> None:
    t1, _, t2 = (scan(tmp_path, said) for said in ("T1", "T1 again", "T2"))
    check_case(
        tmp_path, a_spec(("t1", "MR"), ("t2", "MR")), [t1, t2], labelled(t1)
    )


def test_labels_may_lie_on_a_series_that_is_no_channel_or_on_several(
    tmp_path: Path,
) -> None:
    t1, t2, flair = (scan(tmp_path, said) for said in ("T1", "T2", "FLAIR"))
    spec = a_spec(("FLAIR", "MR"), ("T2", "MR"))
    liver, tumour = NAMES
    one = labelled(t1, liver)
    check_case(tmp_path, spec, [flair, t2], one)
    check_case(tmp_path, spec, [flair, t2], one + labelled(t2, tumour))


def test_each_patient_has_channels_of_the_own_study(tmp_path: Path) -> None:
    spec = a_spec(("T1", "MR"), ("T2", "MR"))
    for patient in ("one", "two"):
        study = generate_uid(entropy_srcs=[patient])
        own = {"StudyInstanceUID": study, "patient": patient}
        for name in ("T1", "T2"):
            changes = {"SeriesDescription": name, "Modality": "MR", **own}
            a_series(tmp_path / patient / name, f"{patient} {name}", **changes)
        labelled(tmp_path / patient / "T1")
    found = find_cases(tmp_path, spec)
    assert found.faults == ()
    assert len(found.cases) == len({case.group for case in found.cases}) == 2
    for case in found.cases:
        assert [part[0].parent.name for part in case.scan.parts] == ["T1", "T2"]
        assert len({part[0].parent.parent for part in case.scan.parts}) == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"PixelSpacing": [4.0, 4.0]},
            "this one have equal shapes but lie up to",
        ),
        ({"FrameOfReferenceUID": "1.2.3"}, "another frame of reference"),
        (
            {"FrameOfReferenceUID": None},
            "another frame of reference than the labelled series",
        ),
        ({"StudyInstanceUID": "1.2.3"}, "its study holds 'CT' (CT)"),
    ],
)
def test_a_series_that_lies_elsewhere_is_no_channel_and_why_is_said(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    labelled(scan(tmp_path, "CT", "CT"))
    scan(tmp_path, "PET", "PT", **other)
    what = fault(tmp_path, ("CT", "CT"), ("PET", "PT"))
    assert "has no series for the channel 'PET' (PT)" in what
    assert said in what


def test_a_series_that_lacks_a_slice_is_no_channel(tmp_path: Path) -> None:
    labelled(scan(tmp_path, "CT", "CT"))
    folder = scan(tmp_path, "PET", "PT")
    whole = made.series(
        made.voxels((6, 5, 6)), "longer", Modality="PT", SeriesDescription="WB"
    )
    made.save(folder, [*whole[:2], *whole[3:]], prefix="other")
    for file in folder.glob("IM*"):
        file.unlink()
    assert "'WB' (PT) is no volume that can be read" in fault(
        tmp_path, ("CT", "CT"), ("PET", "PT")
    )


def test_a_series_of_another_size_is_named_with_both_sizes(
    tmp_path: Path,
) -> None:
    labelled(scan(tmp_path, "CT", "CT"))
    shown = made.series(
        made.voxels((6, 5, 3)), "PET", Modality="PT", SeriesDescription="WB"
    )
    made.save(tmp_path / "pet", shown)
    what = fault(tmp_path, ("CT", "CT"), ("PET", "PT"))
    assert (
        "(6, 5, 4) and (6, 5, 3) voxels; both must lie on one grid; resample it"
        in what
    )


def test_what_may_be_several_is_refused_with_all_of_them(
    tmp_path: Path,
) -> None:
    labelled(scan(tmp_path, "T1 ax"))
    scan(tmp_path, "T2 ax one")
    scan(tmp_path, "T2 ax two")
    what = fault(tmp_path, ("T1", "MR"), ("T2", "MR"))
    assert "2 series on its grid may be the channel 'T2'; name" in what
    assert "('T2 ax one' (MR), 'T2 ax two' (MR))" in what
    assert "the same series as the channel" in fault(
        tmp_path, ("T1", "MR"), ("ax T1", "MR")
    )
    assert "has no series for the channel 'FLAIR'" in fault(
        tmp_path, ("T1", "MR"), ("FLAIR", "MR")
    )


def test_labelled_series_of_other_channels_are_told(tmp_path: Path) -> None:
    ct, pet = scan(tmp_path, "CT", "CT"), scan(tmp_path, "PET", "PT")
    labels = labelled(ct)
    labelled(pet)
    spec = a_spec(("CT", "CT"), ("PET", "PT"))
    check_case(tmp_path, spec, [ct, pet], labels)
    (warning,) = find_cases(tmp_path, spec).warnings
    assert "the labelled series of CT are taken; 1 of PT are not" in warning


def test_real_modalities_on_grids_of_their_own_are_refused_with_their_sizes(
    shared_data: Path,
) -> None:
    root = shared_data / "sts_ct_mr_pet" / "dicom"
    spec = a_spec(("CT", "CT"), ("PET", "PT"), labels=("GTV_Mass_CT",))
    found = find_cases(root, spec)
    assert found.cases == ()
    assert len(found.faults) == 2
    assert all(
        "no series for the channel 'PET' (PT)" in one.what
        for one in found.faults
    )
