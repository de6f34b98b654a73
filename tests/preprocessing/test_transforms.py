"""Preprocessing and its way back: geometry as properties, intensities by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.bundles import content, made_spec
from support.preprocessing import invert

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.errors import ScanError
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.transforms import IMAGE, LABEL, get_padding_value
from medseg.volume import Volume

PLAIN = {"kind": "window", "low": -5000, "high": 5000, "mean": 0, "std": 1}
"""A normalisation that leaves values between -5000 and 5000 as they are."""

SLOPE = np.array([1.5, -0.7, 2.1])
OFFSET = 11.0


def spec_with(**preprocessing: Any) -> BundleSpec:
    return made_spec(preprocessing={"intensity": PLAIN, **preprocessing})


@st.composite
def affines(draw: st.DrawFn) -> npt.NDArray[np.float64]:
    """Any grid a scanner could give: turned, flipped, axes swapped, anisotropic, tilted."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.7, 4.0)] * 3))
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    shear = draw(st.sampled_from([0.0, 0.0, 0.2, -0.3]))
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if draw(st.booleans()):
        turn = np.eye(3)
    tilt = np.eye(3)
    tilt[1, 2] = shear
    affine = np.eye(4)
    affine[:3, :3] = (turn @ tilt @ np.diag(spacing) @ np.diag(signs))[:, order]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-100, 100)] * 3))
    return affine


def positions(shape: Any, affine: Any) -> npt.NDArray[np.float64]:
    """Return where each voxel lies in the patient, ``(*shape, 3)`` in mm."""
    index = np.stack(
        np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1
    )
    return index @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]


def ramp(shape: Any, affine: Any) -> npt.NDArray[np.float64]:
    """Return intensities that depend linearly on the place in the patient alone."""
    return positions(shape, affine) @ SLOPE + OFFSET


def well_inside(
    points: Any, shape: Any, affine: Any, margin: float = 0.01
) -> Any:
    """Tell which points (in mm) lie between voxel centres of a grid."""
    inverse = np.linalg.inv(np.asarray(affine))
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    return ((index >= margin) & (index <= np.array(shape) - 1 - margin)).all(
        axis=-1
    )


SHAPES = st.tuples(*[st.integers(5, 13)] * 3)
SPACINGS = st.none() | st.tuples(
    *[st.none() | st.sampled_from([0.9, 1.0, 1.7, 2.5])] * 3
)


