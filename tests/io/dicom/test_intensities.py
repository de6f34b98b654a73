"""Each slice has its own slope and intercept; in CT another one than its neighbours' is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from support import dicom as made

from medseg.errors import ScanError
from medseg.io import read_image

SLICES = 6


def ct() -> np.ndarray:
    """Stored values of a body in air that changes slowly from slice to slice."""
    noise = np.random.default_rng(0).normal(0, 20, (24, 24, SLICES))
    hu = np.full(noise.shape, -1000.0)
    hu[6:18, 6:18] = 40
    return (hu + noise + 1100).astype(np.uint16)


def scale(datasets, k: int, slope: float, intercept: float) -> None:
    datasets[k].RescaleSlope, datasets[k].RescaleIntercept = slope, intercept


@pytest.mark.parametrize("k", [0, 2, SLICES - 1])
@pytest.mark.parametrize(
    ("slope", "intercept"), [(1, 0), (2, -1100), (1, -2048), (0.001, 0)]
)
def test_a_slice_of_a_ct_with_a_damaged_scaling_is_refused(
    tmp_path, k, slope, intercept
):
    datasets = made.series(ct(), RescaleIntercept=-1100, RescaleSlope=1)
    scale(datasets, k, slope, intercept)
    folder = made.save(tmp_path, datasets)
    with pytest.raises(ScanError, match="another RescaleSlope") as raised:
        read_image(folder)
    names = {file.name for file in folder.iterdir()}
    assert raised.value.source is not None
    assert raised.value.source.rsplit("/", 1)[1] in names
    assert "/" not in raised.value.message


def test_slices_of_a_ct_that_were_scaled_on_their_own_are_read_and_told(
    tmp_path,
):
    stored = ct()
    datasets = made.series(stored, RescaleIntercept=-1100)
    halved = made.series(stored // 2)
    datasets[3].PixelData = halved[3].PixelData
    scale(datasets, 3, 2, -1100)
    volume = read_image(made.save(tmp_path, datasets))
    expected = stored.astype(float) - 1100
    assert np.abs(volume.array[0] - expected).max() <= 1
    assert volume.warnings == (
        "the slices of this CT have 2 different pairs of RescaleSlope and RescaleIntercept; each "
        "was read by its own",
    )


@pytest.mark.parametrize("modality", ["PT", "MR"])
def test_other_images_may_be_scaled_slice_by_slice(tmp_path, modality):
    datasets = made.series(ct(), Modality=modality)
    for k in range(SLICES):
        scale(datasets, k, 1 + k, 0)
    assert read_image(made.save(tmp_path, datasets)).warnings == ()


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [("1e39", "0"), ("1e36", "0"), ("1", "1e39"), ("-1e37", "-1e38")],
)
def test_a_scaling_beyond_all_numbers_is_refused(tmp_path, slope, intercept):
    datasets = made.series(ct())
    scale(datasets, 1, slope, intercept)
    with pytest.raises(ScanError, match="too large to be any"):
        read_image(made.save(tmp_path, datasets))


@pytest.mark.parametrize("slope", ["0", "-0.0", "1e-46", "-1e-300"])
def test_a_slope_that_makes_all_the_same_is_refused(tmp_path, slope):
    datasets = made.series(ct())
    scale(datasets, 1, slope, "0")
    with pytest.raises(ScanError, match="every intensity the same"):
        read_image(made.save(tmp_path, datasets))


def test_values_beyond_float32_are_told(tmp_path):
    stored = np.random.default_rng(0).random((6, 5, 4))
    stored[0, 0, :] = 1e300
    datasets = made.series(stored)
    for k, ds in enumerate(datasets):
        ds.DoubleFloatPixelData = ds.PixelData
        del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
        scale(datasets, k, 1, 0.001 * k)
    volume = read_image(made.save(tmp_path, datasets))
    assert np.isfinite(volume.array).all()
    assert any("4 of 120 voxels" in text for text in volume.warnings)
