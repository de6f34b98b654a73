"""Soft and JPEG edges of label pictures go to the nearest label; all else is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from support.street_scenes import (
    CAR,
    COLOURS,
    SKY,
    Scene,
    as_jpeg,
    make_scene,
    paint,
    paint_smoothly,
)

from medseg.datasets.label_encoding import EncodedMask, encode_mask
from medseg.datasets.mask_colours import EXACT, EdgeShares, describe_edges
from medseg.errors import ScanError
from medseg.labels import Code, Label, LabelSet
from medseg.volume import Volume

STREET = LabelSet(
    [
        Label(index, name, value=index, colour=colour)
        for index, (name, colour) in enumerate(COLOURS.items(), start=1)
    ],
    colour_coded=True,
)
SIZE = (144, 192)


def grey_labels(*values: int, ignore: Code | None = None) -> LabelSet:
    labels = [
        Label(index, f"l{value}", value=value, colour=(index, 0, 0))
        for index, value in enumerate(values, start=1)
    ]
    return LabelSet(labels, ignore=ignore)


def encode(
    picture: Image.Image, labels: LabelSet = STREET, name: str = "mask.png"
) -> EncodedMask:
    pixels = np.asarray(picture)
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    array = channels.transpose(0, 2, 1)[..., None]
    return encode_mask(Volume(array, np.eye(4), name), labels)


def share_right(encoded: EncodedMask, scene: Scene) -> float:
    return float(np.mean(scene == encoded.indices[..., 0].T))


def disc(radius: float, size: int = 128) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return np.hypot(x, y) < radius


def test_what_is_exact_is_told_to_be_exact() -> None:
    scene = make_scene(1, *SIZE)
    encoded = encode(paint(scene))

    assert encoded.edges == EXACT
    assert encoded.warnings == ()
    assert share_right(encoded, scene) == 1


def test_smoothed_edges_go_to_the_labels_beside_them() -> None:
    scene = make_scene(1, SIZE[0] * 4, SIZE[1] * 4)[2::4, 2::4]
    encoded = encode(paint_smoothly(1, *SIZE))

    assert 0.001 < encoded.edges.soft < 0.02
    assert share_right(encoded, scene) > 0.99
    assert set(np.unique(encoded.indices)) == {1, 2, 3, 4, 5}
    assert "each counts as the nearest label" in encoded.warnings[0]


def test_no_third_label_appears_between_two_others() -> None:
    # Half way from black to white lies the grey of a third label.
    labels = grey_labels(128, 255)
    white = np.zeros((256, 256), np.uint8)
    white[40:90, 40:90] = 255
    white[5:20, 5:20] = 128
    smooth = Image.fromarray(white).filter(ImageFilter.GaussianBlur(0.8))
    indices = encode(smooth, labels).indices[..., 0]

    beside_white = indices[30:100, 30:100]
    exact = np.asarray(smooth).T[30:100, 30:100] == 128
    assert not np.any((beside_white == 1) & ~exact)
    assert np.sum(indices == 1) == pytest.approx(15 * 15, abs=32)


@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize("name", ["mask.jpg", "saved_again.png"])
def test_jpeg_masks_are_read_as_they_were_drawn(
    quality: int, name: str
) -> None:
    scene = make_scene(2, *SIZE)
    encoded = encode(as_jpeg(paint(scene), quality), name=name)

    assert encoded.edges.near > 0.3
    assert share_right(encoded, scene) > 0.999


def test_a_grey_jpeg_mask_holds_0_and_255() -> None:
    drawn = disc(30)
    jpeg = as_jpeg(Image.fromarray(drawn.astype(np.uint8) * 255), 75)
    assert len(np.unique(np.asarray(jpeg))) > 30

    encoded = encode(jpeg, grey_labels(255), "mask.jpg")

    assert np.array_equal(encoded.indices[..., 0].T == 1, drawn)
    assert encoded.indices.max() == 1


def test_more_soft_voxels_than_edges_have_are_refused() -> None:
    mask = paint(make_scene(1, *SIZE)).filter(ImageFilter.GaussianBlur(6))
    with pytest.raises(
        ScanError, match=r"% of the mask's voxels.*save it as PNG"
    ):
        encode(mask)


@pytest.mark.parametrize("size", [(3, 3), (30, 2), (40, 40)])
@pytest.mark.parametrize("colour", [(0, 192, 64), (128, 128, 100)])
@pytest.mark.parametrize("smear", [False, True])
def test_a_structure_of_another_colour_is_never_taken_for_a_label(
    size: tuple[int, int], colour: tuple[int, int, int], smear: bool
) -> None:
    mask = paint_smoothly(1, *SIZE) if smear else paint(make_scene(1, *SIZE))
    pixels = np.asarray(mask).copy()
    pixels[5 : 5 + size[0], 80 : 80 + size[1]] = colour
    if smear and size == (30, 2) and colour == (128, 128, 100):
        pytest.skip("a thin line that is a little off may be an edge")
    with pytest.raises(ScanError) as caught:
        encode(Image.fromarray(pixels))
    assert str(colour) in caught.value.message


@pytest.mark.parametrize("values", [(1,), (1, 2), (1, 2, 3, 9)])
def test_small_values_are_not_the_background_of_0_and_255(
    values: tuple[int, ...],
) -> None:
    mask = np.zeros((128, 128), np.uint8)
    for number, value in enumerate(values):
        mask[10:60, 10 + 9 * number] = value
    with pytest.raises(ScanError, match=r"holds 1 \(50 voxels\)"):
        encode(Image.fromarray(mask), grey_labels(255))


def test_values_close_to_each_other_must_be_exact() -> None:
    mask = np.repeat(np.arange(8, dtype=np.uint8), 64).reshape(16, 32)
    with pytest.raises(ScanError, match=r"holds 4 \(64 voxels\)"):
        encode(Image.fromarray(mask), grey_labels(1, 2, 3, 5, 6, 7))


def test_numbers_of_classes_are_not_mixed_by_smoothing() -> None:
    mask = np.where(disc(40), 3, 0).astype(np.uint8)
    mask[disc(20)] = 1
    mask[60:64, 2:6] = [20, 40, 60, 80]
    with pytest.raises(ScanError, match="the label file holds"):
        encode(Image.fromarray(mask), grey_labels(1, 2, 3))


def test_other_files_than_pictures_must_be_exact() -> None:
    smooth = Image.fromarray(disc(30).astype(np.uint8) * 255).filter(
        ImageFilter.GaussianBlur(0.5)
    )
    assert encode(smooth, grey_labels(255)).edges.soft > 0
    with pytest.raises(ScanError, match="the label file holds"):
        encode(smooth, grey_labels(255), "mask.nii.gz")


def test_a_photograph_is_no_mask() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    with pytest.raises(ScanError, match="photograph"):
        encode(Image.fromarray(noise))


def test_labels_whose_colours_nobody_chose_must_be_exact() -> None:
    labels = LabelSet([Label(1, "x", value=1, colour=(230, 60, 60))])
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[20:40, 20:40] = (231, 60, 60)
    with pytest.raises(ScanError, match=r"\(231, 60, 60\)"):
        encode(Image.fromarray(mask), labels)


def test_a_grey_picture_of_a_colour_coded_bundle_holds_colours() -> None:
    sky = np.full((16, 16), 128, np.uint8)
    assert (encode(Image.fromarray(sky)).indices == SKY).all()
    jpeg = Image.fromarray(sky - 1)
    assert (encode(jpeg, name="sky.jpg").indices == SKY).all()


def test_the_shares_of_a_data_set_name_the_worst_mask() -> None:
    shares = {
        "a": EdgeShares(0.02, 0.001),
        "b": EdgeShares(0.0, 0.012),
        "c": EdgeShares(0.03, 0.0),
    }
    (text,) = describe_edges(shares, 10)

    assert text.startswith("3 of 10 masks")
    assert "0.50% of all voxels" in text
    assert "0.13% by more" in text
    assert "Most in b: 0.00% and 1.20%" in text


def test_what_is_said_of_a_mask_can_be_added_up() -> None:
    shares = EdgeShares(0.12345, 0.00678)
    parsed = EdgeShares.parse(shares.describe())
    assert parsed.near == pytest.approx(0.12345)
    assert parsed.soft == pytest.approx(0.00678)
    assert EdgeShares.parse("label: JPEG is lossy") == EXACT


def test_merged_values_are_told_apart_from_other_labels_only() -> None:
    labels = LabelSet(
        [
            Label(1, "myelin", 127, (1, 0, 0), other_values=(128,)),
            Label(2, "axon", 255, (2, 0, 0)),
        ]
    )
    drawn = np.where(disc(40), 127, 0).astype(np.uint8)
    drawn[disc(25)] = 255
    drawn[disc(40) & (np.indices(drawn.shape)[0] < 64) & (drawn == 127)] = 128
    jpeg = as_jpeg(Image.fromarray(drawn), 90)

    indices = encode(jpeg, labels, "mask.jpg").indices[..., 0].T

    right = np.select([disc(25), disc(40)], [2, 1], 0)
    assert np.mean(indices == right) > 0.998
    assert CAR not in indices


def test_numbers_of_objects_must_be_exact() -> None:
    objects = np.zeros((128, 128), np.uint16)
    objects[disc(30)] = 1000
    for number in range(8):
        objects[4 * number, 2:4] = 500 + 60 * number
    objects[100, 2:4] = 1003
    with pytest.raises(ScanError, match=r"500 \(2 voxels\)"):
        encode(Image.fromarray(objects), grey_labels(1000))