@settings(max_examples=60, deadline=None)
@given(affine=affines(), shape=SHAPES, spacing=SPACINGS)
def test_the_networks_grid_shows_each_place_of_the_patient_where_its_affine_says(
    affine: Any, shape: Any, spacing: Any
) -> None:
    volume = Volume(ramp(shape, affine)[None].astype(np.float32), affine)
    image = Preprocessing(spec_with(spacing_mm=spacing))(volume)[IMAGE]
    grid = np.asarray(image.affine)
    where = positions(image.shape[1:], grid)
    seen = well_inside(where, shape, affine)
    expected = where @ SLOPE + OFFSET
    assert np.abs(image.numpy()[0] - expected)[seen].max(initial=0) < 0.02
    assert seen.any()
    # Right, anterior and superior come first, second and third, as far as they can.
    if spacing is not None:
        sizes = np.linalg.norm(grid[:3, :3], axis=0)
        wanted = [mm for mm in spacing if mm is not None]
        asked = [axis for axis, mm in enumerate(spacing) if mm is not None]
        assert sizes[asked] == pytest.approx(wanted, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(affine=affines(), shape=SHAPES, spacing=SPACINGS)
def test_scores_come_back_to_the_scans_own_grid(
    affine: Any, shape: Any, spacing: Any
) -> None:
    volume = Volume(ramp(shape, affine)[None].astype(np.float32), affine)
    preprocess = Preprocessing(spec_with(spacing_mm=spacing))
    image = preprocess(volume)[IMAGE]
    network_shape, grid = image.shape[1:], np.asarray(image.affine)
    scores = torch.as_tensor(ramp(network_shape, grid)[None].astype(np.float32))
    back = invert(preprocess, torch.cat([scores, -scores]), image)
    assert back.shape == (2, *shape)
    where = positions(shape, affine)
    known = well_inside(where, network_shape, grid)
    expected = where @ SLOPE + OFFSET
    assert np.abs(back[0].numpy() - expected)[known].max(initial=0) < 0.02
    assert torch.allclose(back[1], -back[0])


@settings(max_examples=40, deadline=None)
@given(affine=affines(), shape=SHAPES, seed=st.integers(0, 99))
def test_labels_come_back_voxel_for_voxel_without_resampling(
    affine: Any, shape: Any, seed: int
) -> None:
    label = np.random.default_rng(seed).integers(0, 3, shape)
    volume = Volume(np.ones((1, *shape), np.float32), affine)
    preprocess = Preprocessing(spec_with(), with_label=True)
    data = preprocess(volume, label)
    assert data[LABEL].shape == data[IMAGE].shape
    assert torch.equal(data[LABEL].affine, data[IMAGE].affine)
    scores = torch.nn.functional.one_hot(data[LABEL].as_tensor()[0].long(), 3)
    back = invert(
        preprocess, scores.movedim(-1, 0).float(), data[IMAGE]
    ).argmax(dim=0)
    assert np.array_equal(back.numpy(), label)


@settings(max_examples=25, deadline=None)
@given(affine=affines(), spacing=SPACINGS.filter(bool))
def test_a_large_structure_survives_resampling_there_and_back(
    affine: Any, spacing: Any
) -> None:
    shape = (22, 20, 24)
    where = positions(shape, affine)
    centre = where[11, 10, 12]
    radius = 0.38 * min(
        np.linalg.norm(affine[:3, axis]) * n for axis, n in enumerate(shape)
    )
    label = (np.linalg.norm(where - centre, axis=-1) < radius).astype(np.uint8)
    volume = Volume(np.ones((1, *shape), np.float32), affine)
    preprocess = Preprocessing(spec_with(spacing_mm=spacing), with_label=True)
    data = preprocess(volume, label)
    assert set(np.unique(data[LABEL])) <= {0, 1}
    scores = torch.stack(
        [1 - data[LABEL].as_tensor()[0], data[LABEL].as_tensor()[0]]
    )
    back = invert(preprocess, scores, data[IMAGE]).argmax(dim=0).numpy()
    overlap = 2 * (back & label).sum() / (back.sum() + label.sum())
    # A ball of few thick, slanted slices loses most; one that is moved or mirrored has no overlap.
    assert overlap > 0.7


@settings(max_examples=30, deadline=None)
@given(
    affine=affines(),
    spacing=SPACINGS,
    threshold=st.sampled_from([None, -50.0, 40.0]),
)
def test_training_and_inference_see_the_same_image(
    affine: Any, spacing: Any, threshold: float | None
) -> None:
    shape = (9, 11, 7)
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(0, 60, (1, *shape)).astype(np.float32), affine)
    spec = made_spec(
        preprocessing={"spacing_mm": spacing, "crop_above": threshold}
    )
    alone = Preprocessing(spec)(volume)[IMAGE]
    beside = Preprocessing(spec, with_label=True)(
        volume, rng.integers(0, 3, shape)
    )[IMAGE]
    assert torch.equal(alone.as_tensor(), beside.as_tensor())
    assert torch.equal(alone.affine, beside.affine)


@pytest.mark.parametrize("intensity", ["zscore", "minmax", PLAIN])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_scan_itself_is_not_changed(intensity: Any, order: Any) -> None:
    array = (
        np.random.default_rng(0)
        .normal(size=(1, 6, 7, 8))
        .astype(np.float32, order=order)
    )
    label = np.random.default_rng(1).integers(0, 3, (6, 7, 8))
    before, label_before = array.copy(), label.copy()
    preprocess = Preprocessing(spec_with(intensity=intensity), with_label=True)
    preprocess(Volume(array, np.diag([1.0, 1, 2, 1])), label)
    assert np.array_equal(array, before)
    assert np.array_equal(label, label_before)


