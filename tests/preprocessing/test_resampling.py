"""Resampling takes MONAI's values at MONAI's places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Spacing
from scipy.spatial.transform import Rotation

from medseg.errors import GeometryError
from medseg.preprocessing.grid_map import GridMap, compute_spacing_maps
from medseg.preprocessing.resampling import resample_linear, resample_nearest
from medseg.volume import Affine, Array

axes_mm = st.one_of(
    st.none(), st.floats(0.7, 4.0), st.sampled_from([0.5, 1.0, 2.0])
)


@st.composite
def affines(draw: Any, shear: bool = False) -> Affine:
    """Axis-aligned, oblique or sheared affines with any voxel size."""
    spacing = [
        draw(st.one_of(st.floats(0.5, 5), st.sampled_from([0.5, 1.0, 2.0])))
        for _ in "ijk"
    ]
    angles = draw(
        st.tuples(*[st.sampled_from([0.0, 0.0, 3.0, 20.0, -35.0])] * 3)
    )
    slant = np.eye(3)
    if shear:
        slant[0, 1], slant[1, 2] = (
            draw(st.floats(-0.3, 0.3)),
            draw(st.floats(0.05, 0.5)),
        )
    affine: Affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ slant @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


shapes = st.tuples(*[st.integers(1, 14)] * 3)


def image(shape: tuple[int, ...], channels: int = 1) -> Array:
    """Intensities of CT with many exact zeros."""
    rng = np.random.default_rng(sum(shape))
    return np.maximum(rng.normal(0, 400, (channels, *shape)), 0).astype(
        np.float32
    )


def monai_spacing(spacing_mm: list[float | None]) -> Spacing:
    return Spacing(
        pixdim=[-1.0 if mm is None else mm for mm in spacing_mm],
        padding_mode="border",
    )


def check_there_and_back(
    affine: Affine, shape: tuple[int, int, int], mm: list[float | None]
) -> None:
    spacing = monai_spacing(mm)
    array = image(shape)
    wanted = spacing(
        MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine))
    )
    there, back = compute_spacing_maps(affine, shape, mm)
    got = resample_linear(array, there)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted.as_tensor(), atol=1e-4, rtol=1e-5)
    scores = torch.from_numpy(image(there.target, channels=2))
    wanted_back = spacing.inverse(
        MetaTensor(
            scores.clone(),
            meta=wanted.meta,
            applied_operations=wanted.applied_operations,
        )
    )
    got_back = resample_linear(scores.numpy(), back)
    assert got_back.shape == (2, *shape)
    assert torch.allclose(
        got_back, wanted_back.as_tensor(), atol=1e-4, rtol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(affines(), shapes, st.lists(axes_mm, min_size=3, max_size=3))
def test_straight_grids_are_sampled_where_monai_samples_them(
    affine: Affine, shape: tuple[int, int, int], mm: list[float | None]
) -> None:
    check_there_and_back(affine, shape, mm)


@settings(max_examples=30, deadline=None)
@given(affines(shear=True), shapes, st.lists(axes_mm, min_size=3, max_size=3))
def test_sheared_grids_are_sampled_where_monai_samples_them(
    affine: Affine, shape: tuple[int, int, int], mm: list[float | None]
) -> None:
    check_there_and_back(affine, shape, mm)


def test_no_spacing_moves_nothing() -> None:
    there, back = compute_spacing_maps(np.diag([2.0, 3, 4, 1]), (5, 6, 7), None)
    assert there.is_identity
    assert back.is_identity
    array = image((5, 6, 7))
    assert np.array_equal(resample_linear(array, there).numpy(), array)


def test_own_spacing_moves_nothing() -> None:
    assert compute_spacing_maps(
        np.diag([2.0, 3, 4.0005, 1]), (5, 6, 7), (2, None, 4)
    )[0].is_identity


@pytest.mark.parametrize("mm", [1.0, 0.5, 1.5])
def test_what_monai_rounds_to_zero_is_zero_and_what_it_does_not_is_not(
    mm: float,
) -> None:
    # Normalisations that leave out zeros see the difference between 0 and 1e-14.
    affine = np.diag([0.5, 1.0, 2.0, 1.0])
    array = image((23, 17, 12))
    spacing = monai_spacing([mm] * 3)
    wanted = spacing(
        MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine))
    )
    got = resample_linear(
        array, compute_spacing_maps(affine, (23, 17, 12), [mm] * 3)[0]
    )
    assert torch.equal(got == 0, wanted.as_tensor() == 0)
    assert 0 < int((got == 0).sum()) < got.numel()


def test_affines_rounded_to_float32_are_straight_and_sheared_ones_are_not() -> (
    None
):
    affine: Affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [11, -23, 5], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([0.7, 0.7, 2.5])
    rounded = affine.astype(np.float32).astype(np.float64)
    shape = (512, 512, 300)
    assert all(
        part.is_axis_aligned
        for part in compute_spacing_maps(rounded, shape, (1.5, 1.5, 1.5))
    )
    affine[:3, 2] += 0.01 * affine[:3, 1]
    assert not any(
        part.is_axis_aligned
        for part in compute_spacing_maps(affine, shape, (1.5, 1.5, 1.5))
    )


@pytest.mark.parametrize("kind", ["i2", ">i2", "u2", "f8", ">f4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_type_and_any_strides(kind: str, order: Any) -> None:
    values = (
        (image((9, 8, 7), channels=2) > 300)
        if kind == "?"
        else image((9, 8, 7), channels=2)
    )
    array = np.array(values.astype(kind), order=order)[:, ::-1, :, ::2]
    array.flags.writeable = False
    there, _ = compute_spacing_maps(
        np.diag([1, 1, 2, 1.0]), (9, 8, 4), (1.3, 0.8, 1.1)
    )
    plain = resample_linear(
        np.ascontiguousarray(array, dtype=np.float32), there
    )
    assert torch.allclose(resample_linear(array, there), plain, atol=1e-3)


def test_a_large_image_is_read_in_parts_with_no_seam() -> None:
    array = np.broadcast_to(np.arange(40, dtype=np.int16), (1, 300, 300, 40))
    there = GridMap(np.diag([1, 1, 0.5, 1.0]), (300, 300, 40), (300, 300, 79))
    got = resample_linear(
        array.transpose(0, 3, 1, 2),
        GridMap(np.diag([0.5, 1, 1, 1.0]), (40, 300, 300), (79, 300, 300)),
    )
    assert torch.allclose(got[0, :, 7, 9], torch.arange(79) / 2)
    assert torch.allclose(
        resample_linear(array, there)[0, 7, 9], torch.arange(79) / 2
    )


def test_axes_that_cannot_be_told_apart_are_an_error() -> None:
    affine: Affine = np.eye(4)
    affine[:3, 1] = [1, 1e-9, 0]
    with pytest.raises(GeometryError, match="geometry is broken"):
        compute_spacing_maps(affine, (4, 4, 4), (2, 2, 2))


@given(st.integers(0, 200), st.sampled_from([0.7, 1.3, 2.0]))
def test_labels_come_from_the_nearest_voxel(seed: int, mm: float) -> None:
    labels = (
        np.random.default_rng(seed).integers(0, 5, (9, 8, 7)).astype(np.uint8)
    )
    there, _ = compute_spacing_maps(np.eye(4), labels.shape, (mm, mm, mm))
    made = resample_nearest(labels, there)
    assert made.dtype == labels.dtype
    for target in np.ndindex(made.shape):
        place = (there.matrix @ [*target, 1])[:3].clip(
            0, np.array(labels.shape) - 1
        )
        around = labels[
            tuple(
                slice(int(x - 0.501) + (x > 0.501), int(x + 0.501) + 1)
                for x in place
            )
        ]
        assert made[target] in around
    assert (
        resample_nearest(
            labels, compute_spacing_maps(np.eye(4), labels.shape, None)[0]
        )
        is labels
    )
