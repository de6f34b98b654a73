"""A scan's files find their format, also one that another package adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.plugins import install_package

from medseg.datasets.scans import find_scans
from medseg.errors import OutputError, ScanError
from medseg.io import (
    IMAGE_FORMATS,
    find_format,
    read_image,
    read_labels,
    write_labels,
)
from medseg.io.registry import list_readable_suffixes
from medseg.names import is_picture, split_suffix
from medseg.volume import Volume

NPZ = """
import numpy as np
from medseg.errors import ScanError
from medseg.io.formats import Format, single_file
from medseg.io.voxels import as_labels
from medseg.volume import Volume

def _load(files):
    path = single_file(files, "NumPy archive")
    try:
        with np.load(path, allow_pickle=False) as content:
            return path, content["array"], content["affine"]
    except Exception as error:
        raise ScanError("is no NumPy archive", source=path, detail=str(error)) from error

def read(files):
    path, array, affine = _load(files)
    return Volume(array[None].astype(np.float32), affine, path.name)

def read_labels(files):
    path, array, affine = _load(files)
    return Volume(as_labels(array[None], path), affine, path.name)

def write_labels(path, labels, like):
    with path.open("wb") as file:
        np.savez(file, array=labels, affine=like.affine)

FORMAT = Format("NumPy archive", (".npz", ".vol.gz"), read, read_labels, write_labels, (".npz",))
"""


@pytest.fixture
def formats(site):
    """Install packages that add formats, and forget them behind the test."""

    def install(
        code: str = NPZ, name: str = "npz", package: str = "npz_package"
    ) -> None:
        points = {"medseg.image_formats": {name: f"{package}:FORMAT"}}
        install_package(site, package, points, code)
        IMAGE_FORMATS.refresh()

    yield install
    IMAGE_FORMATS.refresh()


@pytest.fixture(autouse=True)
def _forget_packages(monkeypatch):
    yield
    monkeypatch.undo()
    IMAGE_FORMATS.refresh()


def write_npz(path: Path) -> Volume:
    array = np.arange(60).reshape(3, 4, 5)
    affine = np.diag([2.0, 3, 4, 1])
    np.savez(path, array=array, affine=affine)
    return Volume(array[None].astype(np.float32), affine)


def test_suffixes_are_claimed_once_and_the_longest_is_tried_first():
    suffixes = list_readable_suffixes()
    assert len(set(suffixes)) == len(suffixes)
    assert list(map(len, suffixes)) == sorted(map(len, suffixes), reverse=True)
    assert {".nii.gz", ".nrrd", ".png", ".dcm"} <= set(suffixes)


def test_double_suffixes_count_by_the_last(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "SC-HF-I-04.dcm.png")
    assert find_format([tmp_path / "SC-HF-I-04.dcm.png"]).name == "picture"


def test_format_of_a_package_is_read_written_and_discovered(formats, tmp_path):
    volume = write_npz(tmp_path / "scan.npz")
    with pytest.raises(ScanError, match="not a known kind of image"):
        read_image(tmp_path / "scan.npz")
    formats()
    assert np.array_equal(read_image(tmp_path / "scan.npz").array, volume.array)
    labels = np.arange(60).reshape(3, 4, 5) % 4
    write_labels(tmp_path / "labels.npz", labels, volume)
    assert np.array_equal(read_labels(tmp_path / "labels.npz").array[0], labels)
    with pytest.raises(OutputError, match=r"\.png, \.npz$"):
        write_labels(tmp_path / "labels.vol.gz", labels, volume)
    assert split_suffix("scan.npz") == ("scan", ".npz")
    assert split_suffix("SCAN.VOL.GZ") == ("SCAN", ".vol.gz")
    assert not is_picture(tmp_path / "scan.npz")
    assert [
        scan.name for scan in find_scans(tmp_path / "scan.npz", 1).scans
    ] == ["scan"]


def test_pictures_of_a_package_are_known_as_pictures(formats, tmp_path):
    formats(NPZ.replace('(".npz",))', '(".npz",), is_picture=True)'))
    assert is_picture(tmp_path / "scan.npz")


def test_broken_package_keeps_nobody_from_reading_and_is_named_where_it_is_missed(
    formats, tmp_path
):
    formats("raise RuntimeError('another Python')")
    picture = tmp_path / "scan.png"
    Image.new("L", (3, 2)).save(picture)
    assert read_image(picture).shape == (3, 2, 1)
    write_npz(tmp_path / "scan.npz")
    with pytest.raises(
        ScanError, match=r"'npz' of the package npz_package 1\.2 cannot be used"
    ):
        read_image(tmp_path / "scan.npz")


def test_package_cannot_take_a_suffix_of_medseg(formats, tmp_path):
    formats(NPZ.replace(".vol.gz", ".nii.gz"))
    assert find_format([tmp_path / "scan.nii.gz"]).name == "NIfTI"
    (problem,) = IMAGE_FORMATS.usable()[1]
    assert ".nii.gz is read by medseg itself, as NIfTI" in (
        problem.detail or ""
    )


def test_suffix_that_two_packages_claim_is_refused(formats, tmp_path):
    formats()
    formats(
        NPZ.replace('"NumPy archive", (', '"zipped volume", ('),
        "zipped",
        "zip_package",
    )
    write_npz(tmp_path / "scan.npz")
    with pytest.raises(
        ScanError, match="NumPy archive and zipped volume both claim"
    ):
        read_image(tmp_path / "scan.npz")
