"""Augmentation of intensities: how often and how strongly, and what each transform keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medseg.bundle.spec import AUGMENTATIONS, AugmentationSpec
from medseg.training.augmentation import (
    augment_intensities,
    draw_bias_field,
    draw_blur,
    draw_brightness,
    draw_contrast,
    draw_gamma,
    draw_ghosting,
    draw_low_resolution,
    draw_noise,
)

KINDS = (
    "noise",
    "blur",
    "bias_field",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma",
    "ghosting",
)


def only(kind: str) -> AugmentationSpec:
    return AUGMENTATIONS["none"].model_copy(update={kind: 1.0})


def vary(
    images: torch.Tensor, augmentation: AugmentationSpec, seed: int = 0
) -> torch.Tensor:
    noise = torch.Generator().manual_seed(seed)
    return augment_intensities(
        images, augmentation, np.random.default_rng(seed), noise
    )


def images(shape: Any = (2, 2, 12, 10, 8)) -> torch.Tensor:
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 3 + 1
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", [(2, 2, 12, 10, 8), (3, 1, 12, 10), (1, 1, 9, 9, 1)]
)
def test_each_variation_changes_values_and_nothing_else(
    kind: str, shape: Any
) -> None:
    before = images(shape)
    kept = before.clone()
    after = vary(before, only(kind))
    assert torch.equal(before, kept)
    assert after.shape == before.shape
    assert after.dtype == torch.float32
    assert after.isfinite().all()
    assert not torch.equal(after, before)
    assert torch.equal(after, vary(before, only(kind)))
    assert not torch.equal(after, vary(before, only(kind), seed=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_an_image_of_one_value_stays_finite(kind: str, value: float) -> None:
    flat = torch.full((2, 1, 8, 8, 8), value)
    assert vary(flat, only(kind)).isfinite().all()


def test_none_changes_nothing() -> None:
    before = images()
    assert torch.equal(vary(before, AUGMENTATIONS["none"]), before)


def test_each_image_is_varied_by_itself() -> None:
    same = images()[:1].repeat(3, 1, 1, 1, 1)
    after = vary(same, only("brightness"))
    assert not torch.equal(after[0], after[1])
    assert not torch.equal(after[1], after[2])


@pytest.mark.parametrize("probability", [0.2, 0.7])
def test_a_variation_happens_as_often_as_asked(probability: float) -> None:
    many = images((1, 1, 4, 4)).repeat(800, 1, 1, 1)
    spec = AUGMENTATIONS["none"].model_copy(update={"brightness": probability})
    changed = (vary(many, spec) != many).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(probability, abs=0.06)


def test_brightness_scales_and_contrast_keeps_mean_and_range() -> None:
    before = images((1, 1, 16, 16, 16))
    factor = vary(before, only("brightness")) / before
    assert float(factor.std()) < 1e-5
    assert 0.75 <= float(factor.mean()) <= 1.25
    contrast = vary(before, only("contrast"))
    assert contrast.min() >= before.min()
    assert contrast.max() <= before.max()


def test_gamma_keeps_mean_spread_and_the_order_of_intensities() -> None:
    before = images((1, 1, 16, 16, 16))
    order = before.flatten().argsort()
    for seed in range(16):  # a few of them bend the inverted image
        after = vary(before, only("gamma"), seed)
        assert float(after.mean()) == pytest.approx(
            float(before.mean()), abs=1e-4
        )
        assert float(after.std()) == pytest.approx(
            float(before.std()), abs=1e-4
        )
        assert (after.flatten()[order].diff() >= -1e-5).all()


def test_blur_keeps_the_mean_of_what_is_inside_and_calms_noise() -> None:
    before = images((1, 1, 24, 24, 24))
    after = vary(before, only("blur"))
    assert float(after.std()) < 0.8 * float(before.std())
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.1)
    spot = torch.zeros(1, 1, 15, 15, 15)
    spot[0, 0, 7, 7, 7] = 1
    blurred = vary(spot, only("blur"))[0, 0]
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(blurred, blurred.flip(0), atol=1e-6)
    assert torch.allclose(blurred, blurred.transpose(0, 2), atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["blur", "low_resolution", "brightness", "contrast", "gamma"]
)
def test_a_flat_image_stays_flat_up_to_its_border(kind: str) -> None:
    after = vary(torch.full((1, 1, 9, 8, 7), 4.0), only(kind))
    assert float(after.max() - after.min()) < 1e-4


def test_lost_resolution_keeps_large_shapes_where_they_are() -> None:
    step = torch.zeros(1, 1, 32, 32)
    step[..., 16:, :] = 1
    for seed in range(8):
        after = vary(step, only("low_resolution"), seed)[0, 0]
        assert (after[:12] < 0.01).all()
        assert (after[20:] > 0.99).all()


def test_a_bias_field_is_smooth_and_keeps_the_darkest() -> None:
    before = images((1, 1, 16, 16, 16))
    after = vary(before, only("bias_field"))
    lowest = float(before.min())
    field = ((after - lowest) / (before - lowest).clamp_min(1e-6))[
        before > lowest + 0.5
    ]
    assert float(field.min()) > 0.02
    assert after.min() == pytest.approx(lowest, abs=1e-5)


def test_ghosts_are_mild_copies_along_one_axis_and_keep_the_mean() -> None:
    before = torch.zeros(1, 1, 24, 24)
    before[0, 0, 12, 12] = 1.0
    after = vary(before, only("ghosting"), seed=3)
    assert after.mean().item() == pytest.approx(before.mean().item(), abs=1e-6)
    changed = (after - before).abs()[0, 0] > 1e-3
    assert (changed.any(dim=0).sum() == 1) != (changed.any(dim=1).sum() == 1)
    assert 0.65 < after[0, 0, 12, 12] < 1.0
    assert 0.005 < after.abs().flatten().sort().values[-2] < 0.35


# --- what is drawn ---


def drawn(
    draw: Any, shape: tuple[int, ...] = (2, 12, 10, 8), count: int = 200
) -> list[Any]:
    """Return the parameters of many draws."""
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    return [draw(torch.Size(shape), rng, noise).keywords for _ in range(count)]


@pytest.mark.parametrize(
    ("draw", "name", "low", "high"),
    [
        (draw_noise, "share", 0.0, 0.3),
        (draw_blur, "sigma", 0.5, 1.0),
        (draw_brightness, "factor", 0.75, 1.25),
        (draw_contrast, "factor", 0.75, 1.25),
        (draw_gamma, "exponent", 0.7, 1.5),
        (draw_ghosting, "strength", 0.05, 0.3),
    ],
)
def test_strengths_fill_their_range(
    draw: Any, name: str, low: float, high: float
) -> None:
    values = [parameters[name] for parameters in drawn(draw)]
    width = high - low
    assert low <= min(values) < low + 0.05 * width
    assert high - 0.05 * width < max(values) <= high


def test_a_quarter_of_gamma_curves_are_of_the_inverted_image() -> None:
    inverted = [
        parameters["is_inverted"] for parameters in drawn(draw_gamma, count=800)
    ]
    assert np.mean(inverted) == pytest.approx(0.25, abs=0.05)


def test_a_bias_field_has_two_coefficients_for_each_axis() -> None:
    coefficients = np.array(
        [each["coefficients"] for each in drawn(draw_bias_field)]
    )
    assert coefficients.shape == (200, 3, 2)
    assert coefficients.std(axis=0) == pytest.approx(
        np.full((3, 2), 0.25), rel=0.2
    )


def test_low_resolution_keeps_half_of_the_voxels_or_more_and_flat_axes() -> (
    None
):
    sizes = np.array(
        [each["size"] for each in drawn(draw_low_resolution, (1, 12, 3, 1))]
    )
    assert sizes[:, 0].min() == 6
    assert sizes[:, 0].max() == 12
    assert sizes[:, 1].min() == 2
    assert (sizes[:, 2] == 1).all()


def test_ghosts_lie_along_axes_with_more_lines_than_ghosts() -> None:
    for parameters in drawn(draw_ghosting, (2, 4, 12, 1)):
        assert 2 <= parameters["every"] <= 5
        assert parameters["axis"] == 2 or (
            parameters["axis"] == 1 and parameters["every"] < 4
        )
    axes = {
        parameters["axis"] for parameters in drawn(draw_ghosting, (1, 9, 9, 9))
    }
    assert axes == {1, 2, 3}


def test_noise_follows_the_spread_of_the_image() -> None:
    before = images((1, 1, 24, 24, 24))
    noise = vary(before, only("noise")) - before
    louder = vary(10 * before, only("noise")) - 10 * before
    assert torch.allclose(louder, 10 * noise, atol=1e-3)
    assert 0 < float(noise.std()) <= 0.3 * float(before.std()) * 1.05
