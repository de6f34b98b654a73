"""The contract of an image format (``medseg.io.Format``), as a test suite to subclass.

A package that adds a format tests it like this::

    from medseg.testing.image_formats import ImageFormatContract

    class TestMyFormat(ImageFormatContract):
        format = MY_FORMAT
        suffix = ".xyz"

        def write_volume(self, path, array, affine):
            my_library.save(path, array, affine)
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from medseg.errors import OutputError, ScanError
from medseg.io.formats import Format, check_format
from medseg.io.voxels import as_labels
from medseg.volume import Affine, Volume

_SECRET = "SECRET-PATIENT"
"""Stands in the names of the file and of its folder; nothing that is recorded may hold it."""


class ImageFormatContract(ABC):
    """What every image format promises; subclass it as ``Test…`` in a test module.

    Attributes:
        format: The format under test.
        suffix: Of the files that ``write_volume`` writes; empty if they need none.
        affine: 4×4, voxel index → mm, RAS+, of the volumes written: oblique, with a flipped axis
            and an origin whose coordinates differ, so that mixed-up axes and signs are noticed.
            Pictures have the identity instead.
        shape: Of the volumes written; the sizes differ. Pictures have one slice.
        secrets: Texts that ``write_volume`` puts into the header and that no error may quote.
        reads_series: Whether several files may be one volume. Only DICOM's are.
    """

    format: ClassVar[Format]
    suffix: ClassVar[str]
    affine: ClassVar[Affine] = np.array(
        [
            [0.64, 1.2, 0.0, -31.5],
            [-0.48, 1.6, 0.0, 12.25],
            [0.0, 0.0, -3.0, 40.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    shape: ClassVar[tuple[int, int, int]] = (6, 5, 4)
    secrets: ClassVar[tuple[str, ...]] = ()
    reads_series: ClassVar[bool] = False

    @abstractmethod
    def write_volume(
        self, path: Path, array: npt.NDArray[Any], affine: Affine
    ) -> None:
        """Write a volume with another library than the reader under test.

        Args:
            path: Ends in ``suffix``.
            array: int16 or uint8, shape ``(i, j, k)``; uint8, one slice, for pictures.
            affine: 4×4, voxel index → mm, RAS+.
        """

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return where the volume is written: its name and its folder name a patient."""
        folder = tmp_path / _SECRET
        folder.mkdir()
        return folder / f"{_SECRET}{self.suffix}"

    @pytest.fixture
    def array(self) -> npt.NDArray[Any]:
        """Return voxels that are all different, int16; uint8 for pictures."""
        i, j, k = self.shape
        if self.format.is_picture:
            return np.arange(i * j, dtype=np.uint8).reshape(i, j, 1)
        return np.arange(i * j * k, dtype=np.int16).reshape(i, j, k) * 7 - 100

    @pytest.fixture
    def labels(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return label indices 0 to 4 on the grid of ``array``."""
        indices = np.arange(array.size) * 3 % 5
        return indices.astype(np.uint8).reshape(array.shape)

    @pytest.fixture
    def image(self, path: Path, array: npt.NDArray[Any]) -> Path:
        """Return a file that holds ``array``."""
        self.write_volume(path, array, self.expected_affine)
        return path

    @property
    def expected_affine(self) -> Affine:
        """The affine that a volume is written with and that its reader must return."""
        return np.eye(4) if self.format.is_picture else self.affine

    def test_format_is_well_formed(self) -> None:
        check_format(self.format)
        assert not self.suffix or self.suffix.lower() in self.format.suffixes

    def test_image_has_the_voxels_and_the_affine_that_were_written(
        self, image: Path, array: npt.NDArray[Any]
    ) -> None:
        volume = self.format.read([image])
        assert volume.array.dtype == np.float32
        assert np.array_equal(volume.array, array[None])
        assert np.allclose(volume.affine, self.expected_affine, atol=1e-5)
        assert volume.warnings == ()

    def test_label_map_keeps_its_integers(
        self, path: Path, labels: npt.NDArray[np.uint8]
    ) -> None:
        self.write_volume(path, labels, self.expected_affine)
        volume = self.format.read_labels([path])
        assert volume.array.dtype == np.uint8
        assert np.array_equal(volume.array, labels[None])
        assert np.allclose(volume.affine, self.expected_affine, atol=1e-5)

    def test_reading_twice_gives_the_same(self, image: Path) -> None:
        first, second = self.format.read([image]), self.format.read([image])
        assert np.array_equal(first.array, second.array)
        assert np.array_equal(first.affine, second.affine)

    def test_several_files_are_refused(self, image: Path) -> None:
        if self.reads_series:
            pytest.skip("this format spreads a volume over files")
        for read in (self.format.read, self.format.read_labels):
            with pytest.raises(ScanError):
                read([image, image])

    @pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.97])
    def test_truncated_file_is_refused(self, image: Path, share: float) -> None:
        content = image.read_bytes()
        image.write_bytes(content[: int(len(content) * share)])
        self._assert_refused(image)

    def test_random_bytes_are_refused(self, image: Path) -> None:
        random = np.random.default_rng(0)
        image.write_bytes(random.integers(0, 256, 3000, np.uint8).tobytes())
        self._assert_refused(image)

    @pytest.mark.parametrize("seed", range(15))
    def test_damaged_header_raises_no_foreign_error(
        self, image: Path, seed: int
    ) -> None:
        content = bytearray(image.read_bytes())
        random = np.random.default_rng(seed)
        for position in random.integers(0, min(len(content), 600), 3):
            content[position] = random.integers(0, 256)
        image.write_bytes(content)
        for read in (self.format.read, self.format.read_labels):
            with contextlib.suppress(ScanError):
                assert np.isfinite(read([image]).array).all()

    def test_volume_is_called_by_its_file_and_names_nobody_else(
        self, image: Path
    ) -> None:
        volume = self.format.read([image])
        assert volume.source == image.name
        for secret in self.secrets:
            assert secret not in repr(volume)

    @pytest.mark.parametrize("most", [3, 300])
    def test_written_labels_come_back_on_the_grid(
        self, tmp_path: Path, image: Path, most: int
    ) -> None:
        like = self.format.read([image])
        labels = np.arange(like.array[0].size).reshape(like.shape) % (most + 1)
        labels.flat[0] = most  # few voxels may hold fewer values
        for suffix in self._written_suffixes():
            written = self._write_labels(
                tmp_path / f"labels{suffix}", labels, like
            )
            back = self.format.read_labels([written])
            assert back.array.dtype == (np.uint8 if most == 3 else np.uint16)
            assert np.array_equal(back.array[0], labels)
            assert np.allclose(back.affine, like.affine, atol=1e-4)

    def test_equal_labels_are_equal_bytes_and_name_nobody(
        self, tmp_path: Path, image: Path
    ) -> None:
        like = self.format.read([image])
        labels = np.arange(like.array[0].size).reshape(like.shape) % 3
        for suffix in self._written_suffixes():
            first = self._write_labels(
                tmp_path / f"first{suffix}", labels, like
            )
            second = self._write_labels(
                tmp_path / f"second{suffix}", labels, like
            )
            content = first.read_bytes()
            assert content == second.read_bytes()
            for secret in (*self.secrets, _SECRET):
                assert secret.encode() not in content

    def test_labels_of_32_bits_are_refused_or_kept(
        self, tmp_path: Path, image: Path
    ) -> None:
        like = self.format.read([image])
        labels = np.zeros(like.shape, np.uint32)
        labels.flat[-1] = np.iinfo(np.uint32).max
        for suffix in self._written_suffixes():
            path = tmp_path / f"large{suffix}"
            with contextlib.suppress(OutputError):
                self._write_labels(path, labels, like)
                assert np.array_equal(
                    self.format.read_labels([path]).array[0], labels
                )

    def _assert_refused(self, path: Path) -> None:
        """Make sure that a file is refused, and by an error whose message names nobody."""
        for read in (self.format.read, self.format.read_labels):
            with pytest.raises(ScanError) as caught:
                read([path])
            error = caught.value
            assert path.name in str(error), (
                "the error does not say which file it is about"
            )
            for secret in (*self.secrets, _SECRET):
                assert secret not in error.message

    def _written_suffixes(self) -> tuple[str, ...]:
        if self.format.write_labels is None:
            pytest.skip("this format writes no label maps")
        return self.format.label_suffixes

    def _write_labels(
        self, path: Path, labels: npt.NDArray[Any], like: Volume
    ) -> Path:
        assert self.format.write_labels is not None
        self.format.write_labels(path, as_labels(labels, path), like)
        return path
