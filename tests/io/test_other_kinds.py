"""Files that are not read are called what they are."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import ScanError
from medseg.io import read_image, read_labels
from medseg.io.other_kinds import describe_other_kind


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.mnc", "MINC"),
        ("A.PAR", "PAR/REC"),
        ("a.mif.gz", "MRtrix"),
        ("a.npz", "an array"),
        ("a.svs", "slide"),
        ("a.nii.bz2", "unpack"),
        ("a.webp", "picture"),
        ("a.raw", r"\(\.mhd or \.nhdr\) .* is missing"),
        ("a.img.gz", r"\(\.hdr\) .* is missing"),
    ],
)
def test_a_file_that_is_not_read_is_called_what_it_is(
    tmp_path: Path, name: str, what: str
) -> None:
    (tmp_path / name).write_bytes(b"something")
    for read in (read_image, read_labels):
        with pytest.raises(
            ScanError, match=f"not a known kind of image: .*{what}"
        ) as caught:
            read(tmp_path / name)
        assert name not in caught.value.message


def test_voxels_lead_to_their_header(tmp_path: Path) -> None:
    image = nib.Nifti1Pair(np.ones((3, 4, 5), np.int16), np.eye(4))
    nib.save(image, tmp_path / "scan.img")
    with pytest.raises(ScanError, match=r"the \.hdr file beside it; give that"):
        read_image(tmp_path / "scan.img")
    assert read_image(tmp_path / "scan.hdr").array.sum() == 60


def test_nobody_knows_every_kind(tmp_path: Path) -> None:
    assert describe_other_kind(tmp_path / "notes.txt") == ""
