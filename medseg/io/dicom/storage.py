"""How the pixels of a DICOM file lie in it, by its transfer syntax."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, TypeAlias

from pydicom import uid as uids
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from medseg.errors import ScanError
from medseg.io.dicom.fast_header import Elements

Storage = Literal["plain", "deflated", "encoded"]
DicomHeader: TypeAlias = Elements | FileDataset


def get_storage(ds: DicomHeader) -> Storage:
    """Return how the pixels of a file lie in it.

    Raises:
        ScanError: If its transfer syntax is unknown.
    """
    syntax = (
        ds.file_meta.get("TransferSyntaxUID") or uids.ImplicitVRLittleEndian
    )
    return _classify_syntax(str(syntax))


@lru_cache(maxsize=64)
def _classify_syntax(uid: str) -> Storage:
    syntax = UID(uid)
    if not syntax.is_transfer_syntax:
        raise ScanError(
            "the transfer syntax is unknown; convert the series to an uncompressed one",
            detail=uid,
        )
    if syntax == uids.DeflatedExplicitVRLittleEndian:
        return "deflated"
    if syntax.is_compressed:
        return "encoded"
    return "plain"
