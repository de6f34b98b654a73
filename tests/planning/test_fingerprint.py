"""What is measured of a case, and that it is measured only once."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.label_maps import in_other_order

from medseg.datasets.cases import Case, CaseList, Scan
from medseg.errors import ScanError
from medseg.events import Event, Progress
from medseg.planning.case_inspection import inspect_case
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.fingerprint_cache import extract_fingerprint
from medseg.testing import write_dataset


def write_case(
    folder: Path,
    image: np.ndarray,
    label: np.ndarray,
    affine: np.ndarray | None = None,
) -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4) if affine is None else affine
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")
    scan = Scan("one", ((folder / "image.nii.gz",),))
    return Case(scan, folder / "label.nii.gz", None, "one")


def fingerprint(
    case: Case, cache: Path, events: list[Event] | None = None
) -> Fingerprint:
    return extract_fingerprint(
        CaseList((case,)), cache, [events.append] if events is not None else []
    )


def test_sizes_are_told_along_the_patient_whatever_the_voxel_order(
    tmp_path: Path,
) -> None:
    # Voxel axes: superior, left, anterior.
    affine = np.array(
        [[0, -2.0, 0, 0], [0, 0, 3.0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]]
    )
    image = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    facts = inspect_case(
        write_case(tmp_path, image, (image > 1).astype(np.uint8), affine)
    )
    assert facts.shape == (6, 8, 4)
    assert facts.spacing == pytest.approx((2, 3, 5))
    assert facts.voxels == 192


def test_labels_are_counted_with_their_pieces(tmp_path: Path) -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    label[0, 0, 0] = label[7, 7, 7] = label[1, 1, 1] = (
        3  # the first and the last touch
    )
    label[4:6, 4:6, 4:6] = 5
    image = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    facts = inspect_case(write_case(tmp_path, image, label))
    three, five = facts.labels
    assert (three.value, three.voxels, three.components) == (3, 3, 2)
    assert (five.value, five.voxels, five.components) == (5, 8, 1)


def test_quantiles_are_of_labelled_voxels_alone(tmp_path: Path) -> None:
    image = np.full((6, 6, 6), 1000, np.float32)
    label = np.zeros((6, 6, 6), np.uint8)
    label[:2] = 1
    image[:2] = np.linspace(10, 20, 72).reshape(2, 6, 6)
    (channel,) = inspect_case(write_case(tmp_path, image, label)).channels
    assert (channel.foreground[0], channel.foreground[-1]) == (10, 20)
    assert (channel.minimum, channel.maximum) == (10, 1000)


def test_a_black_frame_counts_only_where_no_label_lies_in_it(
    tmp_path: Path,
) -> None:
    image = np.zeros((10, 10, 10), np.float32)
    image[2:7, 2:7, 2:7] = 5
    inside, outside = np.zeros((2, 10, 10, 10), np.uint8)
    inside[3, 3, 3] = outside[9, 9, 9] = 1
    assert inspect_case(
        write_case(tmp_path / "in", image, inside)
    ).nonzero_share == pytest.approx(0.125)
    assert (
        inspect_case(write_case(tmp_path / "out", image, outside)).nonzero_share
        == 1
    )


def test_a_case_is_looked_at_once_and_a_changed_one_again(
    tmp_path: Path,
) -> None:
    image = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    case = write_case(tmp_path / "case", image, (image > 60).astype(np.uint8))
    events: list[Event] = []
    first = fingerprint(case, tmp_path / "cache", events)
    assert [e.done for e in events if isinstance(e, Progress)] == [0, 1]
    (kept,) = (tmp_path / "cache").iterdir()
    assert "case" not in kept.read_text()
    stamp = kept.stat().st_mtime_ns
    assert fingerprint(case, tmp_path / "cache") == first
    assert kept.stat().st_mtime_ns == stamp
    write_case(tmp_path / "case", image, (image > 50).astype(np.uint8))
    assert fingerprint(case, tmp_path / "cache").cases[0].labels[0].voxels == 13
    kept.write_text("{torn")
    case = write_case(tmp_path / "case", image, (image > 60).astype(np.uint8))
    assert fingerprint(case, tmp_path / "cache") == first


def test_bad_cases_are_named_and_the_others_seen(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 1, shape=(12, 10, 8))
    good = Scan("good", ((data / "imagesTr" / "phantom_000.nii.gz",),))
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(good.parts[0][0].read_bytes()[:-300])
    label = data / "labelsTr" / "phantom_000.nii.gz"
    cases = (
        Case(good, label, None, "a"),
        Case(Scan("torn", ((torn,),)), label, None, "b"),
    )
    found = extract_fingerprint(CaseList(cases), tmp_path / "cache")
    assert len(found.cases) == 1
    assert found.label_values == (1, 2)
    assert [fault.where for fault in found.faults] == ["torn"]


def test_what_is_no_label_map_is_refused(tmp_path: Path) -> None:
    image = np.arange(1728, dtype=np.int32).reshape(12, 12, 12)
    with pytest.raises(ScanError, match="1728 different values"):
        inspect_case(write_case(tmp_path, image, image))
    random = np.random.default_rng(0)
    grey = random.integers(0, 120, (12, 12, 12)).astype(np.uint8)
    with pytest.raises(ScanError, match="as grey values of an image do"):
        inspect_case(write_case(tmp_path, image, grey))


def test_what_nobody_annotated_is_not_looked_at(tmp_path: Path) -> None:
    image = np.full((6, 6, 6), 1000, np.float32)
    label = np.full((6, 6, 6), 4, np.uint8)
    label[:2] = 1
    image[:2] = 10
    case = write_case(tmp_path, image, label)
    facts = inspect_case(case, ignore=4)
    assert [la.value for la in facts.labels] == [1]
    assert facts.channels[0].foreground[-1] == 10
    cache = tmp_path / "cache"
    assert extract_fingerprint(
        CaseList((case,)), cache, ignore=4
    ).label_values == (1,)
    assert extract_fingerprint(CaseList((case,)), cache).label_values == (1, 4)


def test_voxels_beside_a_header_are_looked_at_again_when_they_change(
    tmp_path: Path,
) -> None:
    import SimpleITK as sitk

    image, label = tmp_path / "image.mhd", tmp_path / "label.mhd"
    case = Case(Scan("case", ((image,),)), label, None, "case")
    found = []
    for voxels in (5, 7):
        labels = np.zeros((6, 6, 6), np.uint8)
        labels[0, 0, :voxels] = 1
        labels[1, :voxels, 1] = 1
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(label))
        sitk.WriteImage(
            sitk.GetImageFromArray(labels.astype(np.float32)), str(image)
        )
        found.append(
            fingerprint(case, tmp_path / "cache").cases[0].labels[0].voxels
        )
    assert found == [10, 12]


def test_a_case_with_other_channels_than_most_is_named(tmp_path: Path) -> None:
    cases = []
    for name, channels in (("a", 1), ("b", 2), ("c", 2)):
        image = (
            np.random.default_rng(0)
            .normal(size=(4, 4, 4, channels))
            .astype(np.float32)
        )
        made = write_case(tmp_path / name, image, np.zeros((4, 4, 4), np.uint8))
        cases.append(Case(Scan(name, made.scan.parts), made.label, None, name))
    found = extract_fingerprint(CaseList(tuple(cases)), tmp_path / "cache")
    assert [len(case.channels) for case in found.cases] == [2, 2]
    (fault,) = found.faults
    assert (fault.where, fault.what) == (
        "a",
        "has 1 channels, while most cases have 2",
    )


def test_a_label_map_in_another_order_is_measured_where_it_lies(
    tmp_path: Path,
) -> None:
    image = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    case = write_case(tmp_path, image, (image > 1).astype(np.uint8))
    straight = inspect_case(case)
    label = nib.load(case.label)
    nib.save(in_other_order(label, (2, 0, 1), (-1, 1, 1)), case.label)
    assert inspect_case(case) == straight


def test_padding_is_left_out_of_all_that_is_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    image = rng.gamma(2, 50, (9, 8, 7)).astype(np.float32) + 5
    label = np.zeros((9, 8, 7), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    plain = inspect_case(write_case(tmp_path / "plain", image, label))
    around = ((2, 2), (0, 3), (0, 0))
    framed = np.pad(image, around, constant_values=np.nan)
    # A voxel that shows nothing, but was labelled.
    framed[4, 2, 2] = np.nan
    labels = np.pad(label, around)
    padded = inspect_case(write_case(tmp_path / "padded", framed, labels))
    assert plain.measures is not None
    assert padded.measures is not None
    # Of one labelled voxel less and one shown voxel less; the rest is the same.
    (channel,), (expected,) = padded.channels, plain.channels
    assert channel.minimum == expected.minimum
    assert channel.maximum == expected.maximum
    assert channel.percentile_99_5 == pytest.approx(
        expected.percentile_99_5, rel=0.02
    )
    inside = np.delete(image[2:5, 2:5, 2:5].reshape(-1), 0)
    assert channel.foreground[100] == pytest.approx(np.median(inside))
    ((low, high),) = padded.measures.ranges
    shown = np.delete(
        image.reshape(-1), np.ravel_multi_index((2, 2, 2), image.shape)
    )
    assert [low, high] == pytest.approx(np.quantile(shown, [0.005, 0.995]))
    (measured,) = padded.measures.labels
    assert measured.medians == pytest.approx((np.median(inside),))
    # Padding is no foreground: the box of what is above 0 is that of the image.
    assert plain.nonzero_share == 1
    assert padded.nonzero_share == pytest.approx(9 * 8 / (13 * 11))
