"""Values of a scan's header are as DICOM demands when they are repeated, or left out."""

from __future__ import annotations

import pytest
from pydicom import config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.dicom_labels.value_rules import fit_element


def element(keyword, vr, value):
    return DataElement(
        tag_for_keyword(keyword), vr, value, validation_mode=config.IGNORE
    )


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientName", "PN", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("PatientName", "PN", "Doe^Jane^^Dr. "),
        ("PatientID", "LO", "Nr. 47/11"),
        ("PatientID", "LO", ""),
        ("OtherPatientIDs", "LO", ["A", "", "B"]),
        ("StudyDate", "DA", "20240229"),
        ("StudyTime", "TM", "101112.123456"),
        ("StudyTime", "TM", "10"),
        ("PatientAge", "AS", "045Y"),
        ("PatientWeight", "DS", "70.50"),
        ("PatientSex", "CS", "O"),
        ("PatientComments", "LT", "two\r\nlines \\ and a backslash"),
        ("TimezoneOffsetFromUTC", "SH", "+0530"),
        ("LossyImageCompressionRatio", "DS", ["10", "2.5"]),
    ],
)
def test_what_is_sound_is_left_as_it_is(keyword, vr, value):
    sound = element(keyword, vr, value)
    assert fit_element(sound) is sound


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "expected"),
    [
        ("StudyID", "SH", "0123456789ABCDEFG", "0123456789ABCDEF"),
        ("StudyID", "LO", "12", "12"),
        ("StudyID", "SH", ["A", "B"], "A/B"),
        ("StudyDescription", "LO", "a\tb\x07" + "c" * 80, "a b " + "c" * 60),
        ("PatientName", "PN", "x" * 70 + "=y", "x" * 64 + "=y"),
        ("PatientName", "PN", "a^b^c^d^e^f=g=h=i", "a^b^c^d^e=g=h"),
        ("StudyDate", "DA", "2024.02.29", "20240229"),
        ("StudyTime", "TM", "10:11:12", "101112"),
        ("PatientAge", "AS", "45y", "045Y"),
        ("PatientSex", "CS", "m", "M"),
        ("PatientSize", "DS", "1.23456789012345678", "1.23456789012346"),
    ],
)
def test_what_is_certain_is_put_into_form(keyword, vr, value, expected):
    fitted = fit_element(element(keyword, vr, value))
    assert str(fitted.value) == expected
    # Once in form, it stays.
    assert fit_element(fitted) is fitted


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("PatientID", "LO", "n" * 65),
        ("PatientID", "LO", ["A", "B"]),
        ("OtherPatientIDs", "LO", ["A", "n" * 65]),
        ("AccessionNumber", "SH", "0123456789ABCDEFG"),
        ("StudyDate", "DA", "20240230"),
        ("StudyDate", "DA", "2024023"),
        ("StudyDate", "DA", "20240101-20240102"),
        ("StudyTime", "TM", "256000"),
        ("PatientAge", "AS", "45 years"),
        ("PatientSex", "CS", "Male"),
        ("PatientIdentityRemoved", "CS", "perhaps"),
        ("LossyImageCompressionMethod", "CS", "JPEG/2000"),
        ("PatientWeight", "DS", "inf"),
        ("TimezoneOffsetFromUTC", "SH", "CET"),
    ],
)
def test_what_is_not_certain_is_left_out(keyword, vr, value):
    assert fit_element(element(keyword, vr, value)) is None


def test_a_sequence_is_whole_or_left_out():
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    sequence = element(
        "DeidentificationMethodCodeSequence", "SQ", Sequence([code])
    )
    assert fit_element(sequence) is sequence
    code.add(element("CodeMeaning", "LO", "m" * 65))
    assert fit_element(sequence) is None
