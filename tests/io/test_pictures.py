"""Pictures: one slice, values as stored, nothing silently stretched, dropped or turned."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
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


class TestDeepTiff(TestPng):
    suffix = ".tiff"

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        pixels = array[:, :, 0].T.astype(np.float64)
        tifffile.imwrite(path, pixels, photometric="minisblack")


class TestDeflatedTiff(TestPng):
    suffix = ".tif"

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        pixels = array[:, :, 0].T.astype(np.uint64)
        tifffile.imwrite(path, pixels, compression="zlib", rowsperstrip=2)


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


TYPES = (
    *("bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"),
    *("f2", "f4", "f8"),
)
PIXELS = np.random.default_rng(0).integers(0, 100, (37, 45))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("black", [True, False])
def test_every_tiff_is_read_as_it_is_stored(
    tmp_path, dtype, byteorder, compression, tile, black
):
    pixels = (PIXELS % 2 if dtype == "bool" else PIXELS).astype(dtype)
    if pixels.dtype.kind in "if":
        pixels = pixels - pixels.dtype.type(50)
    predictor = compression is not None and dtype in ("u1", "i2", "u4")
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="minisblack" if black else "miniswhite",
        byteorder=byteorder,
        compression=compression,
        predictor=predictor,
        tile=tile,
    )
    stored = pixels.T.astype(np.float64)
    shown = stored
    if not black and pixels.dtype.kind in "bu":
        most = 1 if dtype == "bool" else np.iinfo(pixels.dtype).max
        shown = most - stored
    volume = read_image(tmp_path / "a.tif")
    assert np.array_equal(volume.array[0, :, :, 0], shown.astype(np.float32))
    assert volume.warnings == ()
    if pixels.min() >= 0:
        labels = read_labels(tmp_path / "a.tif")
        assert np.array_equal(labels.array[0, :, :, 0], stored)


@pytest.mark.parametrize("depth", [2, 4])
def test_shallow_labels_whose_zero_is_white_are_as_stored(tmp_path, depth):
    """A TIFF tag by tag, for depths that neither library writes."""
    packed = bytes([0b00011011]) if depth == 2 else bytes([0x01, 0x23])
    tags = [
        *((256, 4), (257, 1), (258, depth), (259, 1), (262, 0)),
        *((273, 8), (277, 1), (278, 1), (279, len(packed))),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags)
    head = b"II*\0" + struct.pack("<I", 10)
    content = head + packed.ljust(2, b"\0") + struct.pack("<H", len(tags))
    (tmp_path / "a.tif").write_bytes(content + entries + bytes(4))
    labels = read_labels(tmp_path / "a.tif").array[0, :, 0, 0]
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_that_is_marked_as_turned_stays_as_stored(
    tmp_path, orientation, compression
):
    mark = (274, 3, 1, orientation, True)
    tifffile.imwrite(
        tmp_path / "a.tif", GREY, compression=compression, extratags=[mark]
    )
    for read in (read_image, read_labels):
        volume = read(tmp_path / "a.tif")
        assert np.array_equal(volume.array[0, :, :, 0], GREY.T)
        assert "EXIF" in volume.warnings[0]
    colours = np.dstack([GREY, GREY + 1, GREY + 2])
    tifffile.imwrite(tmp_path / "b.tif", colours, extratags=[mark])
    with pytest.raises(ScanError, match=f"Orientation {orientation}"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_in_planes_are_colours(tmp_path, planar):
    colours = np.random.default_rng(0).integers(0, 255, (3, 40, 30), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        colours if planar == "separate" else colours.transpose(1, 2, 0),
        photometric="rgb",
        planarconfig=planar,
    )
    volume = read_image(tmp_path / "a.tif")
    assert np.array_equal(volume.array[..., 0], colours.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("pixels", "options", "what"),
    [
        (np.ones((8, 9), np.complex64), {}, "a TIFF of 64-bit numbers"),
        (
            np.ones((8, 9, 3), np.float32),
            {"photometric": "rgb"},
            "3 channels of 32-bit floats",
        ),
        (
            np.ones((8, 9, 2), np.uint8),
            {"photometric": "minisblack", "planarconfig": "contig"},
            "2 channels of 8-bit unsigned integers",
        ),
    ],
)
def test_a_tiff_that_is_not_read_is_called_what_it_is(
    tmp_path, pixels, options, what
):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    for read in (read_image, read_labels):
        with pytest.raises(ScanError, match=what) as caught:
            read(tmp_path / "a.tif")
        assert "truncated" not in caught.value.message


@pytest.mark.parametrize(
    ("tag", "value", "what"),
    [(259, 5, "compressed with LZW"), (317, 3, "and predictor 3")],
)
def test_codecs_that_are_not_there_are_named(tmp_path, tag, value, what):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.ones((8, 9), np.uint32),
        compression="zlib",
        predictor=True,
    )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)
    with pytest.raises(ScanError, match=what) as caught:
        read_image(tmp_path / "a.tif")
    assert "truncated" not in caught.value.message


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_grey_in_pillows_codecs_is_read_by_it(
    tmp_path, compression, dtype
):
    pixels = (PIXELS * 7).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    volume = read_image(tmp_path / "a.tif")
    assert np.array_equal(volume.array[0, :, :, 0], pixels.T)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_a_deep_tiff_that_is_cut_short_is_truncated(
    tmp_path, compression, tile
):
    pixels = np.random.default_rng(0).random((64, 64))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression=compression, tile=tile)
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(ScanError, match="truncated"):
        read_image(path)
    path.write_bytes(content)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts" if tile else 279]
        values = [counts.value] if counts.count == 1 else [*counts.value]
        values[0] = 0
        counts.overwrite(values[0] if len(values) == 1 else values)
    with pytest.raises(ScanError, match="truncated"):
        read_image(path)


def test_strips_that_inflate_beyond_their_place_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((400, 400)), compression="zlib", rowsperstrip=400
    )
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        (offset,), (count,) = (
            tiff.pages[0].dataoffsets,
            tiff.pages[0].databytecounts,
        )
        counts = tiff.pages[0].tags[279].valueoffset
    bomb = zlib.compress(bytes(80 << 20))
    content = content[:offset] + bomb + content[offset + count :]
    patched = bytearray(content)
    patched[counts : counts + 4] = struct.pack("<I", len(bomb))
    path.write_bytes(patched)
    tracemalloc.start()
    with pytest.raises(ScanError, match="damaged"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_deep_tiff_of_a_forged_size_is_refused_before_memory_is_taken(
    tmp_path,
):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 9)))
    for tag, value in ((256, 2**31 - 1), (257, 2**31 - 1)):
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags[tag].overwrite(value)
        with pytest.raises(ScanError, match=r"truncated|at most"):
            read_image(path)


@pytest.mark.parametrize("options", [{}, {"imagej": True}])
def test_deep_pages_are_refused_with_their_number(tmp_path, options):
    stack = np.zeros((5, 8, 9), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    with pytest.raises(ScanError, match="5 pages"):
        read_image(tmp_path / "a.tif")


def test_what_pillow_thinks_of_tags_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, description="x" * 50)
    content = path.read_bytes()
    described = struct.pack("<HHI", 270, 2, 51)
    assert described in content
    endless = struct.pack("<HHI", 270, 2, 1 << 20)
    path.write_bytes(content.replace(described, endless))
    # In a process of its own: pytest sets the filters of warnings for its tests.
    code = "import sys, pathlib; from medseg.io import read_image; "
    code += "read_image(pathlib.Path(sys.argv[1]))"
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, check=False
    )
    assert said.stderr == b""


@pytest.mark.parametrize(
    ("compression", "dtype"),
    [
        ("tiff_lzw", "u1"),
        ("packbits", "u1"),
        ("raw", "bool"),
        ("group4", "bool"),
    ],
)
def test_labels_keep_their_values_where_white_is_zero_in_pillows_codecs_too(
    tmp_path, compression, dtype
):
    most = 1 if dtype == "bool" else 255
    stored = (PIXELS % 2 if dtype == "bool" else PIXELS * 2).astype(dtype)
    path = tmp_path / "a.tif"
    Image.fromarray(stored).save(path, compression=compression)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[262].overwrite(0)
    labels = read_labels(path).array[0, :, :, 0]
    image = read_image(path).array[0, :, :, 0]
    assert np.array_equal(labels, stored.T)
    assert np.array_equal(image, most - stored.T.astype(np.float32))


def test_a_jpeg_of_more_pixels_than_its_bytes_can_hold_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jpg"
    plain = np.full((400, 400), 77, np.uint8)  # the least that a JPEG can be
    Image.fromarray(plain).save(path)
    assert read_image(path).shape == (400, 400, 1)
    content = bytearray(path.read_bytes())
    frame = content.find(b"\xff\xc0")
    struct.pack_into(">H", content, frame + 5, 40_000)
    path.write_bytes(content)
    with pytest.raises(ScanError, match="cannot lie in so few bytes"):
        read_image(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_with_fewer_strips_than_its_rows_need_is_refused(
    tmp_path: Path, compression: str
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(GREY).save(path, compression=compression)
    assert read_image(path).shape == (4, 3, 1)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    struct.pack_into("<H", content, start + 2 + 12 + 8, 3000)  # ImageLength
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"strips of pixels|so few bytes"):
        read_image(path)


@pytest.mark.parametrize("pixels", [GREY, GREY.astype(np.uint16)])
def test_a_tiff_that_does_not_say_what_is_black_is_refused(
    tmp_path: Path, pixels: np.ndarray
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels)
    content = path.read_bytes()
    stated = struct.pack("<HHI", 262, 3, 1)
    assert stated in content
    path.write_bytes(content.replace(stated, struct.pack("<HHI", 300, 3, 1)))
    for read in (read_image, read_labels):
        with pytest.raises(ScanError, match="whether 0 is black"):
            read(path)
