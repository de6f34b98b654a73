"""One DICOM file's header → its frames, or why it is no part of a volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydicom import uid as uids
from pydicom.uid import UID, UID_dictionary

from medseg._support.files import refuse_special
from medseg.errors import ScanError
from medseg.io.body_regions import find_regions
from medseg.io.dicom.fast_header import read_elements_fast
from medseg.io.dicom.files import (
    PYDICOM_ERRORS,
    has_dicom_prefix,
    has_dicom_suffix,
    is_stub,
    may_be_dicom,
    quote_error,
    read_elements,
)
from medseg.io.dicom.frames import (
    SPLIT_KEYWORDS,
    Frame,
    get_image_type,
    get_integer,
    get_text,
    get_uid,
    read_frames,
)
from medseg.io.dicom.pixel_format import PIXEL_FORMAT_KEYWORDS
from medseg.io.dicom.storage import DicomHeader

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
        "SOPClassUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "Modality",
        "BodyPartExamined",
        "ProtocolName",
        "SeriesDescription",
        "ImageType",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "ModalityLUTSequence",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "DirectoryRecordSequence",
        "InstanceNumber",
        *PIXEL_FORMAT_KEYWORDS,
        *SPLIT_KEYWORDS,
    )
)
"""The elements that are read of a header."""

_SCAN_NAME_KEYWORDS = (
    "PatientID",
    "StudyDate",
    "SeriesNumber",
    "SeriesDescription",
)
_GREYSCALE = ("MONOCHROME1", "MONOCHROME2")
_MOSAIC_TYPES = {"MOSAIC", "VFRAME"}
_BITS_PER_PIXEL = (8, 16, 32, 64)
_LONGEST_MODALITY = 16
_LONGEST_DESCRIPTION = 64


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What one DICOM file holds.

    Attributes:
        file: The file.
        series: Series Instance UID if valid, else empty.
        modality: ``CT``, ``MR``, …
        frames: Its slices; none if it has an error, and none that is read if it is excluded.
        exclusion: Why it is no part of a volume, though nothing is wrong with it; or empty.
        error: Why a volume that it belongs to cannot be read; its source is the file.
        is_damaged: Whether it is truncated or damaged, so that its ``series`` may be missing or
            cut.
        study: Study Instance UID if valid, else empty.
        description: Series Description, in one line, or empty.
        sop_class: SOP Class UID if the standard has it, else empty.
        is_stub: Whether it is damaged and holds not a single element, so that little speaks for
            its having been a slice.
        regions: Regions of the body that Body Part Examined names; where it names none, Protocol
            Name and Series Description.
    """

    file: Path
    series: str
    modality: str
    frames: tuple[Frame, ...] = ()
    exclusion: str = ""
    error: ScanError | None = None
    is_damaged: bool = False
    study: str = ""
    description: str = ""
    sop_class: str = ""
    is_stub: bool = False
    regions: tuple[str, ...] = ()


def read_header(path: Path) -> Header | None:
    """Read one file's header.

    Returns:
        ``None`` if the file is not DICOM. A file that is DICOM by its first bytes or its name,
        but broken, has an ``error``; so has a file that may not be opened.
    """
    try:
        ds = _read_header_elements(path)
        if ds is None:
            return _refuse_named_dicom(path)
        if not _get_sop_class(ds):
            return _refuse_prefixed(path, "its header has no SOP Class UID")
    except ScanError as error:
        error.source = str(path)
        return Header(path, "", "", error=error, is_damaged=True)
    except OSError as error:
        return _make_damaged(path, "it cannot be opened", detail=error.strerror)
    except PYDICOM_ERRORS as error:
        return _refuse_prefixed(
            path, "its header cannot be parsed", quote_error(error)
        )
    return _make_header(path, ds)


def read_scan_name(path: Path) -> str:
    """Read whom and what a file shows: patient, study date, series number and description.

    Returns:
        Text that names the patient; empty if the file cannot be read or says nothing.
    """
    try:
        ds = read_elements(path, _SCAN_NAME_KEYWORDS)
        values = [get_text(ds, keyword) for keyword in _SCAN_NAME_KEYWORDS]
    except (*PYDICOM_ERRORS, ScanError):
        return ""
    parts = []
    for value in values:
        part = value.strip()
        if part:
            parts.append(part)
    return "_".join(parts)


def _read_header_elements(path: Path) -> DicomHeader | None:
    ds = read_elements_fast(path, HEADER_KEYWORDS)
    if ds is not None:
        return ds
    if not may_be_dicom(path):
        return None
    keywords = list(HEADER_KEYWORDS)
    return read_elements(path, keywords)


def _refuse_named_dicom(path: Path) -> Header | None:
    if not has_dicom_suffix(path):
        return None
    refuse_special(path)
    return _make_damaged(path, "only its name is DICOM")


def _refuse_prefixed(
    path: Path, reason: str, detail: str | None = None
) -> Header | None:
    if not has_dicom_prefix(path):
        return None
    damaged = _make_damaged(path, reason, detail=detail)
    return replace(damaged, is_stub=is_stub(path))


def _make_damaged(
    path: Path, reason: str, *, series: str = "", detail: str | None = None
) -> Header:
    error = ScanError(
        f"damaged or truncated DICOM: {reason}", source=path, detail=detail
    )
    return Header(path, series, "", error=error, is_damaged=True)


