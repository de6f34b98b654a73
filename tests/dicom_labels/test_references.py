"""What DICOM results repeat of their scan: patient, study, slices."""

from __future__ import annotations

import shutil
import subprocess
import warnings

import pydicom
import pytest
from support.studies import (
    labels_in,
    scan,
    write_rt,
    write_seg,
)

from medseg.errors import OutputError
from medseg.io import read_image, write_labels
from medseg.labels import Label, LabelSet


def test_the_patient_is_the_scans_whatever_its_script(tmp_path):
    like = scan(
        tmp_path,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        PatientID="Nr. 47/11",
        StudyDescription="Kopf",
    )
    path = write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    seg, source = pydicom.dcmread(path), pydicom.dcmread(like.header.files[0])
    assert str(seg.PatientName) == "Yamada^Tarou=山田^太郎"
    for keyword in (
        "PatientID",
        "StudyInstanceUID",
        "StudyDescription",
    ):
        assert seg[keyword].value == source[keyword].value
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID


@pytest.mark.parametrize("write", [write_seg, write_rt])
def test_what_breaks_dicoms_rules_is_made_to_fit_without_a_word(
    tmp_path, write, caplog
):
    like = scan(tmp_path, **BROKEN)
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = write(tmp_path / "labels.dcm", labels_in(like.shape), like)
    assert not any("1970" in str(warning.message) for warning in caught)
    assert "1970" not in caplog.text
    written = pydicom.dcmread(path)
    assert written.StudyID == "a number of more"
    assert written.PatientID == ""
    assert written.PatientBirthDate == ""
    assert written.PatientSex == "F"
    assert written.StudyTime == "101112"
    assert "PatientWeight" not in written


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_seg, write_rt])
def test_dciodvfy_finds_no_error_where_the_scan_breaks_rules(tmp_path, write):
    verify = shutil.which("dciodvfy")
    if verify is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    like = scan(tmp_path, **BROKEN)
    path = write(tmp_path / "labels.dcm", labels_in(like.shape), like)
    found = subprocess.run(
        [verify, path], capture_output=True, text=True, check=False
    ).stderr
    assert not [line for line in found.splitlines() if line.startswith("Error")]


BROKEN = {
    "StudyID": "a number of more than sixteen characters",
    "PatientID": "n" * 65,
    "PatientName": "Name^" * 9 + "x" * 70,
    "PatientBirthDate": "1970?",
    "PatientSex": "f",
    "PatientAge": "45 years",
    "PatientWeight": "inf",
    "PatientSize": "1.7999999999999998",
    "StudyDate": "2020.02.30",
    "StudyTime": "10:11:12",
    "AccessionNumber": "4711-4711-4711-4711",
    "EthnicGroup": "e" * 20,
    "StudyDescription": "one\\two",
    "PatientIdentityRemoved": "perhaps",
    "TimezoneOffsetFromUTC": "CET",
}


def test_what_the_scan_lacks_is_there_but_empty(tmp_path):
    like = scan(
        tmp_path, PatientName=None, PatientID=None, PatientBirthDate=None
    )
    seg = pydicom.dcmread(
        write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    )
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
    ):
        assert keyword in seg
        assert not seg[keyword].value


def test_names_that_dicom_cannot_hold_are_made_to_fit(tmp_path):
    like = scan(tmp_path)
    names = ["Größe\\肝臓\n", "x" * 200, " "]
    label_set = LabelSet(
        [Label(n, name, n, (1, 2, 3)) for n, name in enumerate(names, start=1)]
    )
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, label_set
    )
    shown = [
        segment.SegmentLabel
        for segment in pydicom.dcmread(path).SegmentSequence
    ]
    assert shown == ["Größe/肝臓", "x" * 64, "label 3"]


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("FrameOfReferenceUID", "Frame of Reference"),
        ("StudyInstanceUID", "Study Instance"),
    ],
)
def test_a_scan_without_a_needed_uid_is_refused(tmp_path, missing, named):
    like = scan(tmp_path, **{missing: None})
    with pytest.raises(OutputError, match=f"no valid {named} UID"):
        write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    assert not (tmp_path / "seg.dcm").exists()


def test_other_scans_labels_and_files_are_refused(tmp_path):
    like = scan(tmp_path)
    labels = labels_in(like.shape)
    out = tmp_path / "seg.dcm"
    write_labels(tmp_path / "a.nii.gz", labels, like)
    with pytest.raises(OutputError, match="the scan is not DICOM"):
        write_seg(out, labels, read_image(tmp_path / "a.nii.gz"))
    with pytest.raises(OutputError, match="do not fit"):
        write_seg(out, labels[1:], like)
    with pytest.raises(OutputError, match="index 4, but only 1 to 3"):
        write_seg(out, labels + 1, like)
    with pytest.raises(OutputError, match="integers"):
        write_seg(out, labels.astype(float), like)
    first, second, *_ = like.header.files
    shutil.copy(first, second)
    with pytest.raises(OutputError, match=r"was changed"):
        write_seg(out, labels, like)
    first.unlink()
    with pytest.raises(OutputError, match=r"gone"):
        write_seg(out, labels, like)
    assert not out.exists()


def test_a_lossy_scan_stays_known_as_lossy(tmp_path):
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "7.5"}
    like = scan(tmp_path, LossyImageCompressionMethod="ISO_10918_1", **lossy)
    seg = pydicom.dcmread(
        write_seg(tmp_path / "seg.dcm", labels_in(like.shape), like)
    )
    assert seg.LossyImageCompression == "01"
    assert seg.LossyImageCompressionRatio == 7.5
