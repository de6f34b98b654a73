"""Padding has no part in statistics: what is shown is normalised as if there were no padding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity
from scipy.ndimage import binary_fill_holes
from support import dicom as made
from support.bundles import made_spec
from support.pretend_gpu import pretend_gpus

from medseg.io import read_image
from medseg.padding import Padding
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.grid import compute_network_grid
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.normalisation import (
    Normalisation,
    fill_holes,
    standardise_on_device,
)
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.volume import Volume

SHAPE = (9, 8, 6)
FRAME = 3
"""Rows and columns of padding around what is shown."""
STATISTICS: tuple[Any, ...] = (
    "zscore",
    {"kind": "zscore", "nonzero": True},
    {"kind": "zscore", "clip_percentiles": [0.4, 0.9]},
    {"kind": "zscore", "nonzero": True, "clip_percentiles": [0.4, 0.9]},
    "minmax",
)


def signal(seed: int = 0) -> np.ndarray:
    """An MR signal with a bright end and some nothing, of which the lowest value is 0."""
    values = np.random.default_rng(seed).gamma(2.0, 90.0, SHAPE)
    values[:2] = 0
    return values.astype(np.uint16)


def frame(values: np.ndarray, padding: int) -> np.ndarray:
    """Return slices with a frame of padding."""
    around = ((FRAME, FRAME), (FRAME, FRAME), (0, 0))
    return np.pad(values, around, constant_values=padding)


def read_series(
    folder: Path, stored: np.ndarray, padding: int | None = None, **changes: Any
) -> Volume:
    datasets = made.series(stored, **{"Modality": "MR", **changes})
    if padding is not None:
        for ds in datasets:
            ds.add_new("PixelPaddingValue", "US", padding)
    return read_image(made.save(folder, datasets))


def inside(image: torch.Tensor) -> torch.Tensor:
    """Return what is not in the frame; the network's axes are those of the patient."""
    return image[:, FRAME:-FRAME, FRAME:-FRAME]


def on_own_grid(volume: Volume) -> Volume:
    """Return the volume on a straight grid, of which the network turns no axis."""
    return replace(volume, affine=np.eye(4))


