"""Corruptions leave grid and scale alone, do nothing at severity 0, and more at higher ones."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.padding import Padding
from medseg.quality.corruptions import CORRUPTIONS, corrupt_volume
from medseg.testing import make_phantom
from medseg.volume import Volume

KINDS = sorted(CORRUPTIONS)


def phantom(scale: float = 1.0) -> Volume:
    volume, _ = make_phantom(0, (30, 26, 20), 6.0)
    return volume.with_array(volume.array * np.float32(scale))


@pytest.mark.parametrize("kind", KINDS)
def test_severity_orders_the_damage(kind: str) -> None:
    volume = phantom()
    damage = [
        float(
            np.abs(
                corrupt_volume(volume, kind, severity, 1).array - volume.array
            ).mean()
        )
        for severity in (0.0, 0.3, 1.0)
    ]
    assert damage[0] < 1e-2 < damage[1] < damage[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_grid_stays_and_intensities_keep_their_scale(kind: str) -> None:
    for scale in (1.0, 1e4):
        volume = phantom(scale)
        made = corrupt_volume(volume, kind, 0.5, 1)
        assert made.on_same_grid(volume)
        assert made.array.dtype == np.float32
        assert np.isfinite(made.array).all()
        assert np.ptp(made.array) < 20 * np.ptp(volume.array)
    small = corrupt_volume(phantom(), kind, 0.5, 1).array
    assert np.allclose(made.array, small * 1e4, rtol=1e-2, atol=1e4)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_each_time_and_leaves_the_scan_alone(kind: str) -> None:
    volume = phantom()
    before = volume.array.copy()
    first, again = (
        corrupt_volume(volume, kind, 0.7, 5).array for _ in range(2)
    )
    assert np.array_equal(first, again)
    assert np.array_equal(volume.array, before)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_constant_images_are_taken(kind: str) -> None:
    picture = Volume(np.random.default_rng(0).random((1, 12, 9, 1)), np.eye(4))
    assert corrupt_volume(picture, kind, 0.8, 0).shape == (12, 9, 1)
    constant = Volume(np.full((1, 6, 6, 6), 7.0), np.eye(4))
    assert np.isfinite(corrupt_volume(constant, kind, 0.8, 0).array).all()


@pytest.mark.parametrize("kind", KINDS)
def test_all_channels_are_corrupted_alike(kind: str) -> None:
    channel = np.random.default_rng(0).random((10, 9, 8)).astype(np.float32)
    volume = Volume(np.stack([channel, channel]), np.eye(4))
    first, second = corrupt_volume(volume, kind, 0.6, 3).array
    assert np.array_equal(first, second)


def test_a_corruption_of_ones_own_gets_the_bulk_from_0_to_1_and_its_scale_back() -> (
    None
):
    volume = phantom()
    seen = []

    def keep(
        image: np.ndarray, severity: float, rng: np.random.Generator
    ) -> np.ndarray:
        seen.append((np.percentile(image, [1, 99]).tolist(), severity))
        return image

    same = corrupt_volume(volume, keep, 0.4, 0)
    assert seen[0][0] == pytest.approx([0, 1], abs=1e-4)
    assert seen[0][1] == 0.4
    assert same.array == pytest.approx(volume.array, rel=1e-4, abs=0.1)


def test_padding_has_no_part_in_where_the_bulk_of_an_image_lies() -> None:
    scan = phantom()
    is_padding = np.zeros(scan.array.shape, bool)
    is_padding[:, :4] = True
    array = np.where(is_padding, np.float32(-1e5), scan.array)
    padding = Padding.from_mask(is_padding)
    padded = Volume(array, scan.affine, padding=padding)
    seen = []

    def keep(image, severity, rng):
        seen.append(image)
        return image

    corrupt_volume(padded, keep, 0.5, seed=0)
    low, high = np.percentile(scan.array[~is_padding], [1, 99])
    expected = (array - low) / (high - low)
    assert np.allclose(seen[0], expected[0], atol=1e-4)
