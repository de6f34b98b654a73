"""Labels → the coded concepts DICOM describes structures with (SNOMED CT and others)."""

from __future__ import annotations

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg.io.dicom.references import make_label_text
from medseg.labels import Label

# The concepts themselves, without the words of the dictionary, which differ between editions.
_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")


def get_property_type(label: Label) -> Code:
    """Return what a label shows; without a code of its own, an anatomical structure."""
    if label.code is None:
        return _ANATOMY
    scheme, value = label.code.split(":", 1)
    return Code(value, scheme, make_label_text(label))


def get_property_category(label: Label) -> Code:
    """Return whether a label shows anatomy or something abnormal (DICOM's CID 7150)."""
    return _ABNORMAL if is_lesion(label) else _ANATOMY


def is_lesion(label: Label) -> bool:
    """Tell whether a label's code is one of DICOM's lesions (CID 7159)."""
    if label.code is None:
        return False
    lesions = codes.cid7159
    normal = (codes.cid7159.Normal, codes.cid7159.Background)
    code = get_property_type(label)
    return any(code == getattr(lesions, name) for name in lesions.dir()) and code not in normal
