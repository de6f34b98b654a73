"""The contract of a result format (``medseg.inference.result_files.ResultFormat``), to subclass.

A package that adds a format tests it like this::

    from medseg.testing.result_formats import ResultFormatContract

    class TestMyFormat(ResultFormatContract):
        result_format = MY_FORMAT

        def read_labels(self, path):
            return my_library.load(path)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from medseg._support.files import PART
from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError, OutputError
from medseg.inference.result_files import (
    ResultFormat,
    check_result_format,
    find_missing_formats,
)
from medseg.io.dicom.volume import Slices
from medseg.volume import Array, Volume

_SECRET = "SECRET-PATIENT"
"""Stands in the name of the folder; nothing that is recorded or shared may hold it."""

_SPEC: dict[str, Any] = {
    "name": "made_up",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
    "network": {"kind": "unet", "channels": [4, 8, 8], "strides": [1, 2, 2]},
    "training": {"patch": [16, 16, 16]},
}


class ResultFormatContract:
    """What every result format promises; subclass it as ``Test…`` in a test module.

    Attributes:
        result_format: The format under test.
        shape: Voxels of the scan that ``make_scan`` makes.
    """

    result_format: ClassVar[ResultFormat]
    shape: ClassVar[tuple[int, int, int]] = (12, 10, 8)

    def make_scan(self, folder: Path) -> Volume:
        """Make a scan that the format can write labels of.

        Args:
            folder: An empty folder, for the files of the scan if it has any.
        """
        affine = np.array(
            [[-0.8, 0, 0, 30], [0, 1.2, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]]
        )
        voxels = np.zeros((1, *self.shape), np.float32)
        return Volume(voxels, affine, source=f"{_SECRET}.nii.gz")

    def spoil_source(self, scan: Volume) -> Volume | None:
        """Return the scan without something that the format needs of its source.

        Returns:
            ``None`` if the format can be written of every scan.
        """
        return None

    def read_labels(self, path: Path) -> Array | None:
        """Read label indices ``(i, j, k)`` back with another library; ``None`` if none can."""
        return None

    @property
    def spec(self) -> BundleSpec:
        """The bundle whose labels are written."""
        return parse_spec(_SPEC)

    @pytest.fixture
    def scan(self, tmp_path: Path) -> Volume:
        """Return the scan, whose folder and file name a patient."""
        folder = tmp_path / _SECRET
        folder.mkdir()
        return self.make_scan(folder)

    @pytest.fixture
    def labels(self, scan: Volume) -> Array:
        """Return labels with two structures that touch no border, uint8."""
        labels = np.zeros(scan.shape, np.uint8)
        i, j, k = (np.arange(n) for n in scan.shape)
        inside = (slice(2, -2), slice(2, -2))
        labels[(*inside, k)] = 1
        labels[np.ix_(i[i > len(i) // 2], j[3:-3], k)] = 2
        labels[-2:] = 0
        return labels

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return the file to write, in a folder of its own."""
        (tmp_path / "out").mkdir()
        return tmp_path / "out" / f"scan_01{self.result_format.ending}"

    def test_format_is_well_formed(self) -> None:
        check_result_format(self.result_format)

    def test_a_scan_that_is_needed_from_dicom_is_one(
        self, scan: Volume
    ) -> None:
        if self.result_format.needs_dicom:
            assert isinstance(scan.header, Slices)

    def test_a_scan_is_checked_beforehand_and_nothing_is_written(
        self, path: Path, scan: Volume
    ) -> None:
        formats = {"tested": self.result_format}
        assert not find_missing_formats(scan, formats)
        assert not list(path.parent.iterdir())

    def test_a_scan_that_cannot_be_written_is_refused_beforehand(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        spoiled = self.spoil_source(scan)
        if spoiled is None:
            pytest.skip("the format can be written of every scan")
        formats = {"tested": self.result_format}
        with pytest.raises(MedsegError) as raised:
            find_missing_formats(spoiled, formats)
        assert _SECRET not in raised.value.message
        with pytest.raises(MedsegError):
            self._write(path, labels, spoiled)
        assert not list(path.parent.iterdir())

    def test_one_whole_file_is_written(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        self._write(path, labels, scan)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert path.stat().st_size > 0

    def test_labels_come_back(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        self._write(path, labels, scan)
        back = self.read_labels(path)
        if back is None:
            pytest.skip("the suite does not say how to read the format back")
        assert np.array_equal(back, labels)

    def test_a_scan_without_structures_has_a_file_too(
        self, path: Path, scan: Volume
    ) -> None:
        self._write(path, np.zeros(scan.shape, np.uint8), scan)
        assert path.is_file()

    def test_labels_and_scan_are_not_changed(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        before, affine = labels.copy(), scan.affine.copy()
        labels.flags.writeable = False
        self._write(path, labels, scan)
        assert np.array_equal(labels, before)
        assert np.array_equal(scan.affine, affine)

    def test_an_earlier_file_is_replaced(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        path.write_bytes(b"an earlier result")
        self._write(path, labels, scan)
        assert path.read_bytes() != b"an earlier result"

    def test_neither_the_folder_nor_the_file_of_the_scan_is_named(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        self._write(path, labels, scan)
        assert _SECRET.encode() not in path.read_bytes()

    def test_labels_of_another_shape_are_refused(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        with pytest.raises(MedsegError) as raised:
            self._write(path, labels[:-1], scan)
        assert _SECRET not in raised.value.message
        assert not list(path.parent.iterdir())

    def test_what_cannot_be_written_is_an_error_that_leaves_nothing(
        self, path: Path, labels: Array, scan: Volume
    ) -> None:
        # A folder that is not empty cannot be replaced.
        (path / "inside").mkdir(parents=True)
        with pytest.raises(OutputError) as raised:
            self._write(path, labels, scan)
        assert str(path.parent) not in raised.value.message
        left = [file.name for file in path.parent.iterdir()]
        assert left == [path.name], (
            f"names that begin with {PART} are of files that are not whole"
        )

    def _write(self, path: Path, labels: Array, scan: Volume) -> None:
        self.result_format.write(path, labels, scan, self.spec)
