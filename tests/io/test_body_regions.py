"""Regions of the body, by what people and scanners call them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import dicom

from medseg.io import read_image
from medseg.io.body_regions import (
    REGIONS,
    find_organ_regions,
    find_regions,
)


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("ABDOMEN", ("abdomen",)),
        ("abdomen^routine (adult)", ("abdomen",)),
        ("CHESTABDPELVIS", ("chest", "abdomen", "pelvis")),
        ("C-SPINE", ("neck",)),
        ("L_SPINE", ("abdomen",)),
        ("EXTREMITY", ("upper limb", "lower limb")),
        ("WHOLEBODY", REGIONS),
        ("Mr. Armstrong", ()),
        ("", ()),
    ],
)
def test_a_header_names_regions(text: str, regions: tuple[str, ...]) -> None:
    assert find_regions([text]) == regions


@pytest.mark.parametrize(
    ("label", "regions"),
    [
        ("kidney_left", ("abdomen",)),
        ("Anterior hippocampus", ("head",)),
        ("femoral head", ()),
        ("pancreas head", ("abdomen",)),
        ("left ventricle", ()),
        ("edema", ()),
    ],
)
def test_a_label_names_a_region_only_by_an_organ(
    label: str, regions: tuple[str, ...]
) -> None:
    assert find_organ_regions([label]) == regions


@pytest.mark.parametrize(
    ("header", "regions"),
    [
        ({"BodyPartExamined": "KNEE"}, ("lower limb",)),
        # What names no region gives way to what was scanned for.
        (
            {"BodyPartExamined": "OTHER", "ProtocolName": "Leber liver 3ph"},
            ("abdomen",),
        ),
        ({"SeriesDescription": "Thorax 1.0"}, ("chest",)),
        (
            {"BodyPartExamined": "HEAD", "ProtocolName": "abdomen"},
            ("head",),
        ),
        ({}, ()),
    ],
)
def test_a_volume_knows_what_its_headers_name(
    tmp_path: Path, header: dict[str, str], regions: tuple[str, ...]
) -> None:
    series = dicom.save(tmp_path / "series", dicom.series(**header))
    assert read_image((series,)).regions == regions
