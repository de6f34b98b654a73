"""Scores of label maps against arithmetic by hand, MONAI's own, and properties."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medseg.labels import Label, LabelSet, Region, default_colour
from medseg.metrics.metrics import (
    METRICS,
    CaseScores,
    LabelScores,
    score_case,
    score_dice,
)
from medseg.metrics.statistics import summarise


def label_set(*names: str) -> LabelSet:
    return LabelSet(
        [
            Label(n, name, n, default_colour(n))
            for n, name in enumerate(names, 1)
        ]
    )


ONE = label_set("liver")
TWO = label_set("liver", "tumour")


def cube(
    shape=(20, 20, 20), start=(5, 5, 5), size=(6, 6, 6), index=1
) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = (
        index
    )
    return array


def one(
    prediction, reference, spacing=(1.0, 1.0, 1.0), tolerance_mm=1.0
) -> LabelScores:
    return score_case(prediction, reference, ONE, spacing, tolerance_mm).labels[
        "liver"
    ]


def test_equal_masks_are_perfect():
    scores = one(cube(), cube(), (0.5, 2.0, 3.0))
    assert (scores.dice, scores.iou, scores.hd95, scores.nsd) == (1, 1, 0, 1)
    assert scores.volume_error_ml == 0
    assert scores.volume_error_percent == 0
    assert not scores.missed


def test_a_shifted_cube_by_hand():
    # 6³ = 216 voxels, shifted by 2 along k: 6 · 6 · 4 = 144 in common.
    scores = one(cube(start=(5, 5, 7)), cube(), (1.0, 1.0, 2.5))
    assert scores.dice == pytest.approx(2 * 144 / 432)
    assert scores.iou == pytest.approx(144 / 288)
    assert scores.reference_ml == pytest.approx(216 * 2.5 / 1000)
    assert scores.predicted_ml == pytest.approx(216 * 2.5 / 1000)
    # Each surface has 6³ - 4³ = 152 voxels. The end plane that sticks out has 36 of them, 2 voxels
    # (5 mm) from the other cube: more than 5 %, so that is the 95th percentile.
    assert scores.hd95 == pytest.approx(5.0)
    # Within 1 mm: the side walls of the 4 shared planes (20 voxels round each), and on the end
    # plane inside the other cube the ring of 12 voxels beside its rim.
    near = 4 * 20 + 12
    assert scores.nsd == pytest.approx(near / 152)


def test_spacing_counts_on_the_axis_it_belongs_to():
    spacing = (0.5, 1.0, 4.0)
    shifts = [((8, 5, 5), 1.5), ((5, 8, 5), 3.0), ((5, 5, 8), 12.0)]
    for start, expected in shifts:
        assert one(cube(start=start), cube(), spacing).hd95 == pytest.approx(
            expected
        )


def test_volume_error_has_a_sign():
    too_large = one(cube(size=(6, 6, 9)), cube(), (1.0, 1.0, 2.0))
    assert too_large.volume_error_ml == pytest.approx(108 * 2 / 1000)
    assert too_large.volume_error_percent == pytest.approx(50)
    too_small = one(cube(size=(6, 6, 3)), cube(), (1.0, 1.0, 2.0))
    assert too_small.volume_error_percent == pytest.approx(-50)


def test_a_sheared_grid_gives_its_own_voxel_volume():
    scores = score_case(
        cube(), cube(), ONE, (1.0, 1.0, 2.0), voxel_ml=0.0015
    ).labels["liver"]
    assert scores.reference_ml == pytest.approx(216 * 0.0015)


def test_distance_of_one_voxel_is_within_one_mm_whatever_the_affines_digits():
    spacing = (1.0000001, 0.99999994, 1.0000002)
    assert (
        one(cube(start=(6, 6, 6), size=(4, 4, 4)), cube(), spacing).nsd
        == one(cube(start=(6, 6, 6), size=(4, 4, 4)), cube()).nsd
    )
    assert one(np.roll(cube(), 1, 2), cube(), spacing).nsd == 1


def test_both_empty_is_no_score():
    scores = one(cube() * 0, cube() * 0)
    assert all(math.isnan(getattr(scores, metric)) for metric in METRICS)
    assert math.isnan(scores.volume_error_ml)
    assert (scores.reference_ml, scores.predicted_ml, scores.missed) == (
        0,
        0,
        False,
    )


@pytest.mark.parametrize("predicted", [False, True])
def test_one_empty_is_a_counted_miss(predicted):
    empty, full = np.zeros((20, 20, 20), np.uint8), cube()
    pair = (full, empty) if predicted else (empty, full)
    scores = one(*pair, spacing=(1.0, 2.0, 3.0))
    assert (scores.dice, scores.iou, scores.nsd) == (0, 0, 0)
    assert scores.hd95 == pytest.approx(math.sqrt(20**2 + 40**2 + 60**2))
    assert scores.missed
    assert math.isnan(scores.volume_error_percent) == predicted


def test_one_slice_is_scored_by_its_contour():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:40, :30]
    reference = ((y - 20) ** 2 / 1.6 + (x - 14) ** 2 < 90).astype(np.uint8)
    prediction = np.roll(reference, (3, -2), (0, 1))
    prediction[(rng.random(reference.shape) < 0.01) & (reference == 0)] = 1
    spacing = (0.7, 1.3)
    flat = [
        torch.from_numpy(a[None, None].astype(bool))
        for a in (prediction, reference)
    ]
    hd95 = compute_hausdorff_distance(*flat, include_background=True, percentile=95,
                                      spacing=spacing)  # fmt: skip
    nsd = compute_surface_dice(
        *flat, [1.0], include_background=True, spacing=spacing
    )
    for axis in range(3):
        size = list(spacing)
        size.insert(axis, 99.0)
        scores = one(
            np.expand_dims(prediction, axis),
            np.expand_dims(reference, axis),
            tuple(size),
        )
        assert scores.hd95 == pytest.approx(float(hd95), rel=1e-5)
        assert scores.nsd == pytest.approx(float(nsd), rel=1e-5)


def test_one_slice_is_penalised_by_its_own_diagonal():
    reference = np.zeros((30, 40, 1), np.uint8)
    reference[4:9, 4:9] = 1
    assert one(reference * 0, reference, (1.0, 1.0, 7.0)).hd95 == pytest.approx(
        50
    )


def test_a_single_voxel_can_be_scored():
    voxel = np.ones((1, 1, 1), np.uint8)
    assert one(voxel, voxel).dice == 1
    assert one(voxel, voxel * 0).hd95 == 1


def test_surfaces_are_those_of_monai():
    rng = np.random.default_rng(0)
    coarse = rng.random((5, 6, 4)) > 0.4
    reference = np.kron(coarse, np.ones((4, 3, 5))).astype(np.uint8)
    prediction = np.roll(reference, (2, 1, 1), (0, 1, 2))
    spacing = (0.8, 0.9, 2.5)
    scores = one(prediction, reference, spacing, tolerance_mm=1.5)
    batch = [
        torch.from_numpy(a[None, None].astype(bool))
        for a in (prediction, reference)
    ]
    hd95 = compute_hausdorff_distance(*batch, include_background=True, percentile=95,
                                      spacing=spacing)  # fmt: skip
    nsd = compute_surface_dice(
        *batch, [1.5], include_background=True, spacing=spacing
    )
    assert scores.hd95 == pytest.approx(float(hd95), rel=1e-5)
    assert scores.nsd == pytest.approx(float(nsd), rel=1e-5)


def test_a_mask_at_the_image_border_has_a_surface_there():
    scores = one(
        cube((8, 8, 8), (0, 0, 0), (8, 8, 7)), np.ones((8, 8, 8), np.uint8)
    )
    assert scores.hd95 == pytest.approx(1.0)
    assert scores.nsd == 1


@pytest.mark.parametrize(
    "dtype", [np.int64, np.uint16, np.float32, bool, ">i2"]
)
def test_kinds_of_arrays(dtype):
    expected = one(cube(start=(6, 5, 5)), cube())
    assert (
        one(cube(start=(6, 5, 5)).astype(dtype), cube().astype(dtype))
        == expected
    )


def test_the_order_in_memory_changes_no_score():
    predicted, expected = cube(size=(6, 3, 5)), cube(size=(4, 6, 2))
    scores = one(predicted, expected, (1.0, 2.0, 3.0))
    for make in (np.asfortranarray, np.ascontiguousarray):
        other = one(make(predicted), np.asfortranarray(expected), (1, 2, 3))
        assert other == scores


def test_tensors_are_arrays_too():
    expected = one(cube(start=(6, 5, 5)), cube())
    assert (
        one(
            torch.from_numpy(cube(start=(6, 5, 5))),
            torch.from_numpy(cube()).long(),
        )
        == expected
    )


def test_values_outside_the_label_set_are_background():
    reference = cube(start=(0, 0, 0), size=(3, 3, 3), index=7) + cube()
    assert one(cube(), reference).dice == 1


def test_wrong_calls_say_what_came():
    with pytest.raises(ValueError, match=r"\(20, 20, 20\) and \(20, 20, 19\)"):
        one(cube(), cube()[..., :-1])
    with pytest.raises(ValueError, match="one shape"):
        one(cube()[None], cube()[None])
    with pytest.raises(ValueError, match="spacing"):
        one(cube(), cube(), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="tolerance_mm"):
        one(cube(), cube(), tolerance_mm=-1)
    with pytest.raises(ValueError, match="whole numbers"):
        one(cube() * 0.5, cube())


shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
pairs = shapes.flatmap(
    lambda shape: st.tuples(
        *[hnp.arrays(np.uint8, shape, elements=st.integers(0, 2))] * 2
    )
)
spacings = st.tuples(*[st.floats(0.2, 8)] * 3)


@settings(max_examples=60, deadline=None)
@given(pairs, spacings)
def test_properties(pair, spacing):
    prediction, reference = pair
    scores = score_case(prediction, reference, TWO, spacing)
    mirrored = score_case(reference, prediction, TWO, spacing)
    perfect = score_case(reference, reference, TWO, spacing)
    swap = np.array([0, 2, 1], np.uint8)
    permuted = score_case(
        swap[prediction], swap[reference], label_set("tumour", "liver"), spacing
    )
    diagonal = math.hypot(
        *(n * size for n, size in zip(reference.shape, spacing, strict=True))
    )
    for name, label in scores.labels.items():
        assert equal(permuted.labels[name], label)
        for metric in METRICS:
            assert same(
                getattr(label, metric), getattr(mirrored.labels[name], metric)
            )
        if (
            name
            not in np.array(("", "liver", "tumour"))[
                np.union1d(prediction, reference)
            ]
        ):
            assert math.isnan(label.dice)
            continue
        assert all(
            0 <= getattr(label, metric) <= 1
            for metric in ("dice", "iou", "nsd")
        )
        assert 0 <= label.hd95 <= diagonal * (1 + 1e-6)
        assert label.dice == pytest.approx(2 * label.iou / (1 + label.iou))
        if label.reference_ml:
            best = perfect.labels[name]
            assert (best.dice, best.iou, best.hd95, best.nsd) == (1, 1, 0, 1)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def equal(a: LabelScores, b: LabelScores) -> bool:
    return all(map(same, dataclasses.astuple(a), dataclasses.astuple(b)))


@pytest.mark.parametrize("seed", range(4))
def test_dice_alone_is_the_dice_of_all_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, expected = rng.integers(0, 4, (2, 7, 6, 5)).astype(np.uint8)
    predicted[expected == 2] = 0
    whole = score_case(predicted, expected, TWO, (1, 1, 1))["dice"]
    assert score_dice(predicted, expected, TWO) == whole
    empty = score_dice(predicted * 0, expected * 0, TWO)
    assert all(math.isnan(value) for value in empty.values())
    with pytest.raises(ValueError, match="one shape"):
        score_dice(predicted, expected[:5], TWO)


def test_case_scores_by_metric():
    label = score_case(cube(), cube(), ONE, (1, 1, 1)).labels["liver"]
    halves = dataclasses.replace(label, dice=0.5)
    case = CaseScores(
        {"liver": halves, "tumour": dataclasses.replace(label, dice=math.nan)},
        "a",
    )
    assert case["dice"]["liver"] == 0.5
    assert case.mean_dice == 0.5


def test_a_validation_of_hippocampi_takes_no_time(shared_data):
    import nibabel

    paths = sorted((shared_data / "hippocampus" / "labelsTr").glob("*.nii.gz"))[
        :39
    ]
    references = [
        np.asarray(nibabel.load(path).dataobj).astype(np.uint8)
        for path in paths
    ]
    labels = label_set("anterior", "posterior")
    started = time.process_time()
    scores = [
        score_case(np.roll(reference, 1, 1), reference, labels, (1.0, 1.0, 1.0))
        for reference in references
    ]
    assert time.process_time() - started < 3
    assert 0.7 < summarise(scores)["dice"]["mean"] < 0.95


@settings(max_examples=40, deadline=None)
@given(
    reference=hnp.arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 3)),
    prediction=hnp.arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 2)),
    other=hnp.arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 2)),
)
def test_predictions_at_ignored_voxels_change_no_score(
    reference, prediction, other
):
    labels = LabelSet(tuple(TWO), ignore=200)
    changed = np.where(reference == labels.ignore_index, other, prediction)
    spacing = (1.0, 2.0, 3.0)
    found = score_case(prediction, reference, labels, spacing)
    again = score_case(
        torch.from_numpy(changed), torch.from_numpy(reference), labels, spacing
    )
    # Text, because NaN is not equal to itself.
    assert repr(found) == repr(again)


def test_volumes_leave_ignored_voxels_out():
    labels = LabelSet(tuple(ONE), ignore=2)
    reference, prediction = cube(), cube()
    reference[5:8] = labels.ignore_index
    scores = score_case(prediction, reference, labels, (1.0, 1.0, 1.0)).labels[
        "liver"
    ]
    assert scores.dice == 1
    assert (
        scores.reference_ml
        == scores.predicted_ml
        == pytest.approx(3 * 36 / 1000)
    )


# --- regions ---

NESTED = LabelSet(
    list(label_set("edema", "core", "enhancing")),
    regions=[
        Region("whole", (1, 2, 3), channel=0, paints=1),
        Region("inner", (2, 3), channel=1, paints=2),
        Region("enhancing", (3,), channel=2, paints=3),
    ],
)


def test_regions_are_scored_as_one_structure_each():
    rng = np.random.default_rng(0)
    predicted, expected = rng.integers(0, 4, (2, 9, 8, 7)).astype(np.uint8)
    found = score_case(predicted, expected, NESTED, (1.0, 2.0, 3.0))
    assert list(found.labels) == ["whole", "inner", "enhancing"]
    for region in NESTED.regions:
        masks = (
            np.isin(array, region.labels).astype(np.uint8)
            for array in (predicted, expected)
        )
        alone = score_case(*masks, ONE, (1.0, 2.0, 3.0)).labels["liver"]
        assert found.labels[region.name] == alone
    assert score_dice(predicted, expected, NESTED) == pytest.approx(
        found["dice"]
    )


def test_a_region_that_only_one_side_holds_is_missed():
    scores = score_case(
        cube(index=1), cube(index=2), NESTED, (1.0, 1.0, 1.0)
    ).labels
    assert scores["whole"].dice == 1
    assert scores["inner"].missed
    assert math.isnan(scores["enhancing"].dice)
    assert score_dice(cube(index=1), cube(index=2), NESTED)["inner"] == 0


def test_values_that_are_no_label_are_background_for_regions_too():
    expected = cube(index=2)
    predicted = expected + cube(start=(0, 0, 0), size=(3, 3, 3), index=9)
    assert score_dice(predicted, expected, NESTED)["whole"] == 1