# --- cropping ---


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (2.0, None, 3.0)])
def test_only_the_box_above_the_threshold_is_looked_at(spacing: Any) -> None:
    array = np.full((1, 12, 12, 12), -1000.0, np.float32)
    array[0, 3:9, 2:10, 4:8] = 50
    volume = Volume(array, np.eye(4))
    preprocess = Preprocessing(spec_with(crop_above=-500.0, spacing_mm=spacing))
    image = preprocess(volume)[IMAGE]
    if spacing is None:
        assert image.shape == (1, 6, 8, 4)
        assert image.affine[:3, 3].tolist() == [3, 2, 4]
    back = invert(preprocess, torch.ones(2, *image.shape[1:]), image)
    inside = np.zeros((12, 12, 12), bool)
    inside[3:9, 2:10, 4:8] = True
    assert (back[:, inside] > 0.5).all()
    assert (back[:, ~inside] == 0).all()


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
@pytest.mark.parametrize("value", [-1000.0, -500.0])
def test_a_scan_with_nothing_above_the_threshold_is_refused(
    value: float, spacing: Any
) -> None:
    volume = Volume(
        np.full((1, 6, 8, 10), value, np.float32), np.eye(4), "empty.nii.gz"
    )
    with pytest.raises(
        ScanError, match=r"empty.nii.gz: no voxel is above -500"
    ):
        Preprocessing(spec_with(crop_above=-500.0, spacing_mm=spacing))(volume)


def test_the_box_holds_what_any_channel_shows() -> None:
    array = np.zeros((2, 8, 8, 8), np.float32)
    array[0, 1:3, 4, 4] = 1
    array[1, 4, 4, 4:7] = 1
    spec = made_spec(
        channels=[{"name": "a"}, {"name": "b"}],
        preprocessing={"intensity": PLAIN, "crop_above": 0.5},
    )
    assert Preprocessing(spec)(Volume(array, np.eye(4)))[IMAGE].shape == (
        2,
        4,
        1,
        3,
    )


# --- intensities, by hand ---


def normalised(array: Any, intensity: Any, channels: int = 1) -> Any:
    """Return voxels as the network sees them, on the scan's own grid."""
    made = content(channels=[{"name": f"c{n}"} for n in range(channels)])
    made["preprocessing"] = {"intensity": intensity}
    volume = Volume(
        np.asarray(array, np.float32).reshape(channels, 2, 2, -1), np.eye(4)
    )
    return (
        Preprocessing(parse_spec(made))(volume)[IMAGE]
        .numpy()
        .reshape(channels, -1)
    )


def test_zscore() -> None:
    # mean 4, variance ((-4)² + (-2)² + 2² + 4²) · 2 / 8 = 10
    found = normalised([0, 2, 6, 8, 0, 2, 6, 8], "zscore")
    assert found[0, :4] == pytest.approx(
        np.array([-4, -2, 2, 4]) / np.sqrt(10), abs=1e-5
    )


def test_zscore_of_what_is_not_zero() -> None:
    # of 2, 4, 6: mean 4, variance 8 / 3; zeros stay zeros
    found = normalised(
        [0, 2, 4, 6, 0, 0, 0, 0], {"kind": "zscore", "nonzero": True}
    )
    assert found[0, 1:4] == pytest.approx(
        np.array([-2, 0, 2]) / np.sqrt(8 / 3), abs=1e-5
    )
    assert (found[0, [0, 4, 5, 6, 7]] == 0).all()


def test_zscore_of_a_clipped_image() -> None:
    values = np.arange(101.0).tolist() + [100.0] * 3
    found = normalised(
        values, {"kind": "zscore", "clip_percentiles": [0.1, 0.9]}
    )
    low, high = np.quantile(values, [0.1, 0.9])
    clipped = np.clip(values, low, high)
    expected = (clipped - clipped.mean()) / clipped.std()
    assert found[0] == pytest.approx(expected, abs=1e-3)


def test_a_window_clips_and_scales() -> None:
    window = {"kind": "window", "low": -200, "high": 300}
    values = [-1000, -200, 50, 175, 300, 3000, 0, 100]
    expected = [-1, -1, 0, 0.5, 1, 1, -0.2, 0.2]
    assert normalised(values, window)[0] == pytest.approx(expected, abs=1e-5)
    stated = {**window, "mean": 100, "std": 50}
    expected = [-6, -6, -1, 1.5, 4, 4, -2, 0]
    assert normalised(values, stated)[0] == pytest.approx(expected, abs=1e-4)


