"""Texts in results do not say what DICOM files and folders are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.datasets.cases import Scan
from medseg.datasets.redaction import discreet, discreet_left_out
from medseg.datasets.scans import LeftOut
from medseg.errors import Fault

FOLDER = Path("/data/DOE^JANE 1950/Study (1)")
SERIES = Scan("series-12", (tuple(FOLDER / f"JANE{n}.dcm" for n in (3, 1, 2)),))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("JANE2.dcm: truncated", "file 2 of 3: truncated"),
        ("Study (1): 2 slices missing", "series-12: 2 slices missing"),
        ("'JANE3.dcm' differs from JANE1.dcm", "'file 3 of 3' differs from file 1 of 3"),
        (f"cannot read {FOLDER}/JANE1.dcm", "cannot read file 1 of 3"),
        (f"{FOLDER} is odd", "series-12 is odd"),
        ("no such file: /home/jane/x.txt; mend it", "no such file: x.txt; mend it"),
        ("3/4 of the voxels, 1.5 mm/s, see https://a.b/c/d", None),
        ("slices 1, 2 and 3 differ by 12 mm", None),
    ],
)
def test_names_are_replaced_and_the_rest_stays(text: str, told: str | None) -> None:
    assert discreet(text, SERIES) == (text if told is None else told)


def test_short_names_are_words_unless_a_colon_follows() -> None:
    series = Scan("series-1", ((Path("CT/1"), Path("CT/2")),))
    assert discreet("1: broken", series) == "file 1 of 2: broken"
    assert discreet("CT: 2 CT slices of 12", series) == "series-1: 2 CT slices of 12"


def test_other_files_give_the_scan_its_name_and_may_keep_theirs() -> None:
    scan = Scan("a_b", ((Path("/data/a/b.nii.gz"),),))
    assert discreet("b.nii.gz: truncated", scan) == "b.nii.gz: truncated"
    assert discreet("/data/a/b.nii.gz: truncated", scan) == "b.nii.gz: truncated"


def test_what_was_left_out_says_its_name_in_results(tmp_path: Path) -> None:
    entry = LeftOut("file-12", "DOE JANE/IM01", "IM01: damaged")
    assert discreet_left_out(entry, tmp_path) == Fault("file-12", "file 1 of 1: damaged")
