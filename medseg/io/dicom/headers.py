"""One DICOM file's header → its frames, or why it is no part of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import uid as uids
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from medseg.errors import ScanError
from medseg.io.dicom.fast_header import Elements, read_elements_fast
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    has_dicom_prefix,
    has_dicom_suffix,
    may_be_dicom,
    read_elements,
)
from medseg.io.dicom.frames import SPLIT_KEYWORDS, Frame, get_image_type, parse_uid, read_frames

_VOLUME_CLASSES = frozenset(
    {
        uids.CTImageStorage,
        uids.MRImageStorage,
        uids.PositronEmissionTomographyImageStorage,
        uids.EnhancedCTImageStorage,
        uids.EnhancedMRImageStorage,
        uids.EnhancedMRColorImageStorage,
        uids.EnhancedPETImageStorage,
        uids.LegacyConvertedEnhancedCTImageStorage,
        uids.LegacyConvertedEnhancedMRImageStorage,
        uids.LegacyConvertedEnhancedPETImageStorage,
        uids.XRay3DAngiographicImageStorage,
        uids.XRay3DCraniofacialImageStorage,
    }
)
HEADER_KEYWORDS = frozenset(
    (
        *("SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID"),
        *("StudyInstanceUID", "SeriesInstanceUID"),
        *("Modality", "SeriesDescription"),
        *("ImageType", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
        *("SamplesPerPixel", "PhotometricInterpretation", "ModalityLUTSequence"),
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
        *("RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence"),
        *("PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence"),
        *SPLIT_KEYWORDS,
    )
)
"""What a header is asked for."""
_LONGEST_DESCRIPTION = 64
_HEADLINE = ("PatientID", "StudyDate", "SeriesNumber", "SeriesDescription")


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What one DICOM file holds.

    Attributes:
        file: The file.
        series: Series Instance UID if valid, else empty.
        modality: ``CT``, ``MR``, …
        frames: Its slices; none if it is set aside or faulty.
        aside: Why it is no part of a volume, though nothing is wrong with it; or empty.
        fault: Why a volume that it belongs to cannot be read, without the file's name.
        torn: Whether it is truncated or damaged, so that its ``series`` may be missing or cut.
        study: Study Instance UID if valid, else empty.
        description: Series Description, in one line, or empty.
    """

    file: Path
    series: str
    modality: str
    frames: tuple[Frame, ...] = ()
    aside: str = ""
    fault: ScanError | None = None
    torn: bool = False
    study: str = ""
    description: str = ""


def read_header(path: Path) -> Header | None:
    """Read one file's header.

    Returns:
        ``None`` if the file is not DICOM. A file that is DICOM by its first bytes or its name,
        but broken, has a ``fault``; so has a file that may not be opened.
    """
    try:
        ds: Elements | FileDataset | None = read_elements_fast(path, HEADER_KEYWORDS)
        if ds is None:
            if not may_be_dicom(path):
                return _broken(path, "only its name is DICOM") if has_dicom_suffix(path) else None
            ds = read_elements(path, [*HEADER_KEYWORDS])
        if not _sop_class(ds):
            return _broken(path, "no SOP Class UID") if has_dicom_prefix(path) else None
    except ScanError as error:
        return Header(path, "", "", fault=error, torn=True)
    except OSError as error:
        return _broken(path, f"it cannot be opened: {error.strerror}")
    except PYDICOM_ERRORS as error:
        return _broken(path, type(error).__name__) if has_dicom_prefix(path) else None
    return _header(path, ds)


def read_scan_name(path: Path) -> str:
    """Return whom and what a file shows, as its header says: patient, study date, series.

    Returns:
        Text that names the patient; empty if the file cannot be read or says nothing.
    """
    try:
        ds = read_elements(path, _HEADLINE)
        said = (str(ds.get(keyword) or "").strip() for keyword in _HEADLINE)
        return "_".join(part for part in said if part)
    except (*PYDICOM_ERRORS, ScanError):
        return ""


def _broken(path: Path, why: str, series: str = "") -> Header:
    fault = ScanError(f"damaged or truncated DICOM ({why})")
    return Header(path, series, "", fault=fault, torn=True)


def _header(path: Path, ds: Elements | FileDataset) -> Header:
    try:
        series = parse_uid(ds.get("SeriesInstanceUID"))
        study = parse_uid(ds.get("StudyInstanceUID"))
        modality = str(ds.get("Modality") or "")[:16]
        description = " ".join(str(ds.get("SeriesDescription") or "").split())
        header = partial(
            Header,
            path,
            series,
            modality,
            study=study,
            description=description[:_LONGEST_DESCRIPTION],
        )
        if _ends_early(ds):
            return _broken(path, "it ends in its header", series)
        aside = _aside(ds)
        if aside:
            return header(aside=aside)
    except PYDICOM_ERRORS as error:
        return _broken(path, type(error).__name__)
    try:
        _refuse_unreadable(ds)
        return header(frames=tuple(read_frames(path, ds)))
    except ScanError as error:
        fault = error
    except PYDICOM_ERRORS as error:
        fault = ScanError(f"a header with broken values ({type(error).__name__})")
    return header(fault=fault)


def _sop_class(ds: Elements | FileDataset) -> str:
    found = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
    return str(found or "")


def _ends_early(ds: Elements | FileDataset) -> bool:
    # Elements lie in the order of their tags, and images cannot be without rows.
    if "Rows" in ds or "DirectoryRecordSequence" in ds:
        return False
    return "SeriesInstanceUID" not in ds or _sop_class(ds) in _VOLUME_CLASSES


def _aside(ds: Elements | FileDataset) -> str:
    sop_class = _sop_class(ds)
    if sop_class not in _VOLUME_CLASSES or "DirectoryRecordSequence" in ds:
        name = UID(sop_class).name if UID(sop_class).is_valid else "unknown"
        return f"'{name}' is not a volume image"
    if "LOCALIZER" in get_image_type(ds):
        return "a localizer"
    return ""


def _refuse_unreadable(ds: Elements | FileDataset) -> None:
    photometric = str(ds.get("PhotometricInterpretation") or "")
    if int(ds.get("SamplesPerPixel") or 1) != 1 or photometric not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise ScanError(f"colours ({photometric[:20] or 'unknown'}); grey scans are segmented")
    if {"MOSAIC", "VFRAME"} & set(get_image_type(ds)):
        raise ScanError("a mosaic of many slices in one picture; convert it with dcm2niix first")
    if ds.get("ModalityLUTSequence"):
        raise ScanError("intensities in a lookup table instead of a rescale slope")
    if int(ds.get("BitsAllocated") or 0) not in (8, 16, 32, 64):
        raise ScanError(f"{ds.get('BitsAllocated')} bits per pixel; 8, 16, 32 or 64 are read")
    if int(ds.get("Rows") or 0) < 1 or int(ds.get("Columns") or 0) < 1:
        raise ScanError("no rows or columns; the file is truncated or holds no image")
