"""Pictures: one slice, values as stored, nothing silently stretched, dropped or turned."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import ScanError
from medseg.io import read_image, read_labels
from medseg.io.pictures import PICTURE
from medseg.testing.image_formats import ImageFormatContract

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)  # 3 rows, 4 columns


def png(
    path: Path, rows: list[bytes], depth: int, kind: int, width: int
) -> Path:
    """A PNG chunk by chunk, for depths that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checked = name + body
        return (
            struct.pack(">I", len(body))
            + checked
            + struct.pack(">I", zlib.crc32(checked))
        )

    head = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


class TestPng(ImageFormatContract):
    format = PICTURE
    suffix = ".png"

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        Image.fromarray(np.ascontiguousarray(array[:, :, 0].T)).save(path)


class TestTiff(TestPng):
    suffix = ".tif"


class TestBmpInCapitals(TestPng):
    suffix = ".BMP"


def test_columns_are_i_and_rows_are_j(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    volume = read_image(tmp_path / "a.png")
    assert volume.array.shape == (1, 4, 3, 1)
    assert np.array_equal(volume.array[0, :, :, 0], GREY.T)
    assert np.array_equal(volume.affine, np.eye(4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_grey_of_every_depth(tmp_path, dtype):
    values = GREY.astype(dtype) * 20
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(
        read_image(tmp_path / "a.tif").array[0, :, :, 0], values.T
    )
    assert np.array_equal(
        read_labels(tmp_path / "a.tif").array[0, :, :, 0], values.T
    )


def test_colours_are_three_channels_and_grey_in_colours_is_one(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.array_equal(
        read_image(tmp_path / "a.png").array[..., 0], colours.transpose(2, 1, 0)
    )
    Image.fromarray(np.dstack([GREY] * 3)).save(tmp_path / "b.png")
    for read in (read_image, read_labels):
        assert np.array_equal(
            read(tmp_path / "b.png").array[:, :, :, 0], GREY.T[None]
        )


def test_real_pictures_stored_as_colour_are_grey(shared_data):
    folder = shared_data / "sunnybrook_cmr_2d"
    path = next(iter(sorted((folder / "images").iterdir())))
    assert read_image(path).array.shape == (1, 256, 256, 1)
    labels = read_labels(folder / "labels" / path.name)
    assert set(np.unique(labels.array)) <= {0, 255}


def test_palettes_are_indices_in_labels_and_colours_in_images(tmp_path):
    picture = Image.fromarray(GREY % 3, mode="P")
    picture.putpalette([0, 0, 0, 200, 10, 20, 30, 220, 40])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(
        read_labels(tmp_path / "a.png").array[0, :, :, 0], GREY.T % 3
    )
    image = read_image(tmp_path / "a.png").array
    assert image.shape == (3, 4, 3, 1)
    assert image[:, 1, 0, 0].tolist() == [200, 10, 20]


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_grey_counts_up_from_zero_in_labels(tmp_path, depth):
    values = [0, 1, 1, 0] if depth == 1 else [0, 1, 2, 3]
    packed = sum(
        v << (8 * max(1, depth // 2) - depth * (n + 1))
        for n, v in enumerate(values)
    )
    row = packed.to_bytes(max(1, depth // 2), "big")
    labels = read_labels(png(tmp_path / "a.png", [row], depth, kind=0, width=4))
    assert labels.array[0, :, 0, 0].tolist() == values


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    alpha = np.full((3, 4), 255, np.uint8)
    Image.fromarray(np.dstack([GREY, GREY + 1, GREY + 2, alpha])).save(
        tmp_path / "a.png"
    )
    assert read_image(tmp_path / "a.png").array.shape == (3, 4, 3, 1)
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "b.png")
    assert np.array_equal(
        read_image(tmp_path / "b.png").array[0, :, :, 0], GREY.T
    )
    alpha[0, 0] = 254
    Image.fromarray(np.dstack([GREY, GREY + 1, GREY + 2, alpha])).save(
        tmp_path / "c.png"
    )
    with pytest.raises(ScanError, match="transparent"):
        read_image(tmp_path / "c.png")


def test_deep_colours_are_refused_rather_than_cut(tmp_path):
    row = np.arange(12, dtype=">u2").tobytes()
    with pytest.raises(ScanError, match="16 bits per channel"):
        read_image(png(tmp_path / "a.png", [row], 16, kind=2, width=4))


def test_pages_are_refused_with_their_number(tmp_path):
    first = Image.fromarray(GREY)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first, first])
    with pytest.raises(ScanError, match="3 pages"):
        read_image(tmp_path / "a.tif")


def test_other_colour_spaces_are_refused(tmp_path):
    Image.new("CMYK", (4, 3)).save(tmp_path / "a.jpg")
    with pytest.raises(ScanError, match="colour space CMYK"):
        read_image(tmp_path / "a.jpg")


def test_the_cameras_rotation_is_ignored_and_said(tmp_path):
    picture = Image.fromarray(np.tile(GREY, (8, 8)))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    volume = read_image(tmp_path / "a.jpg")
    assert volume.shape == (32, 24, 1)
    assert "EXIF" in volume.warnings[0]


def test_jpeg_labels_are_doubted(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.jpg")
    assert "lossy" in read_labels(tmp_path / "a.jpg").warnings[0]


def test_a_bomb_is_refused_unopened(tmp_path):
    with pytest.raises(ScanError, match="too large"):
        read_image(png(tmp_path / "a.png", [b"\0"], 8, kind=0, width=2**31 - 1))


def test_a_picture_larger_than_its_bytes_is_refused_unopened(tmp_path):
    with pytest.raises(ScanError, match="cannot lie in so few bytes"):
        read_image(png(tmp_path / "a.png", [b"\0"], 8, kind=0, width=2**24))


def test_a_damaged_checksum_is_noticed(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ScanError, match=r"a\.png: the file cannot be read"):
        read_image(tmp_path / "a.png")


def test_another_kind_of_file_under_a_pictures_name_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(ScanError, match="not a PNG"):
        read_image(tmp_path / "a.png")
