"""Changes of intensities against arithmetic by hand."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.quality import intensity_transforms as intensity


def images(*shape: int) -> torch.Tensor:
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 3 + 1
    )


def test_noise_is_added_in_the_images_unit() -> None:
    image, field = images(1, 4, 5), images(1, 4, 5)
    assert torch.equal(intensity.noise(image, field, 0.5), image + 0.5 * field)


@pytest.mark.parametrize("shape", [(2, 9, 11), (1, 9, 8, 7)])
def test_blur_is_a_gaussian_along_every_axis(shape: tuple[int, ...]) -> None:
    spot = torch.zeros(shape)
    middle = (0, *(length // 2 for length in shape[1:]))
    spot[middle] = 1
    blurred = intensity.blur(spot, 0.8)
    assert blurred.shape == spot.shape
    ratio = math.exp(-0.5 / 0.8**2)
    for axis in range(1, len(shape)):
        beside = list(middle)
        beside[axis] += 1
        assert (
            blurred[tuple(beside)] / blurred[middle]
        ).item() == pytest.approx(ratio, rel=1e-4)
    assert not blurred[1:].any(), "channels must not mix"


def test_blur_replicates_borders() -> None:
    assert intensity.blur(torch.full((1, 5, 4), 3.0), 1.0) == pytest.approx(
        torch.full((1, 5, 4), 3.0), abs=1e-5
    )


def test_a_bias_field_is_the_exponential_of_a_polynomial_of_each_axis() -> None:
    shaded = intensity.bias_field(
        torch.ones(1, 3, 5), [(0.5, 0.0), (0.0, 0.25)]
    )
    assert shaded[0, 2, 2].item() == pytest.approx(math.exp(0.5))
    assert shaded[0, 0, 2].item() == pytest.approx(math.exp(-0.5))
    assert shaded[0, 1, 0].item() == pytest.approx(math.exp(0.25))
    assert shaded[0, 1, 4].item() == pytest.approx(math.exp(0.25))
    assert shaded[0, 1, 3].item() == pytest.approx(math.exp(0.25 * 0.25))


def test_the_limit_of_a_bias_field_holds_in_both_directions() -> None:
    shaded = intensity.bias_field(
        torch.ones(1, 3, 1), [(9.0, 0.0), (0.0, 0.0)], limit=2.0
    )
    assert shaded.flatten().tolist() == pytest.approx(
        [math.exp(-2), 1, math.exp(2)]
    )


def test_brightness_is_a_factor() -> None:
    image = images(2, 4, 4)
    assert torch.equal(intensity.brightness(image, 1.25), image * 1.25)


def test_contrast_spreads_each_channel_about_its_own_mean() -> None:
    image = torch.tensor([[[0.0, 1.0, 3.0, 4.0]], [[10.0, 11.0, 13.0, 14.0]]])
    narrower = intensity.contrast(image, 0.5)
    assert narrower[:, 0].tolist() == [
        [1.0, 1.5, 2.5, 3.0],
        [11.0, 11.5, 12.5, 13.0],
    ]
    wider = intensity.contrast(image, 1.5)
    assert wider[:, 0].tolist() == [
        [0.0, 0.5, 3.5, 4.0],
        [10.0, 10.5, 13.5, 14.0],
    ]


def test_gamma_bends_the_magnitude_and_keeps_the_sign() -> None:
    image = torch.tensor([[[-0.25, 0.0, 0.25, 1.0, 4.0]]])
    assert intensity.gamma(image, 0.5).flatten().tolist() == [
        -0.5,
        0.0,
        0.5,
        1.0,
        2.0,
    ]


def test_low_resolution_takes_the_nearest_voxels_or_interpolates_between_corners() -> (
    None
):
    ramp = torch.arange(8.0).reshape(1, 8, 1).repeat(1, 1, 2)
    corners = intensity.low_resolution(ramp, (3, 2), align_corners=True)
    assert torch.allclose(corners, ramp, atol=1e-5), (
        "a line stays a line up to its ends"
    )
    nearest = intensity.low_resolution(ramp, (4, 2))
    assert nearest[0, :, 0].tolist() == [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.0]


def test_low_resolution_leaves_no_dark_border() -> None:
    # A coarse grid of 12 on 26 voxels, whose last coordinate rounds to beyond the last voxel.
    bright = torch.ones(1, 30, 26, 20)
    assert torch.allclose(
        intensity.low_resolution(bright, (14, 12, 9), align_corners=True),
        bright,
        atol=1e-5,
    )


@pytest.mark.parametrize("axis", [1, 2])
def test_ghosts_are_copies_at_equal_distances_along_one_axis(axis: int) -> None:
    image = torch.zeros(1, 12, 12)
    image[0, 3, 4] = 1.0
    ghosted = intensity.ghosting(image, axis, every=3, strength=0.6)
    line = ghosted[0, :, 4] if axis == 1 else ghosted[0, 3, :]
    # Every third line is dimmed by 0.6: a third of 0.6 moves to copies 12 / 3 voxels apart. The
    # line of the mean is not dimmed, which adds 0.6 / 12 everywhere.
    expected = torch.full((12,), 0.6 / 12)
    start = 3 if axis == 1 else 4
    for copy in range(3):
        expected[(start + 4 * copy) % 12] -= 0.6 / 3
    expected[start] += 1
    assert line.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert ghosted.mean().item() == pytest.approx(image.mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: intensity.noise(image, image, 0.1),
        lambda image: intensity.blur(image, 1.0),
        lambda image: intensity.bias_field(
            image, [(0.1, 0.1)] * (image.ndim - 1)
        ),
        lambda image: intensity.brightness(image, 1.1),
        lambda image: intensity.contrast(image, 1.1),
        lambda image: intensity.low_resolution(image, [2] * (image.ndim - 1)),
        lambda image: intensity.gamma(image, 1.1),
        lambda image: intensity.ghosting(image, 1, 2, 0.1),
    ],
)
@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 6, 5, 4)])
def test_no_transform_changes_its_image_in_place(
    transform, shape: tuple[int, ...]
) -> None:
    image = images(*shape)
    kept = image.clone()
    changed = transform(image)
    assert torch.equal(image, kept)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
