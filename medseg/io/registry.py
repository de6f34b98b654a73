"""Which image formats there are, and which of them a scan's files belong to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from medseg._support.registry import Registry
from medseg.errors import ScanError
from medseg.io.dicom.volume import DICOM, is_dicom
from medseg.io.formats import Format, check_format
from medseg.io.itk import ITK
from medseg.io.mgh import MGH
from medseg.io.nifti import NIFTI
from medseg.io.other_kinds import describe_other_kind
from medseg.io.pictures import PICTURE

_SHIPPED = {
    "nifti": NIFTI,
    "itk": ITK,
    "mgh": MGH,
    "picture": PICTURE,
    "dicom": DICOM,
}


def _check_added_format(added: Format) -> None:
    """Refuse a format of a package that breaks the contract or claims a suffix of medseg's."""
    check_format(added)
    for shipped in _SHIPPED.values():
        claimed = set(added.suffixes) & set(shipped.suffixes)
        if claimed:
            suffixes = ", ".join(sorted(claimed))
            raise ValueError(
                f"{suffixes} is read by medseg itself, as {shipped.name}"
            )


IMAGE_FORMATS: Registry[Format] = Registry(
    "medseg.image_formats", "image format", _SHIPPED, _check_added_format
)
"""Every image format: NIfTI, NRRD/MetaImage, MGH, pictures, DICOM, and those of packages."""


def list_formats() -> tuple[Format, ...]:
    """Return the image formats that can be used, medseg's own first.

    A package that cannot be loaded is left out: it must not keep anybody from reading NIfTI.
    ``find_format`` names it where it may be the one that is missed.
    """
    formats, _ = IMAGE_FORMATS.usable()
    return tuple(formats.values())


def list_readable_suffixes() -> tuple[str, ...]:
    """Return the file name endings that formats read, longest first.

    Longest first, so that ``.nii.gz`` is recognised before a format's ``.gz`` could be.
    """
    return _order_suffixes(
        tuple(tuple(image_format.suffixes) for image_format in list_formats())
    )


@lru_cache(maxsize=8)  # asked for several times for each of very many files
def _order_suffixes(of_formats: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    suffixes = {suffix for suffixes in of_formats for suffix in suffixes}
    return tuple(sorted(suffixes, key=lambda suffix: (-len(suffix), suffix)))


def list_picture_suffixes() -> frozenset[str]:
    """Return the endings of files that hold one picture without a position in a patient."""
    suffixes: set[str] = set()
    for image_format in list_formats():
        if image_format.is_picture:
            suffixes.update(image_format.suffixes)
    return frozenset(suffixes)


def find_format(files: Sequence[Path]) -> Format:
    """Return the format of a scan's files, by their names' endings, DICOM by its content.

    Raises:
        ScanError: If no format claims them, or two packages do.
    """
    first = files[0]
    if len(files) > 1 or first.is_dir():
        return DICOM
    claiming = find_claiming_formats(first)
    if len(claiming) > 1:
        names = " and ".join(image_format.name for image_format in claiming)
        raise ScanError(
            f"{names} both claim this kind of file; uninstall one of their packages",
            source=first,
        )
    if claiming:
        return claiming[0]
    if is_dicom(first):
        return DICOM
    raise _unknown_kind(first)


def find_claiming_formats(file: Path) -> list[Format]:
    """Return the formats whose suffix a file's name ends in, by the longest such suffix."""
    name = file.name.lower()
    for suffix in list_readable_suffixes():
        if name.endswith(suffix):
            return [
                image_format
                for image_format in list_formats()
                if suffix in image_format.suffixes
            ]
    return []


def find_label_format(file: Path) -> Format | None:
    """Return the format that writes label maps under the ending of this name, or ``None``."""
    name = file.name.lower()
    for image_format in list_formats():
        if image_format.write_labels is not None and name.endswith(
            image_format.label_suffixes
        ):
            return image_format
    return None


def list_label_suffixes() -> tuple[str, ...]:
    """Return the endings under which label maps can be written."""
    suffixes: list[str] = []
    for image_format in list_formats():
        suffixes.extend(image_format.label_suffixes)
    return tuple(suffixes)


def _unknown_kind(file: Path) -> ScanError:
    suffixes = ", ".join(sorted(list_readable_suffixes()))
    kind = describe_other_kind(file)
    what = "not a known kind of image"
    if kind:
        what = f"{what}: {kind}"
    message = f"{what}; DICOM and files ending in {suffixes} are read"
    _, problems = IMAGE_FORMATS.usable()
    reasons = [problem.message for problem in problems]
    return ScanError("; ".join([message, *reasons]), source=file)
