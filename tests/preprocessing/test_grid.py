"""What the network sees is what the bundle's MONAI chain makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from support.bundles import made_spec

from medseg.bundle.spec import PreprocessingSpec
from medseg.errors import GeometryError, ScanError
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.grid import (
    compute_network_grid,
    find_spacing_of_axes,
    make_affine,
)
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.transforms import (
    IMAGE,
    LABEL,
    build_chain,
    preprocessing_steps,
)
from medseg.volume import Affine, Array, Volume

ORIENTATIONS: dict[str, Affine] = {
    "RAS": np.diag([1.1, 1.4, 2.0, 1]),
    "LPS": np.diag([-1.1, -1.4, 2.0, 1]),
    "PIR": np.array(
        [[0, 0, 1.2, 3], [-0.9, 0, 0, 7], [0, -1.5, 0, 9], [0, 0, 0, 1]]
    ),
    "oblique": np.array(
        [[1, 0.2, 0, 0], [-0.2, 1, 0.1, 0], [0.02, -0.1, 1.3, 0], [0, 0, 0, 1]]
    ),
}


def volume(
    affine: Affine, channels: int = 1, shape: tuple[int, ...] = (22, 17, 13)
) -> Volume:
    rng = np.random.default_rng(3)
    array = gaussian_filter(rng.normal(0, 1, (channels, *shape)), (0, 2, 2, 1))
    array = np.maximum(array / array.std() * 200, 0).astype(np.float32)
    return Volume(np.asfortranarray(array), affine, source="scan")


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("crop_above", [None, 150.0])
@pytest.mark.parametrize("tolerance", [0.0, 0.25])
@pytest.mark.parametrize("spacing_mm", [None, [1, 1, None], [1.5, 2, 0.8]])
def test_geometry_is_that_of_the_chain(
    name: str, crop_above: Any, spacing_mm: Any, tolerance: float
) -> None:
    prep = {
        "spacing_mm": spacing_mm,
        "resampling": {"tolerance": tolerance},
        "crop_above": crop_above,
        "intensity": "minmax",
    }
    spec = made_spec(preprocessing=prep)
    scan = volume(ORIENTATIONS[name])
    wanted = Preprocessing(spec)(scan)[IMAGE].as_tensor()
    grid = compute_network_grid(scan, spec.preprocessing)
    got = NetworkInput(spec)(scan, grid)
    assert got.shape == wanted.shape == (1, *grid.shape)
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "intensity",
    [
        "zscore",
        "minmax",
        {"kind": "zscore", "nonzero": True},
        {"kind": "zscore", "clip_percentiles": [0.05, 0.9]},
        {"kind": "window", "low": 10, "high": 300},
        [
            {"kind": "window", "low": 0, "high": 300},
            {"kind": "window", "low": -50, "high": 90},
        ],
        [{"kind": "zscore", "nonzero": True}, "minmax"],
    ],
)
def test_intensities_are_those_of_the_chain(intensity: Any) -> None:
    spec = made_spec(
        channels=[
            {"name": "a", "modality": "CT"},
            {"name": "b", "modality": "PT"},
        ],
        preprocessing={"spacing_mm": [1, 1.4, 1.5], "intensity": intensity},
    )
    scan = volume(ORIENTATIONS["LPS"], channels=2)
    before = scan.array.copy()
    wanted = Preprocessing(spec)(scan)[IMAGE].as_tensor()
    got = NetworkInput(spec)(
        scan, compute_network_grid(scan, spec.preprocessing)
    )
    assert torch.allclose(got, wanted, atol=1e-5)
    assert np.array_equal(scan.array, before)


def test_the_box_is_a_view_through_which_labels_are_written() -> None:
    spec = made_spec(preprocessing={"crop_above": 150.0})
    scan = volume(ORIENTATIONS["PIR"])
    grid = compute_network_grid(scan, spec.preprocessing)
    labels: Array = np.zeros(scan.shape, np.uint8)
    above = grid.crop(scan.array)[0] > 150
    grid.crop(labels)[...] = above
    assert np.array_equal(labels, scan.array[0] > 150)
    for axis in range(3):  # nothing smaller would do
        assert above.any(axis=tuple({0, 1, 2} - {axis}))[[0, -1]].all()


def test_a_picture_is_not_turned() -> None:
    spec = made_spec(
        network={
            "kind": "unet",
            "dims": 2,
            "channels": [4, 8, 8],
            "strides": [1, 2, 2],
        },
        training={"patch": [16, 16]},
        preprocessing={"input": "picture"},
    )
    scan = volume(np.diag([-1.0, -1, 1, 1]), shape=(9, 8, 1))
    assert np.array_equal(
        compute_network_grid(scan, spec.preprocessing).crop(scan.array),
        scan.array,
    )


def test_an_empty_scan_is_named_with_what_is_wrong() -> None:
    prep = made_spec(preprocessing={"crop_above": 1e6}).preprocessing
    with pytest.raises(ScanError, match=r"scan: no voxel is above 1e\+06"):
        compute_network_grid(volume(np.eye(4)), prep)


def test_a_grid_of_absurd_size_is_refused_before_memory_is_taken() -> None:
    prep = made_spec(
        preprocessing={"spacing_mm": [0.001, 0.001, 0.001]}
    ).preprocessing
    with pytest.raises(ScanError, match="more than 4,000,000,000"):
        compute_network_grid(volume(np.diag([5.0, 5, 5, 1])), prep)


def test_a_grid_without_axes_is_named() -> None:
    affine: Affine = np.eye(4)
    affine[:3, 1] = [1, 1e-9, 0]
    prep = made_spec(preprocessing={"spacing_mm": [2, 2, 2]}).preprocessing
    with pytest.raises(GeometryError, match=r"^scan: "):
        compute_network_grid(volume(affine), prep)


def test_voxels_that_equal_the_threshold_are_cropped_away() -> None:
    array = np.zeros((1, 6, 7, 8), np.float32)
    array[0, 1:5, 1:6, 1:7] = 10
    array[0, 2:4, 2:5, 3:5] = 11
    prep = made_spec(preprocessing={"crop_above": 10}).preprocessing
    grid = compute_network_grid(Volume(array, np.eye(4)), prep)
    assert grid.box == (slice(2, 4), slice(2, 5), slice(3, 5))
    assert grid.crop(array).min() == 11


@pytest.mark.parametrize("axes", ["RAS", "LSP", "kij"])
def test_previews_know_where_the_axes_of_a_network_point(axes: str) -> None:
    scan = volume(np.diag([1.1, 1.4, 2.0, 1]))
    prep = made_spec(preprocessing={"axes": axes}).preprocessing
    grid = compute_network_grid(scan, prep)
    spacing = find_spacing_of_axes(scan, prep)
    np.testing.assert_allclose(
        make_affine(spacing, prep)[:3, :3], grid.affine[:3, :3]
    )


def test_a_box_in_the_networks_input_is_that_of_monais_chain() -> None:
    window = {"kind": "window", "low": 0, "high": 100, "mean": 0, "std": 100}
    section = {
        "spacing_mm": [1.5, 1.4, 2.0],
        "intensity": window,
        "crop_above": 0.0,
        "crop_on": "input",
        "crop_margin": 1,
    }
    spec = made_spec(preprocessing=section)
    turned = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.diag([-2.1, 1.0, 3.0, 1.0])
    affine[:3, :3] = turned @ affine[:3, :3]
    array = np.full((1, 14, 16, 12), -10.0, np.float32)
    noise = np.random.default_rng(0).uniform(5, 90, (7, 6, 5))
    array[0, 4:11, 3:9, 5:10] = noise
    label = (array[0] > 50).astype(np.uint8)
    scan = Volume(array, affine, source="scan")
    made = Preprocessing(spec, with_label=True)(scan, label)
    wanted = build_chain(preprocessing_steps(spec, (IMAGE, LABEL)))(
        {
            IMAGE: MetaTensor(torch.from_numpy(array.copy()), affine=affine),
            LABEL: MetaTensor(torch.from_numpy(label[None]), affine=affine),
        }
    )
    assert made[IMAGE].shape == wanted[IMAGE].shape
    torch.testing.assert_close(
        made[IMAGE].as_tensor(), wanted[IMAGE].as_tensor()
    )
    assert (made[LABEL].as_tensor() != wanted[LABEL].as_tensor()).sum() <= 2
    torch.testing.assert_close(
        made[IMAGE].affine, wanted[IMAGE].affine, check_dtype=False
    )


def test_a_box_needs_something_to_look_for() -> None:
    for section in ({"crop_margin": 3}, {"crop_on": "input"}):
        with pytest.raises(ValidationError, match="needs"):
            PreprocessingSpec.model_validate(section)
