"""Which other file holds the voxels of an image: some headers have a file of their own."""

from __future__ import annotations

import re
from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.itk import read_layout
from medseg.io.meta_headers import DETACHED_SUFFIX as META_SUFFIX
from medseg.io.nifti_headers import IMAGE_SUFFIXES, find_image_file, is_pair
from medseg.io.nrrd_headers import DETACHED_SUFFIX as NRRD_SUFFIX

_STATED = re.compile(
    rb"^(?:ElementDataFile *=|data ?file *:) *(?:\./)?([^/\\\r\n]+)\r?$",
    re.MULTILINE | re.IGNORECASE,
)
_HEADER_BYTES = 1 << 16


def find_voxel_file(path: Path) -> Path:
    """Return the file of the voxels: that beside a ``.mhd``, ``.nhdr`` or ``.hdr``, or itself."""
    try:
        if path.name.lower().endswith((META_SUFFIX, NRRD_SUFFIX)):
            return read_layout(path).file
        return find_image_file(path)
    except (MedsegError, OSError):
        return path  # reading it says what is wrong with it


def name_voxel_files(path: Path) -> tuple[str, ...]:
    """Return what the file of the voxels may be called, beside a header that came without it."""
    name = path.name
    if is_pair(path):
        stem = name[: name.lower().index(".hdr")]
        return tuple(stem + suffix for suffix in IMAGE_SUFFIXES)
    if not name.lower().endswith((META_SUFFIX, NRRD_SUFFIX)):
        return ()
    with path.open("rb") as file:
        found = _STATED.search(file.read(_HEADER_BYTES))
    stated = found[1].decode(errors="replace").strip() if found else ""
    # Others lie within the header's file, or in several.
    is_one = stated.upper() not in ("", "LOCAL", "LIST")
    return (stated,) if is_one and not stated.startswith(".") else ()
