"""A case that lies apart from the others is named; a data set that varies by nature is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.datasets.measures import CaseMeasures, LabelMeasures, measure_case
from medseg.datasets.outliers import (
    Aspect,
    Outlier,
    describe_outliers,
    find_outliers,
)
from medseg.io import read_image, read_labels
from medseg.volume import Volume


def a_case(number: int = 0, **changes) -> CaseMeasures:
    """A CT of a patient with two organs, a little different for each number."""
    factor = 1 + 0.02 * number
    case = CaseMeasures(
        spacing=(0.8 * factor, 0.8 * factor, 3.0),
        extent=(400.0 * factor, 400.0 * factor, 300.0),
        ranges=((-1000.0, 900.0 + number),),
        labels=(organ(1, 1500 * factor, 100 + number), organ(2, 200, 180)),
    )
    return replace(case, **changes)


def organ(
    label: int, ml: float, hu: float, *, is_cut: bool = False
) -> LabelMeasures:
    return LabelMeasures(label, ml, is_cut, (hu,))


def cases_and(odd: CaseMeasures, others: int = 3) -> dict[str, CaseMeasures]:
    """Ordinary cases and an odd one in their midst."""
    cases = {f"case_{n}": a_case(n) for n in range(others)}
    return {**cases, "odd": odd}


ODD = {
    "shifted by 1024": (
        a_case(
            ranges=((24.0, 1924.0),),
            labels=(organ(1, 1500, 1124), organ(2, 200, 1204)),
        ),
        Aspect.INTENSITIES,
        "HU more than in the other cases",
    ),
    "scaled to 0…1": (
        a_case(
            ranges=((0.0, 1.0),),
            labels=(organ(1, 1500, 0.55), organ(2, 200, 0.6)),
        ),
        Aspect.INTENSITIES,
        "span 1,",
    ),
    "in metres": (
        a_case(spacing=(8e-4, 8e-4, 3e-3), extent=(0.4, 0.4, 0.3)),
        Aspect.VOXEL_SIZE,
        "0.0008 mm towards the right",
    ),
    "in centimetres": (
        a_case(spacing=(0.08, 0.08, 0.3), extent=(40.0, 40.0, 30.0)),
        Aspect.VOXEL_SIZE,
        "0.08 mm towards the right",
    ),
    "of one vertebra": (
        a_case(extent=(400.0, 400.0, 30.0)),
        Aspect.FIELD_OF_VIEW,
        "30 mm towards the head",
    ),
    "with a stray liver": (
        a_case(labels=(organ(1, 0.01, 100), organ(2, 200, 180))),
        Aspect.LABEL_VOLUMES,
        "label liver has 0.01 ml",
    ),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("others", [3, 30])
def test_one_case_of_four_or_of_many_is_named_once(
    name: str, others: int
) -> None:
    odd, aspect, said = ODD[name]
    (found,) = find_outliers(
        cases_and(odd, others), ["CT"], {1: "liver", 2: "kidney"}
    )
    assert (found.case, found.aspect) == ("odd", aspect)
    assert said in found.what


@pytest.mark.parametrize("name", ODD)
def test_three_cases_are_too_few_to_tell(name: str) -> None:
    odd, *_ = ODD[name]
    assert find_outliers(cases_and(odd, 2), ["CT"]) == []


def test_what_varies_by_nature_is_named_of_no_case() -> None:
    ordinary = {f"case_{n}": a_case(n) for n in range(9)}
    assert find_outliers(ordinary, ["CT"]) == []
    wide = {
        f"case_{n}": a_case(
            spacing=(0.7, 0.7, (0.7, 1.5, 3, 5)[n % 4]),
            extent=(400, 400, (100, 200, 400, 900)[n % 4]),
            labels=(organ(1, 10.0 ** (n % 5 - 2), (-800, -300, 40)[n % 3]),),
        )
        for n in range(12)
    }
    assert find_outliers(wide, ["CT"]) == []


def test_a_label_that_the_border_cuts_off_may_be_small() -> None:
    cut = a_case(labels=(organ(1, 1, 100, is_cut=True), organ(2, 200, 180)))
    assert find_outliers(cases_and(cut), ["CT"]) == []
    large = a_case(
        labels=(organ(1, 90_000, 100, is_cut=True), organ(2, 200, 180))
    )
    (found,) = find_outliers(cases_and(large), ["CT"])
    assert found.aspect is Aspect.LABEL_VOLUMES


def test_one_label_alone_may_differ_in_hu() -> None:
    """A lung without air, beside a liver as always."""
    odd = a_case(labels=(organ(1, 1500, 100), organ(2, 200, 1200)))
    assert find_outliers(cases_and(odd), ["CT"]) == []


@pytest.mark.parametrize(
    ("modality", "named"),
    [("CT", 2), ("MR", 0), ("mri", 0), ("PT", 2), ("OT", 0), ("US", 0)],
)
def test_a_second_scale_is_named_where_intensities_have_a_unit(
    modality: str, named: int
) -> None:
    cases = {
        f"case_{n}": a_case(
            n, ranges=((0.0, 800.0 + n),), labels=(organ(1, 1500, 100),)
        )
        for n in range(8)
    }
    for number in range(2):
        name = f"case_{number}"
        cases[name] = replace(cases[name], ranges=((0.0, 4e5),))
    assert len(find_outliers(cases, [modality])) == named


def test_a_lone_scale_is_named_where_the_modality_is_not_known() -> None:
    cases = {f"{n}": a_case(n, ranges=((0, 255),)) for n in range(5)}
    cases["odd"] = a_case(ranges=((0, 65535),))
    (found,) = find_outliers(cases, ["OT"], pictures=True)
    assert (found.case, found.aspect) == ("odd", Aspect.SCALE)


def test_values_like_air_are_taken_for_hu() -> None:
    odd, aspect, _ = ODD["shifted by 1024"]
    (found,) = find_outliers(cases_and(odd), ["OT"])
    assert found.aspect is aspect


def test_pictures_have_no_lengths() -> None:
    odd, *_ = ODD["in metres"]
    assert find_outliers(cases_and(odd), ["OT"], pictures=True) == []


def test_many_are_named_in_one_line() -> None:
    outliers = [
        Outlier(f"case_{n}", Aspect.VOXEL_SIZE, "is odd") for n in range(8)
    ]
    *first, rest = describe_outliers(outliers)
    assert first == [f"case_{n}: is odd" for n in range(5)]
    assert rest == (
        "3 more cases lie apart from the others in their voxel size: case_5, case_6, case_7"
    )


def read_cases(
    pairs: Iterable[tuple[Path, Path]],
) -> dict[str, CaseMeasures]:
    cases = {}
    for image, label in pairs:
        labels = read_labels(label).array[0]
        name = f"{image.parent.name} {image.name}"
        cases[name] = measure_case(read_image(image), labels)
    return cases


@pytest.mark.parametrize(
    ("name", "modality"), [("CT", "CT"), ("MR_T1", "MR"), ("PET", "PT")]
)
def test_no_real_sarcoma_lies_apart(
    shared_data: Path, name: str, modality: str
) -> None:
    folders = sorted((shared_data / "sts_ct_mr_pet/nifti").iterdir())
    pairs = [
        (folder / f"{name}_image.nii.gz", folder / f"{name}_mask.nii.gz")
        for folder in folders
    ]
    cases = read_cases(pairs)
    assert find_outliers(cases, [modality]) == []
    assert find_outliers(cases, ["OT"]) == []


def test_of_real_ct_the_one_without_rescale_is_named(shared_data: Path) -> None:
    folders = sorted((shared_data / "sts_ct_mr_pet/nifti").iterdir())[:4]
    cases = {}
    for number, folder in enumerate(folders):
        image = read_image(folder / "CT_image.nii.gz")
        labels = read_labels(folder / "CT_mask.nii.gz").array[0]
        shifted = image.array + 1024 * (number == 2)
        cases[folder.name] = measure_case(image.with_array(shifted), labels)
    (found,) = find_outliers(cases, ["CT"])
    assert found.case == folders[2].name


def test_no_real_hippocampus_lies_apart(shared_data: Path) -> None:
    root = shared_data / "hippocampus"
    images = sorted((root / "imagesTr").glob("hippocampus_*.nii.gz"))[:60]
    pairs = [(image, root / "labelsTr" / image.name) for image in images]
    assert find_outliers(read_cases(pairs), ["MR"]) == []


def test_no_real_heart_lies_apart(shared_data: Path) -> None:
    root = shared_data / "sunnybrook_cmr_2d"
    images = sorted((root / "images").iterdir())[:60]
    pairs = [(image, root / "labels" / image.name) for image in images]
    cases = read_cases(pairs)
    assert find_outliers(cases, ["OT"], pictures=True) == []


def test_a_case_is_measured_along_the_patient() -> None:
    affine = np.array(
        [[0, -2.0, 0, 0], [0, 0, 3.0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]]
    )
    array = np.full((2, 4, 6, 8), -1000, np.float32)
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[1:3, 1:5, 2:6] = 1
    labels[0, 0, :2] = 2
    array[0, labels == 1] = 60
    found = measure_case(Volume(array, affine), labels)
    assert found.spacing == pytest.approx((2, 3, 5))
    assert found.extent == pytest.approx((12, 24, 20))
    assert found.ranges == ((-1000, 60), (-1000, -1000))
    first, second = found.labels
    assert (first.label, first.is_cut, first.medians) == (1, False, (60, -1000))
    assert first.volume_ml == pytest.approx(32 * 30 / 1000)
    assert (second.label, second.is_cut, second.medians) == (2, True, ())
    assert CaseMeasures.from_json(found.to_json()) == found


def test_large_label_values_are_counted_too() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10)
    labels = np.zeros((10, 10, 10), np.uint32)
    labels[2:4, 2:4, 2:4] = 70_000
    found = measure_case(Volume(array, np.eye(4)), labels)
    assert found.present == {70_000}
    assert found.find_label(1) is None
