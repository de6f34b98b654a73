"""The contract suite of image formats notices formats that break the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import ScanError
from medseg.io.formats import Format
from medseg.io.nifti import NIFTI
from medseg.testing.dataset_layouts import DatasetLayoutContract
from medseg.testing.image_formats import ImageFormatContract
from medseg.volume import Volume

Read = Callable[[Any], Volume]


def suite(**changes: Any) -> ImageFormatContract:
    """The contract suite of NIfTI with some of its functions replaced."""

    class Suite(ImageFormatContract):
        format = replace(NIFTI, **changes)
        suffix = ".nii"

        def write_volume(
            self, path: Path, array: np.ndarray, affine: np.ndarray
        ) -> None:
            nib.save(nib.Nifti1Image(array, affine), path)

    return Suite()


def written(
    contract: ImageFormatContract, folder: Path
) -> tuple[Path, np.ndarray]:
    """A file as the suite's fixtures make it: its name and its folder name a patient."""
    path = folder / "SECRET-PATIENT"
    path.mkdir()
    path /= f"SECRET-PATIENT{contract.suffix}"
    i, j, k = contract.shape
    array = (np.arange(i * j * k).reshape(i, j, k) * 7 - 100).astype(np.int16)
    contract.write_volume(path, array, contract.expected_affine)
    return path, array


def flip(files: Any) -> Volume:
    volume = NIFTI.read(files)
    return volume.with_array(volume.array[:, ::-1])


def lps(files: Any) -> Volume:
    volume = NIFTI.read(files)
    return Volume(
        volume.array, np.diag([-1.0, -1, 1, 1]) @ volume.affine, volume.source
    )


def double(files: Any) -> Volume:
    volume = NIFTI.read(files)
    return volume.with_array(volume.array.astype(np.float64))


@pytest.mark.parametrize("read", [flip, lps, double])
def test_other_voxels_places_and_types_are_noticed(
    tmp_path: Path, read: Read
) -> None:
    contract = suite(read=read)
    image, array = written(contract, tmp_path)
    with pytest.raises(AssertionError):
        contract.test_image_has_the_voxels_and_the_affine_that_were_written(
            image, array
        )


def zeros_where_broken(files: Any) -> Volume:
    try:
        return NIFTI.read(files)
    except ScanError:
        return Volume(np.zeros((1, 6, 5, 4), np.float32), np.eye(4))


def foreign_error(files: Any) -> Volume:
    try:
        return NIFTI.read(files)
    except ScanError as error:
        raise ValueError(error.message) from error


def names_the_file(files: Any) -> Volume:
    try:
        return NIFTI.read(files)
    except ScanError as error:
        raise ScanError(str(error), source=error.source) from error


@pytest.mark.parametrize(
    "read", [zeros_where_broken, foreign_error, names_the_file]
)
def test_broken_files_that_are_read_or_named_are_noticed(
    tmp_path: Path, read: Read
) -> None:
    contract = suite(read=read)
    image, _ = written(contract, tmp_path)
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        contract.test_truncated_file_is_refused(image, 0.7)


def test_label_maps_that_name_the_patient_or_differ_are_noticed(
    tmp_path: Path,
) -> None:
    def write_named(path: Path, labels: np.ndarray, like: Volume) -> None:
        NIFTI.write_labels(path, labels, like)
        with path.open("ab") as file:
            file.write(like.source.encode())

    def write_dated(path: Path, labels: np.ndarray, like: Volume) -> None:
        NIFTI.write_labels(path, labels, like)
        with path.open("ab") as file:
            file.write(path.name.encode())

    for write in (write_named, write_dated):
        contract = suite(write_labels=write, label_suffixes=(".nii",))
        folder = tmp_path / write.__name__
        folder.mkdir()
        image, _ = written(contract, folder)
        with pytest.raises(AssertionError):
            contract.test_equal_labels_are_equal_bytes_and_name_nobody(
                tmp_path, image
            )


def test_wrong_suffixes_are_noticed() -> None:
    with pytest.raises(ValueError, match="begins with a dot"):
        suite(suffixes=("nii",), label_suffixes=()).test_format_is_well_formed()
    contract = suite()
    assert isinstance(contract.format, Format)
    contract.test_format_is_well_formed()


@pytest.mark.parametrize(
    ("contract", "missing"),
    [
        (ImageFormatContract, "write_volume"),
        (DatasetLayoutContract, "write_dataset"),
    ],
)
def test_a_suite_says_what_a_package_has_not_written(
    contract: type[Any], missing: str
) -> None:
    class Suite(contract):  # type: ignore[misc]
        pass

    with pytest.raises(TypeError, match=missing):
        Suite()
