"""Labels are described by coded concepts."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from support.studies import (
    labels_in,
    scan,
    write_seg,
)

from medseg.dicom_labels.codes import (
    get_property_category,
    get_property_type,
    is_lesion,
)
from medseg.labels import Label


def test_segments_carry_code_category_colour_and_algorithm(tmp_path):
    like = scan(tmp_path)
    path = write_seg(
        tmp_path / "seg.dcm", labels_in(like.shape), like, algorithm="liver_ct"
    )
    liver, tumour, thing = pydicom.dcmread(path).SegmentSequence

    def coded(item, kind):
        return item[f"SegmentedProperty{kind}CodeSequence"].value[0].CodeValue

    assert coded(liver, "Type") == "10200004"
    assert (
        coded(liver, "Category")
        == coded(thing, "Category")
        == coded(thing, "Type")
    )
    assert coded(thing, "Type") == "91723000"
    assert coded(tumour, "Category") == "49755003"
    assert (liver.SegmentLabel, liver.SegmentAlgorithmName) == (
        "liver",
        "liver_ct",
    )
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    rgb = highdicom.color.CIELabColor(
        *_cielab(liver.RecommendedDisplayCIELabValue)
    ).to_rgb()
    assert np.allclose(rgb, (230, 60, 60), atol=2)


def _cielab(stored) -> tuple[float, float, float]:
    """DICOM PS3.3 C.10.7.1.1: L from 0 to 100, a and b from -128 to 127, over 16 bits."""
    light, a, b = np.array(stored) / 65535
    return light * 100, a * 255 - 128, b * 255 - 128


@pytest.mark.parametrize(
    ("code", "is_one"),
    [
        (None, False),
        ("SCT:108369006", True),
        ("SCT:10200004", False),
        ("SCT:17621005", False),  # normal
        ("99X:108369006", False),
    ],
)
def test_lesions_are_told_by_their_code(code, is_one):
    assert is_lesion(Label(1, "a", 1, (0, 0, 0), code)) == is_one


def test_a_label_without_a_code_is_an_anatomical_structure():
    label = Label(1, "a", 1, (0, 0, 0))
    assert get_property_type(label).value == "91723000"
    assert get_property_category(label).value == "91723000"
