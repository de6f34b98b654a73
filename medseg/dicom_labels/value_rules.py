"""Values copied from a scan's header, brought to the form that DICOM demands (PS3.5 6.2).

Scanners and archives write study numbers that are too long, dates of old editions, patients'
sexes in words. What is read by people is cut to its length; what identifies or counts is put into
form where its meaning is certain and left out where it is not: half a patient's number would be
another patient's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import format_number_as_ds

from medseg.io.dicom.frames import parse_uid

_LENGTHS = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
"""Most characters of texts, by value representation."""
_IDENTIFIERS = frozenset(
    {
        "PatientID",
        "IssuerOfPatientID",
        "OtherPatientIDs",
        "AccessionNumber",
        "ClinicalTrialProtocolID",
        "ClinicalTrialSiteID",
        "ClinicalTrialSubjectID",
        "ClinicalTrialSubjectReadingID",
        "ClinicalTrialTimePointID",
    }
)
"""Texts that are whole or nothing."""
_TERMS = {
    "PatientSex": ("M", "F", "O"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "LossyImageCompression": ("00", "01"),
}
"""The only values of some codes (CS)."""
_PATTERNS = {
    "CS": re.compile(r"[A-Z0-9 _]{1,16}"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
}
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_NUMBER_LENGTH = 16
_NAME_LENGTH = 64
_NAME_GROUPS = 3
_NAME_PARTS = 5
_FREE = "\r\n\f\t\\"
"""What texts of several lines may hold beside printable signs."""


def fit_element(element: DataElement) -> DataElement | None:
    """Return an element whose value is as DICOM demands: itself, if it is; ``None`` if nothing is.

    Args:
        element: In whatever form a file holds it. Private ones, and of value representations that
            patient and study have none of, are not judged.

    Raises:
        One of ``PYDICOM_ERRORS``: If its value cannot even be parsed.
    """
    if element.tag.is_private:
        return element
    vr = dictionary_VR(element.tag)
    if vr == "SQ":
        return _fit_items(element)
    if vr in _LENGTHS or vr in _FITS:
        return _fit_values(element, vr)
    return element


def _fit_values(element: DataElement, vr: str) -> DataElement | None:
    keyword = element.keyword
    values = [_to_text(value) for value in _list_values(element.value)]
    fitted = [_fit_value(keyword, vr, value) for value in values]
    has_one = dictionary_VM(element.tag) == "1"
    is_one_too_many = has_one and len(values) > 1
    if fitted == values and not is_one_too_many:
        return _retype(element, vr)
    if fitted.count("") > values.count(""):
        return None
    if not is_one_too_many:
        return DataElement(element.tag, vr, fitted)
    if vr not in _LENGTHS or keyword in _IDENTIFIERS:
        return None
    # A backslash that was meant as a sign stands between values.
    joined = _fit_value(keyword, vr, "/".join(values))
    return DataElement(element.tag, vr, joined)


def fit_characters(text: str, length: int, allowed: str = "") -> str:
    """Return text as DICOM can hold it: printable, no backslash, not too long.

    Args:
        text: The text.
        length: Most characters.
        allowed: Signs that may stand all the same.
    """
    signs = []
    for sign in text:
        if sign in allowed:
            signs.append(sign)
        elif sign == "\\":
            signs.append("/")
        else:
            signs.append(sign if sign.isprintable() else " ")
    return "".join(signs)[:length]


def _retype(element: DataElement, vr: str) -> DataElement:
    """Return an element with its standard value representation; files may state another."""
    if vr == element.VR:
        return element
    return DataElement(element.tag, vr, element.value)


def _list_values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, MultiValue | list):
        return list(value)
    return [value]


def _to_text(value: Any) -> str:
    return str(value).strip(" \0")


def _fit_value(keyword: str, vr: str, text: str) -> str:
    """Return one value as DICOM demands; empty if its meaning would not be certain."""
    if not text:
        return ""
    if keyword in _TERMS:
        term = text.upper()
        return term if term in _TERMS[keyword] else ""
    if keyword == "TimezoneOffsetFromUTC":
        return text if _OFFSET.fullmatch(text) else ""
    if vr in _LENGTHS:
        return _fit_text(keyword, vr, text)
    fit = _FITS[vr]
    return fit(text)


def _fit_text(keyword: str, vr: str, text: str) -> str:
    allowed = _FREE if vr in ("ST", "LT") else ""
    fitted = fit_characters(text, _LENGTHS[vr], allowed)
    if keyword in _IDENTIFIERS and fitted != text:
        return ""
    return fitted.strip()


def _fit_name(text: str) -> str:
    """Return a person's name: at most three groups, of five parts and 64 characters each."""
    groups = text.split("=")[:_NAME_GROUPS]
    fitted = []
    for group in groups:
        parts = group.split("^")[:_NAME_PARTS]
        shortened = fit_characters("^".join(parts), _NAME_LENGTH)
        fitted.append(shortened)
    return "=".join(fitted)


def _fit_date(text: str) -> str:
    digits = text.replace(".", "").replace("-", "").replace("/", "")
    try:
        date = datetime.strptime(digits, "%Y%m%d")  # noqa: DTZ007 (a day)
    except ValueError:
        return ""
    return date.strftime("%Y%m%d") if len(digits) == len("YYYYMMDD") else ""


def _fit_time(text: str) -> str:
    return _match("TM", text.replace(":", ""))


def _fit_age(text: str) -> str:
    padded = text.upper().zfill(len("000Y"))
    return _match("AS", padded)


def _fit_code(text: str) -> str:
    return _match("CS", text.upper())


def _match(vr: str, text: str) -> str:
    return text if _PATTERNS[vr].fullmatch(text) else ""


def _fit_number(text: str) -> str:
    number = float(text)
    if not math.isfinite(number):
        return ""
    if len(text) <= _NUMBER_LENGTH:
        return text
    return str(format_number_as_ds(number))


_FITS: dict[str, Callable[[str], str]] = {
    "PN": _fit_name,
    "DA": _fit_date,
    "TM": _fit_time,
    "AS": _fit_age,
    "CS": _fit_code,
    "DS": _fit_number,
    "UI": parse_uid,
}
"""What brings values into form, by value representation."""


def _fit_items(sequence: DataElement) -> DataElement | None:
    """Return a sequence if every element in it is as DICOM demands; half a code means nothing."""
    for item in sequence.value:
        for element in item:
            if fit_element(element) is not element:
                return None
    return sequence
