"""What a result is saved as, and what is seen of it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support.bundles import made_spec

from medseg import Label, LabelSet, OutputError, Segmentation, Volume
from medseg.io import read_labels
from medseg.quality.estimates import LabelQuality, Quality

LIVER = LabelSet([Label(1, "liver", 1, (255, 0, 0))])


def a_result(shape: tuple[int, int, int] = (6, 5, 4), **facts) -> Segmentation:
    scan = Volume.from_numpy(np.ones(shape), spacing=(1.0, 2.0, 3.0))
    labels = np.zeros(shape, np.uint8)
    labels[2, 3] = 1
    return Segmentation(labels, LIVER, {"liver": 24.0}, grid=scan.grid, **facts)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.nii.gz", None),
        ("a.nii", None),
        ("a.nrrd", None),
        ("a.mha", None),
        ("a.NII.GZ", None),
        ("a.nii.gz", "nifti"),
        ("a.nrrd", "nrrd"),
        ("a.mha", "mha"),
    ],
)
def test_each_format_goes_by_its_ending_or_name(
    name: str, kind: str | None, tmp_path: Path
) -> None:
    result = a_result()
    result.save(tmp_path / name, format=kind)
    saved = read_labels(tmp_path / name)
    assert np.array_equal(saved.array[0], result.labels)
    assert result.grid is not None
    assert saved.on_same_grid(result.grid)


def test_a_picture_is_saved_as_one(tmp_path: Path) -> None:
    result = a_result((6, 5, 1))
    result.save(str(tmp_path / "a.png"))
    saved = read_labels(tmp_path / "a.png")
    assert np.array_equal(saved.array[0], result.labels)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.dcm", None, "rtstruct"),
        ("a.seg.dcm", None, "not a DICOM series"),
        ("a.bin", "dicom-seg", "not a DICOM series"),
        ("a.dcm", "nifti", r"end in \.nii\.gz"),
        ("a.nii.gz", "spam", "choose from nifti, nrrd, mha"),
        (
            "a.bin",
            None,
            r"label maps are written as .*\.seg\.dcm, \.rtstruct\.dcm",
        ),
    ],
)
def test_what_cannot_be_saved_so_is_refused(
    name: str, kind: str | None, message: str, tmp_path: Path
) -> None:
    result = a_result(spec=made_spec())
    with pytest.raises(OutputError, match=message):
        result.save(tmp_path / name, format=kind)
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_an_unknown_bundle_is_no_dicom(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"spec=bundle\.spec"):
        a_result().save(tmp_path / "a.seg.dcm")


def test_a_result_is_shown_in_short() -> None:
    assert repr(a_result()) == "Segmentation(6×5×4; liver 24.0 ml)"
    quality = Quality(
        0.934, labels={"liver": LabelQuality(0.934)}, is_calibrated=True
    )
    seen = repr(a_result(quality=quality, warnings=("odd",)))
    assert "expected Dice 0.93" in seen
    assert "1 warning(s)" in seen
    assert "not calibrated" in repr(a_result(quality=Quality(0.9)))
    nothing = Segmentation(np.zeros((2, 2, 2), np.uint8), LIVER, {"liver": 0.0})
    assert "nothing found" in repr(nothing)


def test_names_are_inert_in_notebooks() -> None:
    evil = LabelSet([Label(1, "<script>alert(1)</script>", 1, (255, 0, 0))])
    labels = np.ones((2, 2, 2), np.uint8)
    shown = Segmentation(labels, evil, {evil[0].name: 8.0})._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_results_go_to_other_libraries() -> None:
    result = a_result()
    assert isinstance(result.to_nibabel(), nib.Nifti1Image)
    assert isinstance(result.to_sitk(), sitk.Image)