def _make_header(path: Path, ds: DicomHeader) -> Header:
    try:
        make_header = _read_series(path, ds)
        if _ends_early(ds):
            series = get_uid(ds, "SeriesInstanceUID")
            return _make_damaged(
                path, "it ends within its header", series=series
            )
        exclusion = _get_exclusion(ds)
    except PYDICOM_ERRORS as error:
        return _make_damaged(
            path, "its header cannot be parsed", detail=quote_error(error)
        )
    if exclusion:
        frames = _read_excluded_slice(path, ds)
        return make_header(exclusion=exclusion, frames=frames)
    try:
        frames = _read_greyscale_frames(path, ds)
    except ScanError as error:
        error.source = str(path)
        return make_header(error=error)
    except PYDICOM_ERRORS as error:
        detail = quote_error(error)
        invalid = ScanError(
            "the header has invalid values", source=path, detail=detail
        )
        return make_header(error=invalid)
    return make_header(frames=frames)


def _read_greyscale_frames(path: Path, ds: DicomHeader) -> tuple[Frame, ...]:
    _require_greyscale(ds)
    _require_pixels(ds)
    return tuple(read_frames(path, ds))


def _read_excluded_slice(path: Path, ds: DicomHeader) -> tuple[Frame, ...]:
    """Return the slice that an excluded file could be, if only its SOP class were another."""
    if "ImagePositionPatient" not in ds:
        return ()
    try:
        return _read_greyscale_frames(path, ds)
    except (ScanError, *PYDICOM_ERRORS):
        return ()


def _read_series(path: Path, ds: DicomHeader) -> partial[Header]:
    """Return a header that says which series the file belongs to, its frames still to be given."""
    modality = get_text(ds, "Modality")
    description = get_text(ds, "SeriesDescription")
    one_line = " ".join(description.split())
    return partial(
        Header,
        path,
        series=get_uid(ds, "SeriesInstanceUID"),
        modality=modality[:_LONGEST_MODALITY],
        study=get_uid(ds, "StudyInstanceUID"),
        description=one_line[:_LONGEST_DESCRIPTION],
        sop_class=_get_known_sop_class(ds),
        regions=_find_regions(ds, description),
    )


def _find_regions(ds: DicomHeader, description: str) -> tuple[str, ...]:
    stated = find_regions([get_text(ds, "BodyPartExamined")])
    if stated:
        return stated
    return find_regions([get_text(ds, "ProtocolName"), description])


def _get_sop_class(ds: DicomHeader) -> str:
    sop_class = ds.get("SOPClassUID") or ds.file_meta.get(
        "MediaStorageSOPClassUID"
    )
    return str(sop_class or "")


def _ends_early(ds: DicomHeader) -> bool:
    # Elements lie in the order of their tags, and images cannot be without rows.
    if "Rows" in ds or "DirectoryRecordSequence" in ds:
        return False
    if "SeriesInstanceUID" not in ds:
        return True
    return _get_sop_class(ds) in _VOLUME_CLASSES


def _get_exclusion(ds: DicomHeader) -> str:
    """Return why a file is no part of a volume; results may hold it, so only known names."""
    sop_class = _get_sop_class(ds)
    if sop_class not in _VOLUME_CLASSES or "DirectoryRecordSequence" in ds:
        name = name_sop_class(sop_class)
        return f"'{name}' is not a volume image"
    if "LOCALIZER" in get_image_type(ds):
        return "a localizer"
    return ""


def _get_known_sop_class(ds: DicomHeader) -> str:
    # Anything may stand where a UID belongs.
    sop_class = _get_sop_class(ds)
    return sop_class if sop_class in UID_dictionary else ""


def name_sop_class(sop_class: str) -> str:
    """Return the standard's name of a SOP class."""
    if sop_class not in UID_dictionary:
        return "unknown"
    name: str = UID(sop_class).name
    return name


def _require_greyscale(ds: DicomHeader) -> None:
    photometric = get_text(ds, "PhotometricInterpretation")
    samples = get_integer(ds, "SamplesPerPixel", 1)
    if samples != 1 or photometric not in _GREYSCALE:
        stated = photometric[:20] or "none"
        raise ScanError(
            "colour images are not supported; MONOCHROME1 and MONOCHROME2 are",
            detail=f"PhotometricInterpretation: {stated}",
        )
    if ds.get("ModalityLUTSequence"):
        raise ScanError(
            "intensities defined by a lookup table (ModalityLUTSequence) are not supported; a "
            "rescale slope and intercept are needed"
        )


def _require_pixels(ds: DicomHeader) -> None:
    image_type = get_image_type(ds)
    if _MOSAIC_TYPES.intersection(image_type):
        raise ScanError(
            "the image is a mosaic of many slices; convert it with dcm2niix first"
        )
    bits = get_integer(ds, "BitsAllocated", 0)
    if bits not in _BITS_PER_PIXEL:
        raise ScanError(
            f"{bits} bits per pixel are not supported; 8, 16, 32 or 64 are"
        )
    rows = get_integer(ds, "Rows", 0)
    columns = get_integer(ds, "Columns", 0)
    if rows < 1 or columns < 1:
        raise ScanError(
            "the image has no rows or columns; the file is truncated or holds no image"
        )
