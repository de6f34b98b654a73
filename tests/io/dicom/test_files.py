"""What is DICOM, and how much of a file is taken in."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pydicom
import pytest
from support import dicom as made
from support.dicom import deflate

from medseg.errors import ScanError
from medseg.io import find_series, read_image


def test_a_file_without_a_preamble_is_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        bare = pydicom.Dataset(ds)
        bare.save_as(
            path,
            implicit_vr=True,
            little_endian=True,
            enforce_file_format=False,
        )
    assert not any(
        path.read_bytes()[128:132] == b"DICM" for path in folder.iterdir()
    )
    assert np.array_equal(read_image(folder).array[0], made.voxels())


def test_deflated_files_are_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    for path in folder.iterdir():
        deflate(path)
    assert np.array_equal(read_image(folder).array[0], made.voxels())


def test_a_deflated_bomb_takes_little_memory(tmp_path):
    folder = made.save(tmp_path, made.series())
    deflate(folder / "IM0000", bomb=200 << 20)
    tracemalloc.start()
    (found,), _ = find_series(folder)
    with pytest.raises(
        ScanError, match="IM0000: the deflated file inflates to more"
    ):
        read_image(found.files)
    assert tracemalloc.get_traced_memory()[1] < 180 << 20
    tracemalloc.stop()
