"""Volumes: shape, place, and what is refused."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.label_maps import in_other_order

from medseg.errors import GeometryError, ScanError
from medseg.volume import Volume

OBLIQUE = np.array(
    [[1.6, -0.9, 0, 5], [1.2, 1.2, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1]]
)


def volume(
    shape: Any = (2, 3, 4, 5), affine: Any = OBLIQUE, **keywords: Any
) -> Volume:
    return Volume(np.zeros(shape, np.float32), affine, **keywords)


def test_a_volume_knows_its_size() -> None:
    one = volume()
    assert one.shape == (3, 4, 5)
    assert one.spacing == pytest.approx((2.0, 1.5, 2.5))
    assert one.voxel_ml == pytest.approx(2.0 * 1.5 * 2.5 / 1000)


@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_shear_counts_in_a_voxels_volume(shear: Any) -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[0, 1], affine[0, 2], affine[1, 2] = shear
    assert volume(affine=affine).voxel_ml == pytest.approx(24 / 1000)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((3, 4, 5), np.eye(4)),
        ((1, 0, 4, 5), np.eye(4)),
        ((1, 1, 3, 4, 5), np.eye(4)),
        ((1, 3, 4, 5), np.eye(3)),
        ((1, 3, 4, 5), np.diag([1, 1, 0, 1])),
        ((1, 3, 4, 5), np.diag([1, np.nan, 1, 1])),
        ((1, 3, 4, 5), np.diag([1, np.inf, 1, 1])),
    ],
)
def test_a_volume_without_place_or_voxels_is_refused(
    shape: Any, affine: Any
) -> None:
    with pytest.raises(GeometryError, match=r"scan\.nii"):
        volume(shape, affine, source="scan.nii")


def test_the_affine_is_a_fixed_copy_in_double_precision() -> None:
    one = volume(affine=OBLIQUE.astype(np.float32))
    assert one.affine.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        one.affine[0, 0] = 1


def test_the_same_grid_is_where_every_corner_is() -> None:
    moved = OBLIQUE.copy()
    moved[0, 3] += 0.5
    turned = OBLIQUE.copy()
    turned[0, 0] += 0.25
    one = volume()
    assert one.on_same_grid(volume((1, 3, 4, 5)))
    assert one.grid_distance(volume(affine=moved)) == pytest.approx(0.5)
    # At index 2.
    assert one.grid_distance(volume(affine=turned)) == pytest.approx(0.5)
    assert not one.on_same_grid(volume(affine=moved))
    assert one.on_same_grid(volume(affine=moved), tolerance_mm=0.6)
    assert not one.on_same_grid(volume((2, 3, 4, 6)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_volumes_that_must_share_a_grid_agree_in_shape_and_place(
    axis: int,
) -> None:
    scan = volume(affine=OBLIQUE)
    moved = OBLIQUE.copy()
    moved[axis, 3] += 2.5
    shape = [1, 3, 4, 5]
    shape[axis + 1] += 1

    scan.require_same_grid(
        volume(affine=OBLIQUE + 1e-4), "the scan and its label map"
    )
    with pytest.raises(
        GeometryError, match="the scan and its label map differ in shape"
    ):
        scan.require_same_grid(
            volume(tuple(shape)), "the scan and its label map"
        )
    with pytest.raises(GeometryError, match=r"2\.50 mm apart") as caught:
        scan.require_same_grid(
            volume(affine=moved, source="label.nii"), "the two"
        )
    assert caught.value.source == "label.nii"
    scan.require_same_grid(volume(affine=moved), "the two", tolerance_mm=2.6)


def test_other_voxels_on_the_same_grid() -> None:
    one = volume(source="a", warnings=("w",), header="h")
    other = one.with_array(np.ones((1, 3, 4, 5)))
    assert (other.source, other.warnings, other.header) == ("a", ("w",), "h")
    assert np.array_equal(other.affine, one.affine)
    with pytest.raises(GeometryError, match="an array of shape"):
        one.with_array(np.ones((1, 3, 4, 4)))


def test_arrays_of_two_to_four_axes_become_volumes() -> None:
    for shape, expected in (((4, 5), (1, 4, 5, 1)), ((4, 5, 6), (1, 4, 5, 6))):
        made = Volume.from_numpy(
            np.ones(shape), spacing=(1, 2, 3)[: max(2, len(shape))]
        )
        assert made.array.shape == expected
        assert made.array.dtype == np.float32
    assert Volume.from_numpy(np.ones((2, 4, 5, 6)), np.eye(4)).array.shape == (
        2,
        4,
        5,
        6,
    )
    with pytest.raises(GeometryError, match="three lengths"):
        Volume.from_numpy(np.ones((4, 5, 6)), spacing=(1, 2))
    for shape in ((4,), (1, 1, 4, 5, 6)):
        with pytest.raises(GeometryError, match="shape"):
            Volume.from_numpy(np.ones(shape), np.eye(4))


@pytest.mark.parametrize(
    "spacing", [(1,), (1, 2, 3, 4), (1, 0, 2), (1, -1, 2), (1, np.nan, 2)]
)
def test_spacings_that_are_no_lengths_are_refused(spacing: Any) -> None:
    with pytest.raises(GeometryError, match="three lengths in mm above 0"):
        Volume.from_numpy(np.ones((3, 4, 5)), spacing=spacing)


def test_grid_takes_no_memory_and_lies_where_the_volume_lies() -> None:
    one = volume(header="h")
    assert one.grid.array.strides == (0, 0, 0, 0)
    assert one.grid.header == "h"
    one.require_same_grid(one.grid, "a volume and its grid")


def test_errors_about_a_volume_keep_its_name_apart() -> None:
    for make in (
        lambda: volume((3, 4, 5), source="mueller.nii"),
        lambda: volume(affine=np.zeros((4, 4)), source="mueller.nii"),
        lambda: volume(affine=np.eye(3), source="mueller.nii"),
        lambda: volume().require_same_grid(
            volume((1, 1, 1, 1), source="mueller.nii"), "the two"
        ),
        lambda: Volume.from_numpy(np.ones((3, 4)), source="mueller.nii"),
    ):
        with pytest.raises(GeometryError) as caught:
            make()
        assert caught.value.source == "mueller.nii"
        assert "mueller" not in caught.value.message


AXES = st.permutations((0, 1, 2)).map(tuple)
ENDS = st.tuples(*[st.sampled_from((1, -1))] * 3)
SHEARS = st.tuples(*[st.floats(-0.3, 0.3)] * 3)


@settings(max_examples=200)
@given(AXES, ENDS, SHEARS, st.tuples(*[st.integers(1, 4)] * 3))
def test_the_same_voxels_in_any_order_come_into_that_of_the_grid(
    axes: Any, ends: Any, shear: Any, shape: Any
) -> None:
    affine = OBLIQUE.copy()
    affine[0, 1] += shear[0]
    affine[0, 2], affine[1, 2] = shear[1:]
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    stored = in_other_order(nib.Nifti1Image(values, affine), axes, ends)
    scan = volume((1, *shape), affine)
    other = Volume(
        np.asarray(stored.dataobj)[None],
        stored.affine,
        "mask.nii",
        ("a doubt",),
        "its header",
    )

    found = scan.reorder_to_grid(other, "the scan and its mask")

    assert np.array_equal(found.array[0], values)
    assert scan.on_same_grid(found, 1e-9)
    assert (found.source, found.warnings) == ("mask.nii", ("a doubt",))
    if found is not other:
        assert found.header is None


def test_every_channel_is_reordered_alike() -> None:
    values = np.random.default_rng(0).random((2, 3, 4, 5))
    back_to_front = OBLIQUE @ np.array(
        [[1, 0, 0, 0], [0, -1, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    stored = Volume(values[:, :, ::-1], back_to_front)
    found = volume().reorder_to_grid(stored, "the two")
    assert np.array_equal(found.array, values)
    assert min(found.array.strides) > 0


def test_a_volume_in_order_stays_as_it_is() -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += 1e-3
    other = volume(affine=moved, header="h")
    assert volume().reorder_to_grid(other, "the two") is other


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_grid_that_lies_elsewhere_is_refused(axis: int) -> None:
    ends = [1, 1, 1]
    ends[axis] = -1
    values = np.zeros((3, 4, 5), np.uint8)
    moved = OBLIQUE.copy()
    moved[axis, 3] += 0.02
    flipped = in_other_order(
        nib.Nifti1Image(values, moved), (0, 1, 2), tuple(ends)
    )
    other = Volume(values[None], flipped.affine, "mask.nii")
    with pytest.raises(GeometryError, match="mm apart") as caught:
        volume().reorder_to_grid(other, "the scan and its mask")
    assert caught.value.source == "mask.nii"
    volume().reorder_to_grid(other, "the two", tolerance_mm=0.03)


def test_a_grid_between_two_orders_or_of_another_size_is_refused() -> None:
    c = np.sqrt(0.5)
    turn = np.array([[c, -c, 0, 0], [c, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for other in (
        volume(affine=turn @ OBLIQUE),
        volume((1, 5, 4, 4), OBLIQUE[:, [2, 1, 0, 3]]),
    ):
        with pytest.raises(GeometryError, match="the scan and its mask"):
            volume().reorder_to_grid(other, "the scan and its mask")


def test_arrays_with_nan_become_volumes_with_a_warning() -> None:
    array = np.full((2, 3, 4, 5), 40.0)
    array[0, 0, 0, 0], array[1, 1, 1, 1] = np.nan, 1e300
    array[0, 1], array[1, 2] = -1000, -5
    made = Volume.from_numpy(array, np.eye(4), source="mine")
    assert made.array[0, 0, 0, 0] == -1000
    assert made.array[1, 1, 1, 1] == -5
    assert made.warnings[0].startswith("2 of 120 voxels were not numbers")
    assert made.padding is not None
    assert np.argwhere(made.padding.get_mask()).tolist() == [
        [0, 0, 0, 0],
        [1, 1, 1, 1],
    ]
    assert np.isnan(array[0, 0, 0, 0])
    with pytest.raises(ScanError, match="no voxel of a channel"):
        Volume.from_numpy(array * np.nan, np.eye(4))
