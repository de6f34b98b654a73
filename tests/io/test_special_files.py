"""Devices, pipes and sockets are refused at every door, at once: reading one may never end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import dicom as made

from medseg._support.tables import read_table
from medseg.bundle.hashes import hash_file
from medseg.datasets.cases import Scan
from medseg.datasets.scans import find_scans
from medseg.dicom_labels.rtstruct_reader import read_rtstruct
from medseg.dicom_labels.seg_reader import read_dicom_seg, read_segment_names
from medseg.dicom_labels.structures import read_label_object
from medseg.errors import MedsegError
from medseg.inference.hashes import hash_scan
from medseg.io import find_format, find_series, read_image, read_labels

NAMES = ["a.nii.gz", "a.nii", "a.nrrd", "a.seg.nrrd", "a.mha", "a.mhd", "a.hdr"]
NAMES += ["a.png", "a.tif", "a.mgz", "a.nhdr", "a.dcm", "a"]


@pytest.fixture(autouse=True)
def _in_seconds() -> Iterator[None]:
    """End a test that reads for ever."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    target = path.with_name("pipe")
    os.mkfifo(target)
    path.symlink_to(target)


def listening_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    # A socket's own path may be too long for it.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


KINDS = [link_to_zero, pipe, link_to_pipe, listening_socket]
Kind = Callable[[Path], None]


def assert_refused(act: Callable[[], Any]) -> None:
    with pytest.raises(MedsegError, match="a device, a pipe or a socket"):
        act()


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_no_reader_opens_one(tmp_path: Path, make: Kind, name: str) -> None:
    path = tmp_path / name
    make(path)
    scan = Scan("x", ((path,),))
    for act in (read_image, read_labels, hash_file):
        assert_refused(lambda act=act: act(path))
    assert_refused(lambda: hash_scan(scan))
    assert_refused(lambda: find_scans(path, 1))
    if name != "a":
        image_format = find_format([path])
        assert_refused(lambda: image_format.read([path]))
        assert_refused(lambda: image_format.read_labels([path]))


@pytest.mark.parametrize("make", KINDS)
def test_no_reader_of_dicom_labels_opens_one(
    tmp_path: Path, make: Kind
) -> None:
    path = tmp_path / "a.dcm"
    make(path)
    scan = read_image(made.save(tmp_path / "ct", made.series()))
    assert_refused(lambda: read_dicom_seg(path, scan))
    assert_refused(lambda: read_segment_names(path))
    assert_refused(lambda: read_rtstruct(path, scan))
    assert_refused(lambda: read_label_object(path))


@pytest.mark.parametrize("make", KINDS)
def test_voxels_are_not_read_from_one(tmp_path: Path, make: Kind) -> None:
    make(tmp_path / "a.raw")
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
        "ElementSpacing = 1 1 1\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        "ElementDataFile = a.raw\n"
    )
    (tmp_path / "a.mhd").write_text(header)
    with pytest.raises(MedsegError, match="one file in the same folder"):
        read_image(tmp_path / "a.mhd")
    scan = Scan("x", ((tmp_path / "a.mhd",),))
    hash_scan(scan)


@pytest.mark.parametrize("make", KINDS)
def test_one_among_scans_is_left_out_and_named(
    tmp_path: Path, make: Kind
) -> None:
    made.save(tmp_path / "ct", made.series())
    make(tmp_path / "scan.nii.gz")
    found = find_scans(tmp_path, 1)
    assert len(found.scans) == 1
    left_out = {entry.name: entry.reason for entry in found.left_out}
    assert "a device, a pipe or a socket" in left_out["scan"]


@pytest.mark.parametrize("make", KINDS)
def test_one_in_a_list_is_left_out(tmp_path: Path, make: Kind) -> None:
    made.save(tmp_path / "ct", made.series())
    make(tmp_path / "scan.nii.gz")
    (tmp_path / "scans.csv").write_text("scan\nct\nscan.nii.gz\n")
    (entry,) = find_scans(tmp_path / "scans.csv", 1).left_out
    assert "a device, a pipe or a socket" in entry.reason


@pytest.mark.parametrize("make", KINDS)
def test_no_list_is_read_from_one(tmp_path: Path, make: Kind) -> None:
    make(tmp_path / "scans.csv")
    with pytest.raises(MedsegError):
        read_table(tmp_path / "scans.csv")


@pytest.mark.parametrize("make", KINDS)
def test_one_beside_slices_is_no_dicom(tmp_path: Path, make: Kind) -> None:
    folder = made.save(tmp_path, made.series())
    make(folder / "zero")
    (found,), _ = find_series(folder)
    assert read_image(found.files).shape == made.SHAPE
