"""Labels → the coded concepts DICOM describes structures with (SNOMED CT and others)."""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg.dicom_labels.references import make_label_text
from medseg.labels import Label

# Written out, not taken from pydicom's dictionary, whose code meanings differ between editions.
_ANATOMICAL = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")


def get_property_type(label: Label) -> Code:
    """Return the concept that a label shows; an anatomical structure if it has no code."""
    if label.code is None:
        return _ANATOMICAL
    scheme, value = label.code.split(":", maxsplit=1)
    meaning = make_label_text(label)
    return Code(value, scheme, meaning)


def get_property_category(label: Label) -> Code:
    """Return whether a label shows anatomy or something abnormal (DICOM's CID 7150)."""
    if is_lesion(label):
        return _ABNORMAL
    return _ANATOMICAL


def is_lesion(label: Label) -> bool:
    """Tell whether a label's code is one of DICOM's lesions (CID 7159)."""
    if label.code is None:
        return False
    code = get_property_type(label)
    lesions = codes.cid7159
    if code in (lesions.Normal, lesions.Background):
        return False
    names = lesions.dir()
    return any(code == getattr(lesions, name) for name in names)
