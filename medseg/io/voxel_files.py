"""Which other file holds the voxels of an image: some headers have a file of their own."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import MedsegError
from medseg.io.itk import read_layout
from medseg.io.meta_headers import DETACHED_SUFFIX as META_SUFFIX
from medseg.io.nifti_headers import find_image_file
from medseg.io.nrrd_headers import DETACHED_SUFFIX as NRRD_SUFFIX


def find_voxel_file(path: Path) -> Path:
    """Return the file of the voxels: that beside a ``.mhd``, ``.nhdr`` or ``.hdr``, or itself."""
    try:
        if path.name.lower().endswith((META_SUFFIX, NRRD_SUFFIX)):
            return read_layout(path).file
        return find_image_file(path)
    except (MedsegError, OSError):
        return path  # reading it says what is wrong with it