def both_doors(volume: Volume, spec: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the network's input as training makes it, and as a segmenter does."""
    trained = Preprocessing(spec)(volume)[IMAGE].as_tensor()
    grid = compute_network_grid(volume, spec.preprocessing)
    return trained, NetworkInput(spec)(volume, grid)


@pytest.mark.parametrize("intensity", STATISTICS, ids=repr)
@pytest.mark.parametrize("padding", [63536, 32768])
def test_a_padded_series_is_normalised_as_the_same_without_padding(
    tmp_path: Path, padding: int, intensity: Any
) -> None:
    spec = made_spec(preprocessing={"intensity": intensity})
    values = signal()
    plain = on_own_grid(read_series(tmp_path / "plain", values))
    framed = frame(values, padding)
    padded = on_own_grid(read_series(tmp_path / "padded", framed, padding))
    expected = Preprocessing(spec)(plain)[IMAGE].as_tensor()
    for image in both_doors(padded, spec):
        assert torch.allclose(inside(image), expected, atol=1e-5)


@pytest.mark.parametrize("intensity", STATISTICS, ids=repr)
def test_a_series_whose_background_is_called_padding_is_normalised_as_its_nifti_copy(
    tmp_path: Path, intensity: Any
) -> None:
    spec = made_spec(preprocessing={"intensity": intensity})
    framed = frame(signal() + 1, 0)
    series = read_series(tmp_path / "series", framed, padding=0)
    copy = tmp_path / "copy.nii"
    nib.save(nib.Nifti1Image(series.array[0], series.affine), copy)
    images = both_doors(series, spec)
    for image, expected in zip(
        images, both_doors(read_image(copy), spec), strict=True
    ):
        assert torch.equal(image, expected)


@pytest.mark.parametrize("intensity", STATISTICS, ids=repr)
def test_what_is_no_number_is_left_out_as_padding_is(intensity: Any) -> None:
    spec = made_spec(preprocessing={"intensity": intensity})
    values = signal().astype(np.float32)
    framed = np.full((1, 15, 14, 6), np.nan, np.float32)
    framed[0, FRAME:-FRAME, FRAME:-FRAME] = values
    plain = Volume.from_numpy(values, np.eye(4))
    padded = Volume.from_numpy(framed, np.eye(4))
    expected = Preprocessing(spec)(plain)[IMAGE].as_tensor()
    for image in both_doors(padded, spec):
        assert torch.allclose(inside(image), expected, atol=1e-5)


@pytest.mark.parametrize("intensity", STATISTICS, ids=repr)
@pytest.mark.parametrize("crop_above", [None, -40.0])
def test_training_and_inference_leave_out_the_same(
    intensity: Any, crop_above: float | None
) -> None:
    prep = {
        "intensity": intensity,
        "spacing_mm": [0.7, 1.6, 1.0],
        "crop_above": crop_above,
    }
    spec = made_spec(
        channels=[
            {"name": "T1", "modality": "MR"},
            {"name": "CT", "modality": "CT"},
        ],
        preprocessing=prep,
    )
    rng = np.random.default_rng(1)
    array = rng.normal(300, 80, (2, *SHAPE)).astype(np.float32)
    is_padding = np.zeros(array.shape, bool)
    is_padding[0, :3] = is_padding[1, :, -2:, 2:] = True
    array[is_padding] = -1024
    affine = np.diag([-1.0, 1.2, 2.0, 1.0])
    padding = Padding.from_mask(is_padding)
    scan = Volume(array, affine, padding=padding)
    trained, segmented = both_doors(scan, spec)
    assert trained.shape == segmented.shape
    assert torch.allclose(trained, segmented, atol=1e-4)
    without = NetworkInput(spec)(
        replace(scan, padding=None),
        compute_network_grid(scan, spec.preprocessing),
    )
    assert not torch.allclose(without, segmented, atol=0.1)


def test_between_padding_and_signal_a_voxel_is_no_part_of_the_statistics() -> (
    None
):
    spec = made_spec(preprocessing={"spacing_mm": [0.5, 1, 1]})
    array = np.random.default_rng(2).normal(9, 2, (1, *SHAPE))
    is_padding = np.zeros(array.shape, bool)
    is_padding[:, :4] = True
    array[is_padding] = 0
    padding = Padding.from_mask(is_padding)
    scan = Volume(array.astype(np.float32), np.eye(4), padding=padding)
    trained, segmented = both_doors(scan, spec)
    for image in (trained, segmented):
        shown = image[:, 8:]  # voxels 0 to 3 are padding, and 3.5 lies between
        assert abs(float(shown.mean())) < 1e-5
        assert abs(float(shown.std(unbiased=False)) - 1) < 1e-5


@pytest.mark.parametrize("crop", [{"crop_above": 5.0}, {"crop_nonzero": True}])
@pytest.mark.parametrize(
    "intensity", ["zscore", {"kind": "window", "low": 0, "high": 9}]
)
def test_no_padding_is_foreground(crop: Any, intensity: Any) -> None:
    spec = made_spec(preprocessing={**crop, "intensity": intensity})
    array = np.random.default_rng(3).uniform(6, 9, (1, *SHAPE))
    is_padding = np.zeros(array.shape, bool)
    is_padding[:, :2] = is_padding[..., -1] = True
    array[is_padding] = 6
    scan = Volume(
        array.astype(np.float32),
        np.eye(4),
        padding=Padding.from_mask(is_padding),
    )
    labels = np.ones(SHAPE, np.uint8)
    data = Preprocessing(spec, with_label=True)(scan, labels)
    assert data[IMAGE].shape == data[LABEL].shape == (1, 7, 8, 5)
    grid = compute_network_grid(scan, spec.preprocessing)
    assert grid.shape == (7, 8, 5)


def test_a_window_is_not_touched_by_padding() -> None:
    window = {"kind": "window", "low": -150, "high": 250}
    spec = made_spec(preprocessing={"intensity": window})
    array = np.random.default_rng(4).normal(50, 90, (1, *SHAPE))
    is_padding = array > 100
    plain = Volume(array.astype(np.float32), np.eye(4))
    padded = replace(plain, padding=Padding.from_mask(is_padding))
    for image, expected in zip(
        both_doors(padded, spec), both_doors(plain, spec), strict=True
    ):
        assert torch.equal(image, expected)


def test_an_image_that_resampling_leaves_no_whole_voxel_of_is_normalised_as_a_whole() -> (
    None
):
    spec = made_spec(preprocessing={"spacing_mm": [0.7, 0.7, 0.7]})
    array = np.random.default_rng(5).normal(50, 9, (1, *SHAPE))
    is_padding = np.indices(array.shape).sum(axis=0) % 2 == 0
    scan = Volume(
        array.astype(np.float32),
        np.eye(4),
        padding=Padding.from_mask(is_padding),
    )
    for image in both_doors(scan, spec):
        assert torch.isfinite(image).all()


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.uniform(size=(9, 8, 7)) < 0.6
    assert np.array_equal(fill_holes(mask), binary_fill_holes(mask))
    assert fill_holes(np.ones((3, 3, 3), bool)).all()


def test_a_mask_with_filled_holes_is_that_of_all_channels() -> None:
    spec = made_spec(
        channels=[{"name": "a"}, {"name": "b"}],
        preprocessing={"intensity": {"kind": "zscore", "nonzero": "filled"}},
    )
    image = torch.zeros(2, 7, 7, 7)
    image[0, 1:6, 1:6, 1:6] = torch.arange(125.0).reshape(5, 5, 5) + 1
    image[0, 3, 3, 3] = 0  # a hole
    image[1, 1:6, 1:6, 1:4] = 5
    inside = torch.zeros(7, 7, 7, dtype=torch.bool)
    inside[1:6, 1:6, 1:6] = True
    normalised = Normalisation(spec)(image.clone())
    for channel, raw in zip(normalised, image, strict=True):
        within = raw[inside]
        wanted = (within - within.mean()) / within.std(unbiased=False)
        torch.testing.assert_close(channel[inside], wanted)
        assert not channel[~inside].any()


def test_steps_follow_each_other() -> None:
    steps = [
        {"kind": "window", "low": 0, "high": 10, "clip": False},
        {"kind": "squash", "curve": "tanh", "scale": 3},
        {"kind": "minmax", "to": [-1, 1]},
    ]
    intensity = {"kind": "sequence", "steps": steps}
    spec = made_spec(preprocessing={"intensity": intensity})
    image = torch.linspace(-50, 90, 60).view(1, 3, 4, 5)
    bent = 3 * torch.tanh((image - 5) / 5 / 3)
    low, high = bent.min(), bent.max()
    wanted = (bent - low) / (high - low) * 2 - 1
    got = Normalisation(spec)(image.clone())
    torch.testing.assert_close(got, wanted)
    # Padding changes nothing where there is none.
    none = torch.zeros_like(image)
    torch.testing.assert_close(Normalisation(spec)(image.clone(), none), wanted)


def test_the_lowest_intensity_may_become_zero() -> None:
    intensity = {"kind": "zscore", "subtract": "lowest"}
    spec = made_spec(preprocessing={"intensity": intensity})
    image = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    wanted = (image - image.min()) / image.std()
    got = Normalisation(spec)(image.clone())
    torch.testing.assert_close(got, wanted)
    shown = torch.zeros_like(image)
    shown[0, 0] = 1  # padding, which has no part
    inside = image[:, 1:]
    got = Normalisation(spec)(image.clone(), shown)[:, 1:]
    torch.testing.assert_close(got, (inside - inside.min()) / inside.std())


@pytest.mark.parametrize("leaves_zeros", [False, True])
@pytest.mark.parametrize("value", [None, 0.0, 3.0])
def test_mean_and_deviation_on_a_device_are_monais(
    leaves_zeros: bool, value: float | None
) -> None:
    channel = torch.from_numpy(signal().astype(np.float32))
    if value is not None:
        channel.fill_(value)
    monai = NormalizeIntensity(nonzero=leaves_zeros, channel_wise=True)
    wanted = torch.as_tensor(monai(channel[None].clone())[0])
    found = standardise_on_device(channel, leaves_zeros=leaves_zeros)
    if not leaves_zeros:
        assert torch.equal(found, wanted)
    # Over some voxels sums are taken in double, which MONAI does not.
    assert torch.allclose(found, wanted, atol=1e-6)


def test_channels_are_standardised_on_a_gpu_without_a_wait() -> None:
    names = [{"name": f"T{n}", "modality": "MR"} for n in (1, 2, 3)]
    zscore = {"kind": "zscore"}
    both: Any = [{"kind": "window", "low": 0, "high": 200}, zscore]
    both = {"kind": "sequence", "steps": both}
    ways = [both, STATISTICS[1], "zscore"]
    prep = {"intensity": ways}
    spec = made_spec(channels=names, preprocessing=prep)
    normalise = Normalisation(spec)
    image = torch.from_numpy(
        np.stack([signal(n) for n in range(3)]).astype("f")
    )
    wanted = normalise(image.clone())
    with pretend_gpus() as gpus:
        there = image.clone().to("cuda")
        gpus.forget_counts()
        found = normalise(there)
        assert not gpus.waits
        assert torch.allclose(found.cpu(), wanted, atol=1e-5)
