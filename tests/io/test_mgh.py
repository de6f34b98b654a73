"""FreeSurfer's files: the same voxels and affine as nibabel, and no trust in headers."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import GeometryError, ScanError
from medseg.io import read_image, read_labels
from medseg.io.mgh import MGH
from medseg.testing.image_formats import ImageFormatContract

AFFINE = np.array(
    [[-1.0, 0, 0, 31], [0, 0, 1.5, -12], [0, -1.2, 0, 7], [0, 0, 0, 1.0]]
)


def save(path: Path, array: Any, affine: Any = AFFINE) -> Path:
    nib.save(nib.MGHImage(array, affine), path)
    return path


def patch(path: Path, place: int, content: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(whole)
    return path


class TestMgh(ImageFormatContract):
    format = MGH
    suffix = ".mgh"

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        save(path, array, affine)


class TestMgz(TestMgh):
    suffix = ".mgz"


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
def test_voxels_and_affine_equal_nibabels(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = save(tmp_path / "scan.mgz", values)
    image = nib.load(path)
    volume = read_image(path)
    channels_last = np.moveaxis(volume.array, 0, 3)
    assert np.array_equal(channels_last.squeeze(), values)
    assert np.array_equal(volume.affine, image.affine)
    assert volume.warnings == ()
    if len(shape) == 3:
        assert np.array_equal(read_labels(path).array[0], values)
    else:
        with pytest.raises(ScanError, match="this file has 2"):
            read_labels(path)


def test_a_header_without_orientation_is_doubted(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mgh", np.ones((3, 4, 5), np.uint8))
    patch(path, 28, bytes(2))
    for read in (read_image, read_labels):
        assert "no orientation" in read(path).warnings[0]
    assert np.array_equal(read_image(path).affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("place", "content", "why"),
    [
        (0, b"\0\0\0\7", "not an MGH file"),
        (4, b"\x7f\xff\xff\xff", "at most"),
        (4, bytes(4), "at least one"),
        (4, b"\0\0\1\0", "more than the file can hold"),
        (20, b"\0\0\0\7", "number type"),
        (30, bytes(4), "above 0 mm"),
        (30, np.array(-1, ">f4").tobytes(), "above 0 mm"),
        (30, np.array(np.nan, ">f4").tobytes(), "above 0 mm"),
        (78, np.array(1e30, ">f4").tobytes(), "impossible"),
        (42, bytes(12), "singular"),
    ],
)
def test_forged_headers_are_refused(
    tmp_path: Path, place: int, content: bytes, why: str
) -> None:
    path = save(tmp_path / "scan.mgh", np.ones((3, 4, 5), np.uint8))
    patch(path, place, content)
    for read in (read_image, read_labels):
        with pytest.raises((ScanError, GeometryError), match=why):
            read(path)


def test_a_cut_stream_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mgh", np.ones((9, 9, 9), np.int16))
    content = path.read_bytes()
    path = tmp_path / "scan.mgz"
    for cut in (100, 283, 284, 900, 284 + 9**3 * 2 - 1):
        path.write_bytes(gzip.compress(content[:cut]))
        with pytest.raises(ScanError, match="truncated"):
            read_image(path)


def test_directions_that_stretch_voxels_are_said(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.mgh", np.ones((3, 4, 5), np.uint8))
    patch(path, 42, np.array(-2, ">f4").tobytes())
    assert "not of length 1" in read_image(path).warnings[0]