def test_minmax_per_channel() -> None:
    found = normalised([[5, 10, 15, 20], [-1, 0, 1, 3]], "minmax", channels=2)
    assert found[0] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-6)
    assert found[1] == pytest.approx([0, 0.25, 0.5, 1], abs=1e-6)


def test_each_channel_has_its_own_normalisation() -> None:
    kinds = [{"kind": "window", "low": 0, "high": 10}, "minmax", "zscore"]
    array = [[0, 5, 10, 20], [2, 4, 6, 10], [0, 2, 6, 8]]
    found = normalised(array, kinds, channels=3)
    assert found[0] == pytest.approx([-1, 0, 1, 1], abs=1e-6)
    assert found[1] == pytest.approx([0, 0.25, 0.5, 1], abs=1e-6)
    assert found[2] == pytest.approx(
        np.array([-4, -2, 2, 4]) / np.sqrt(10), abs=1e-5
    )


@pytest.mark.parametrize(
    "intensity",
    [
        "zscore",
        "minmax",
        PLAIN,
        {"kind": "zscore", "nonzero": True, "clip_percentiles": [0.01, 0.99]},
    ],
)
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_channel_of_one_value_stays_finite(
    intensity: Any, value: float
) -> None:
    found = normalised([value] * 8, intensity)
    assert np.isfinite(found).all()


def test_what_lies_outside_a_scan() -> None:
    window = {"kind": "window", "low": -200, "high": 300}
    assert (
        get_padding_value(made_spec(preprocessing={"intensity": window})) == -1
    )
    assert (
        get_padding_value(made_spec(preprocessing={"intensity": "zscore"})) == 0
    )
    assert (
        get_padding_value(made_spec(preprocessing={"intensity": "minmax"})) == 0
    )
    channels = [
        {"name": "a", "modality": "CT"},
        {"name": "b", "modality": "CT"},
    ]
    other = {"kind": "window", "low": 0, "high": 80}
    for intensity, value in (
        ([window, window], -1),
        ([window, other], 0),
        ([window, "zscore"], 0),
    ):
        spec = made_spec(
            channels=channels, preprocessing={"intensity": intensity}
        )
        assert get_padding_value(spec) == value


# --- pictures ---


@settings(max_examples=20, deadline=None)
@given(
    columns=st.integers(1, 20),
    rows=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
)
def test_a_picture_keeps_its_pixels(
    columns: int, rows: int, channels: int
) -> None:
    array = np.random.default_rng(0).uniform(
        0, 255, (channels, columns, rows, 1)
    )
    spec = parse_spec(
        {
            **content(channels=[{"name": f"c{n}"} for n in range(channels)]),
            "preprocessing": {"input": "picture", "intensity": PLAIN},
            "network": {"dims": 2, "channels": 4},
            "training": {"patch": [16, 16], "steps": 1},
        }
    )
    preprocess = Preprocessing(spec, with_label=True)
    label = np.random.default_rng(1).integers(0, 3, (columns, rows, 1))
    data = preprocess(Volume(array.astype(np.float32), np.eye(4)), label)
    assert data[IMAGE].numpy() == pytest.approx(array, abs=2e-3)
    assert np.array_equal(data[LABEL].numpy()[0], label)
    scores = torch.rand(3, columns, rows, 1)
    assert torch.equal(invert(preprocess, scores, data[IMAGE]), scores)


def test_a_scan_that_memory_cannot_hold_is_refused_without_an_allocators_words() -> (
    None
):
    spec = spec_with(spacing_mm=[1, 1, 1])
    array = np.zeros((1, 9, 9, 9), np.float32)
    scan = Volume(array, np.diag([1e4, 1e4, 1e4, 1]))
    with pytest.raises(ScanError, match="does not fit the memory") as refused:
        Preprocessing(spec)(scan)
    assert "alloc" not in str(refused.value)
    assert "make preprocessing.spacing_mm coarser" in refused.value.message
