"""Padding becomes air in CT, the lowest value elsewhere; what looks like that already stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import uid as uids
from support import dicom as made

from medseg.io import read_image, read_labels
from medseg.volume import Volume

SHAPE = (8, 8, 3)


def ct() -> np.ndarray:
    """HU of air, fat, water and bone."""
    hu = np.random.default_rng(0).integers(-200, 1500, SHAPE)
    hu[:4] = -1000
    return hu


def corners() -> np.ndarray:
    is_corner = np.zeros(SHAPE, bool)
    is_corner[:2, :2] = is_corner[-2:, -2:] = True
    return is_corner


def read(
    folder: Path, stored: np.ndarray, padding: int, vr: str = "SS", **changes
) -> Volume:
    datasets = made.series(stored, **changes)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", vr, padding)
    return read_image(made.save(folder, datasets))


@pytest.mark.parametrize(
    ("dtype", "word", "stated", "vr"),
    [
        (np.int16, -2000, -2000, "SS"),
        (np.int16, -2000, 63536, "US"),
        (np.uint16, 63536, 63536, "US"),
        (np.uint16, 63536, -2000, "SS"),
        (np.uint16, 32768, 32768, "US"),
        (np.int16, -32768, 32768, "US"),
        (np.int16, -32768, -32768, "SS"),
        (np.uint16, 65535, 65535, "US"),
    ],
)
def test_padding_becomes_air_in_ct(tmp_path, dtype, word, stated, vr):
    stored = (ct() + 1024).astype(dtype)
    stored[corners()] = word
    volume = read(tmp_path, stored, stated, vr, RescaleIntercept=-1024)
    expected = np.where(corners(), -1024, ct())
    assert np.array_equal(volume.array[0], expected)
    assert volume.warnings == ()


@pytest.mark.parametrize("syntax", [uids.RLELossless, uids.JPEGLSLossless])
def test_padding_of_compressed_pixels_becomes_air_too(tmp_path, syntax):
    stored = (ct() + 1024).astype(np.uint16)
    stored[corners()] = 63536
    datasets = made.series(stored, RescaleIntercept=-1024)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "US", 63536)
        ds.compress(syntax)
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], np.where(corners(), -1024, ct()))


def test_every_value_of_a_padding_range_becomes_air(tmp_path):
    stored = ct().astype(np.int16)
    stored[corners()] = np.linspace(-3000, -2000, corners().sum())
    datasets = made.series(stored)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "SS", -2000)
        ds.add_new("PixelPaddingRangeLimit", "SS", -3000)
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], np.where(corners(), -1024, ct()))


@pytest.mark.parametrize("bits_stored", [12, 16])
def test_padding_is_found_before_bits_are_left_out(tmp_path, bits_stored):
    stored = (ct() + 1024).astype(np.uint16)
    stored[corners()] = 63536
    volume = read(
        tmp_path,
        stored,
        63536,
        "US",
        RescaleIntercept=-1024,
        BitsStored=bits_stored,
        HighBit=bits_stored - 1,
    )
    assert np.array_equal(volume.array[0], np.where(corners(), -1024, ct()))
    assert volume.warnings == ()


def test_a_ct_without_air_is_padded_with_air(tmp_path):
    tissue = np.random.default_rng(1).integers(-150, 300, SHAPE)
    stored = np.where(corners(), -2000, tissue).astype(np.int16)
    volume = read(tmp_path, stored, -2000)
    assert np.array_equal(volume.array[0], np.where(corners(), -1024, tissue))


@pytest.mark.parametrize("noise", [0, 20])
def test_padding_makes_no_air_where_a_ct_is_not_in_hu(tmp_path, noise):
    deviations = np.random.default_rng(5).normal(0, noise, SHAPE)
    not_hu = (ct() + 1024 + deviations).astype(np.int16)
    stored = np.where(corners(), -2000, not_hu).astype(np.int16)
    volume = read(tmp_path, stored, -2000)
    lowest = not_hu[~corners()].min()
    expected = np.where(corners(), lowest, not_hu)
    assert np.array_equal(volume.array[0], expected)


@pytest.mark.parametrize(
    ("dtype", "padding"),
    [(np.uint16, 63536), (np.uint16, 32768), (np.int16, -32768)],
)
@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_padding_takes_the_lowest_value_elsewhere(
    tmp_path, dtype, padding, modality
):
    signal = np.random.default_rng(2).integers(12, 900, SHAPE)
    stored = np.where(corners(), padding, signal).astype(dtype)
    vr = "SS" if padding < 0 else "US"
    volume = read(tmp_path, stored, padding, vr, Modality=modality)
    lowest = signal[~corners()].min()
    assert np.array_equal(volume.array[0], np.where(corners(), lowest, signal))


def same(folder: Path, stored: np.ndarray, padding: int, **changes) -> None:
    """Make sure that an image is what it is without an element for padding."""
    plain = made.save(folder / "plain", made.series(stored, **changes))
    padded = read(folder / "padded", stored, padding, **changes)
    expected = read_image(plain)
    assert padded.array.tobytes() == expected.array.tobytes()
    assert padded.warnings == expected.warnings == ()


@pytest.mark.parametrize("lowest", [0, 1, 40])
def test_a_background_of_0_stays(tmp_path, lowest):
    signal = np.random.default_rng(3).integers(lowest, 900, SHAPE)
    stored = np.where(corners(), 0, signal).astype(np.uint16)
    same(tmp_path, stored, 0, Modality="MR")


def test_a_value_among_those_of_the_image_is_no_padding(tmp_path):
    phase = np.random.default_rng(4).integers(-4096, 4095, SHAPE)
    phase[3:5, 3:5] = 0
    same(tmp_path, phase.astype(np.int16), 0, Modality="MR")


@pytest.mark.parametrize("intercept", [-1024, -1000])
def test_padding_that_is_air_stays(tmp_path, intercept):
    stored = np.maximum(ct() - intercept, 0).astype(np.uint16)
    stored[corners()] = 0
    same(tmp_path, stored, 0, RescaleIntercept=intercept)


def test_padding_that_does_not_occur_changes_nothing(tmp_path):
    same(tmp_path, ct().astype(np.int16), -2000)


def test_tissue_that_a_header_calls_padding_stays_and_is_told(tmp_path):
    hu = ct()
    hu[-1] = 0
    volume = read(tmp_path, hu.astype(np.int16), 0)
    assert np.array_equal(volume.array[0], hu)
    (warning,) = volume.warnings
    assert "padding, but their value lies among those of tissue" in warning


def test_a_label_map_keeps_its_values(tmp_path):
    labels = made.voxels() % 3
    datasets = made.series(labels)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "US", 2)
    read_back = read_labels(made.save(tmp_path, datasets))
    assert np.array_equal(read_back.array[0], labels)


def test_nothing_but_padding_stays_as_it_is(tmp_path):
    stored = np.full(SHAPE, -2000, np.int16)
    assert (read(tmp_path, stored, -2000).array == -2000).all()


def test_numbers_with_fractions_have_padding_too(tmp_path):
    hu = ct().astype(np.float32)
    hu[corners()] = -9999.5
    datasets = made.series(hu.astype(np.float32))
    for ds in datasets:
        ds.FloatPixelData = ds.PixelData
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.FloatPixelPaddingValue = -9999.5
    volume = read_image(made.save(tmp_path, datasets))
    assert np.array_equal(volume.array[0], np.where(corners(), -1024, ct()))


def marked(volume: Volume) -> np.ndarray:
    """Return which voxels are padding, none where the volume knows of none."""
    if volume.padding is None:
        return np.zeros(SHAPE, bool)
    return volume.padding.get_mask()[0]


@pytest.mark.parametrize(
    ("modality", "padding"),
    [("CT", -2000), ("CT", -3024), ("MR", -2000), ("MR", 63536)],
)
def test_padding_is_known_to_all_that_comes_after_the_reader(
    tmp_path, modality, padding
):
    values = np.maximum(ct(), -1000) if modality == "CT" else abs(ct()) + 1
    stored = np.where(corners(), padding, values).astype(np.int32)
    stored = stored.astype(np.uint16 if padding > 0 else np.int16)
    vr = "US" if padding > 0 else "SS"
    volume = read(tmp_path, stored, padding, vr, Modality=modality)
    assert np.array_equal(marked(volume), corners())


@pytest.mark.parametrize(
    ("modality", "padding"), [("CT", -1024), ("CT", -1000), ("MR", 0)]
)
def test_background_that_a_header_calls_padding_counts_as_in_a_nifti_copy(
    tmp_path, modality, padding
):
    values = np.maximum(ct(), -1000) if modality == "CT" else abs(ct()) + 1
    stored = np.where(corners(), padding, values).astype(np.int16)
    volume = read(tmp_path, stored, padding, Modality=modality)
    assert volume.padding is None
    assert np.array_equal(volume.array[0], stored)


def test_values_that_a_header_calls_padding_wrongly_count(tmp_path):
    hu = ct()
    hu[-1] = 0
    tissue = read(tmp_path / "ct", hu.astype(np.int16), 0)
    phase = np.random.default_rng(4).integers(-4096, 4095, SHAPE)
    phase[3:5, 3:5] = 0
    signal = read(tmp_path / "mr", phase.astype(np.int16), 0, Modality="MR")
    nothing = read(tmp_path / "no", np.full(SHAPE, -2000, np.int16), -2000)
    for volume in (tissue, signal, nothing):
        assert volume.padding is None


def test_an_image_without_padding_carries_nothing(tmp_path):
    assert read(tmp_path, ct().astype(np.int16), -2000).padding is None


def test_slices_interpolated_with_padding_are_padding(tmp_path):
    stored = np.where(corners(), -2000, ct()).astype(np.int16)
    stored[0, 0, :2] = 50
    datasets = made.series(stored)
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "SS", -2000)
    made.move(datasets[2], made.NORMAL * 1.5)
    folder = made.save(tmp_path, datasets)
    volume = read_image(folder, resample_uneven=True)
    assert volume.shape == (8, 8, 4)
    is_padding = volume.padding.get_mask()[0]
    assert is_padding[0, 0].tolist() == [False, False, True, True]
    assert is_padding[0, 1].all()
    assert not is_padding[3].any()


def test_a_number_that_is_none_is_padding_beside_declared_one(tmp_path):
    hu = ct().astype(np.float32)
    hu[corners()] = -9999.5
    hu[4, 4, 1] = np.nan
    datasets = made.series(hu)
    for ds in datasets:
        ds.FloatPixelData = ds.PixelData
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        ds.FloatPixelPaddingValue = -9999.5
    volume = read_image(made.save(tmp_path, datasets))
    expected = corners()
    expected[4, 4, 1] = True
    assert np.array_equal(marked(volume), expected)
    assert volume.array[0, 4, 4, 1] == -1024
