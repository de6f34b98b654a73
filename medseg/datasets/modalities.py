"""DICOM's codes of modalities, and what else people write for them."""

from __future__ import annotations

KNOWN_MODALITIES = {
    "CT",
    "MR",
    "PT",
    "NM",
    "US",
    "XA",
    "MG",
    "CR",
    "DX",
    "RF",
    "OPT",
    "SM",
    "ES",
    "IO",
}
"""DICOM's codes of modalities that scans of patients have."""

_SYNONYMS = {"MRI": "MR", "PET": "PT", "CBCT": "CT"}


def normalize_modality(modality: str) -> str:
    """Return DICOM's code of a modality: ``MR`` of ``mri``."""
    upper = modality.strip().upper()
    return _SYNONYMS.get(upper, upper)
