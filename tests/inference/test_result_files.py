"""Result formats keep their contract, and are chosen so that no two write to one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from support import dicom
from support.bundles import made_spec

from medseg.errors import MedsegError, ScanError
from medseg.inference import result_files
from medseg.inference.result_files import (
    RESULT_FORMATS,
    ResultFormat,
    check_result_format,
    choose_formats,
    find_missing_formats,
)
from medseg.io import read_image
from medseg.testing.result_formats import ResultFormatContract
from medseg.volume import Array, Volume

PICTURES = {
    "preprocessing": {"input": "picture"},
    "network": {"dims": 2},
    "training": {"patch": [16, 16]},
}


class TestNifti(ResultFormatContract):
    result_format = RESULT_FORMATS.get("nifti")

    def read_labels(self, path: Path) -> Array:
        return np.asarray(nib.load(path).dataobj)


class TestNrrd(ResultFormatContract):
    result_format = RESULT_FORMATS.get("nrrd")

    def read_labels(self, path: Path) -> Array:
        return sitk.GetArrayFromImage(sitk.ReadImage(path)).T


class TestMha(TestNrrd):
    result_format = RESULT_FORMATS.get("mha")


class TestPng(ResultFormatContract):
    result_format = RESULT_FORMATS.get("png")
    shape = (12, 10, 1)

    def make_scan(self, folder: Path) -> Volume:
        return Volume(
            np.zeros((1, *self.shape), np.float32),
            np.eye(4),
            source="SECRET.png",
        )

    def read_labels(self, path: Path) -> Array:
        return np.asarray(Image.open(path)).T[:, :, None]


class FromSeries(ResultFormatContract):
    def make_scan(self, folder: Path) -> Volume:
        return read_image(
            dicom.save(
                folder / "series", dicom.series(dicom.voxels(self.shape))
            )
        )

    def spoil_source(self, scan: Volume) -> Volume:
        slices = replace(scan.header, frame_of_reference="")
        return replace(scan, header=slices)


class TestDicomSeg(FromSeries):
    result_format = RESULT_FORMATS.get("dicom-seg")


class TestRtstruct(FromSeries):
    result_format = RESULT_FORMATS.get("rtstruct")


def test_pictures_become_png_and_volumes_nifti_unless_asked() -> None:
    assert list(choose_formats([], made_spec())) == ["nifti"]
    assert list(choose_formats([], made_spec(**PICTURES))) == ["png"]
    assert list(choose_formats(["nifti"], made_spec(**PICTURES))) == ["nifti"]


def test_a_format_asked_for_twice_is_written_once() -> None:
    names = ["rtstruct", "nifti", "rtstruct"]
    assert list(choose_formats(names, made_spec())) == ["rtstruct", "nifti"]


def test_two_formats_never_share_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = ResultFormat(".gz", RESULT_FORMATS.get("nifti").write)
    monkeypatch.setitem(RESULT_FORMATS._shipped, "other", other)
    for names in (["other", "nifti"], ["nifti", "other"]):
        with pytest.raises(MedsegError, match="files of the same name"):
            choose_formats(names, made_spec())


@pytest.mark.parametrize(
    "ending", ["nii.gz", ".", "./x", ".a/b", "", ".a b", "..", "/.x"]
)
def test_an_ending_that_leads_elsewhere_is_refused(ending: str) -> None:
    with pytest.raises(ValueError, match="not an ending"):
        check_result_format(
            ResultFormat(ending, RESULT_FORMATS.get("nifti").write)
        )


def test_what_is_no_result_format_is_refused() -> None:
    with pytest.raises(TypeError, match="a ResultFormat is needed, got str"):
        check_result_format("nifti")


def test_only_dicom_scans_become_dicom(tmp_path: Path) -> None:
    both = choose_formats(["nifti", "rtstruct"], made_spec())
    volume = Volume(np.zeros((1, 4, 4, 4), np.float32), np.eye(4))
    assert list(find_missing_formats(volume, both)) == ["rtstruct"]
    with pytest.raises(ScanError, match="--format rtstruct"):
        find_missing_formats(volume, choose_formats(["rtstruct"], made_spec()))
    assert not find_missing_formats(
        volume, choose_formats(["nifti"], made_spec())
    )
    series = read_image(dicom.save(tmp_path, dicom.series()))
    assert not find_missing_formats(series, both)


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("FrameOfReferenceUID", "Frame of Reference UID"),
        ("StudyInstanceUID", "Study Instance UID"),
        ("SOPInstanceUID", "SOP Instance UID"),
    ],
)
def test_what_dicom_results_must_refer_to_is_looked_for_beforehand(
    tmp_path: Path, lost: str, named: str
) -> None:
    series = read_image(dicom.save(tmp_path, dicom.series(**{lost: None})))
    formats = choose_formats(["nifti", "dicom-seg", "rtstruct"], made_spec())
    missing = find_missing_formats(series, formats)
    assert list(missing) == ["dicom-seg", "rtstruct"]
    assert all(named in why for why in missing.values())


def test_slices_too_small_for_a_seg_are_found_beforehand(
    tmp_path: Path,
) -> None:
    pixels = dicom.voxels((2, 3, 4))
    series = read_image(dicom.save(tmp_path, dicom.series(pixels)))
    formats = choose_formats(["dicom-seg", "rtstruct"], made_spec())
    assert list(find_missing_formats(series, formats)) == ["dicom-seg"]


def test_error_maps_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    file = result_files.get_error_map_path(tmp_path, "a", made_spec())
    assert file == tmp_path / "error_maps" / "a.nii.gz"
    spec: Any = made_spec(**PICTURES)
    assert result_files.get_error_map_path(tmp_path, "a", spec).name == "a.png"
