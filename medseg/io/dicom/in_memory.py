"""DICOM that lies on no disk: data sets of pydicom, and headers kept after files are gone."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.errors import ScanError
from medseg.io.dicom.files import PYDICOM_ERRORS, quote_error
from medseg.io.dicom.volume import Slices
from medseg.volume import Volume

_PREAMBLE = b"\0" * 128


def write_dataset(ds: Dataset, file: Path) -> None:
    """Write a data set as it is, so that it is read and judged as any DICOM file.

    Args:
        ds: Not changed. Where it names no transfer syntax, the one that it was read with counts.
        file: Where to.

    Raises:
        ScanError: If pydicom cannot write it.
    """
    copied = _copy(ds)
    meta = FileMetaDataset()
    for element in getattr(ds, "file_meta", None) or ():
        meta.add(element)
    if not meta.get("TransferSyntaxUID"):
        meta.TransferSyntaxUID = _guess_syntax(ds)
    copied.file_meta = meta
    copied.preamble = _PREAMBLE
    try:
        pydicom.dcmwrite(file, copied, enforce_file_format=False)
    except PYDICOM_ERRORS as error:
        raise ScanError(
            "the DICOM data set cannot be written as a file, so it cannot be judged as one; give "
            "it as pydicom.dcmread returns it, pixels included",
            source=file,
            detail=quote_error(error),
        ) from error


def _copy(ds: Dataset) -> Dataset:
    """Copy a data set but for its values; pydicom changes elements while it writes them."""
    copied = Dataset()
    copied.set_original_encoding(
        *ds.original_encoding, ds.original_character_set
    )
    for tag, element in list(ds.items()):
        if isinstance(element, DataElement):
            is_sequence = element.VR == "SQ"
            duplicate = copy.deepcopy if is_sequence else copy.copy
            element = duplicate(element)
        copied[tag] = element
    return copied


def _guess_syntax(ds: Dataset) -> UID:
    is_implicit, _ = ds.original_encoding
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian


def keep_headers(volume: Volume) -> Volume:
    """Return a DICOM volume that needs its files no more: what results repeat of them is kept."""
    slices = volume.header
    if not isinstance(slices, Slices):
        return volume
    headers = {}
    for file in dict.fromkeys(slices.files):
        headers[file] = _read_before_pixels(file)
    return replace(volume, header=replace(slices, headers=headers))


def _read_before_pixels(file: Path) -> bytes:
    """Return a DICOM file that holds only what stands before the pixels."""
    ds = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    # Not deflated again: only headers are read of it.
    if not ds.file_meta.get("TransferSyntaxUID"):
        ds.file_meta.TransferSyntaxUID = _guess_syntax(ds)
    ds.preamble = ds.preamble or _PREAMBLE
    header = BytesIO()
    pydicom.dcmwrite(header, ds, enforce_file_format=False)
    return header.getvalue()


@contextlib.contextmanager
def files_at_hand(slices: Slices) -> Iterator[Slices]:
    """Give the slices with files that can be read: their own, or for a while those kept of them."""
    if not slices.headers:
        yield slices
        return
    with tempfile.TemporaryDirectory(prefix="medseg-") as name:
        restored = {}
        for number, (file, header) in enumerate(slices.headers.items()):
            restored[file] = Path(name, f"{number:06d}.dcm")
            restored[file].write_bytes(header)
        files = [restored[file] for file in slices.files]
        yield replace(slices, files=tuple(files), headers={})
