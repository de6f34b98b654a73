"""Names of results that do not tell whose scan it is: hashes of what tells it from others.

Folders and files of DICOM are often named after patients.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.names import (
    has_image_suffix,
    hash_text,
    make_safe_name,
    split_suffix,
)

if TYPE_CHECKING:
    from medseg.io import Series

_DIGITS = 10


def make_series_name(series: Series, root: Path) -> str:
    """Name a DICOM series by a hash of its UID, of its path where it has none.

    Args:
        series: The series.
        root: The folder that was searched; the name does not depend on where that lies.
    """
    identity = identify_series(series, root)
    digest = hash_text(identity)
    return f"series-{digest[:_DIGITS]}"


def identify_series(series: Series, root: Path) -> str:
    """Return what tells a series from others: its UID, or its path below ``root``."""
    if series.uid:
        return series.uid
    first_file = series.files[0]
    return first_file.relative_to(root).as_posix()


def make_left_out_name(where: str) -> str:
    """Name a file or folder that cannot be used, without telling who the patient is.

    Args:
        where: Its path, relative to what was searched. It need not exist: a link may lead
            nowhere, and then nobody knows whether it would have been DICOM.

    Returns:
        Its own name, as its result would have been called, if it lies in no folder and its
        ending says that it is an image and no DICOM file; else a hash: folders of DICOM files
        are named after patients, and what cannot be read may be of any kind.
    """
    if has_image_suffix(where) and "/" not in where:
        stem, _ = split_suffix(where)
        return make_safe_name(stem)
    digest = hash_text(where)
    return f"file-{digest[:_DIGITS]}"
