"""What ``.seg.nrrd`` files say of their segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.seg_nrrd import write_seg_nrrd

from medseg.errors import ScanError
from medseg.io import read_labels
from medseg.io.itk import read_layers
from medseg.io.seg_nrrd import Segment, read_segments

ARRAY = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) % 3


def write_header(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["NRRD0004", "type: uchar", *lines, "", ""]))
    return path


def test_each_segment_has_its_name_value_and_layer(tmp_path: Path) -> None:
    named = [("Kidney L", 2, 0), ("Leber (größer)", 1, 1)]
    layers = np.stack([ARRAY, ARRAY])
    file = write_seg_nrrd(tmp_path / "a.seg.nrrd", layers, named)
    assert read_segments(file) == (
        Segment("Kidney L", 2, 0),
        Segment("Leber (größer)", 1, 1),
    )
    assert np.array_equal(read_layers(file).array, layers)


def test_one_layer_is_a_label_map_with_the_values_of_its_file(
    tmp_path: Path,
) -> None:
    file = write_seg_nrrd(tmp_path / "a.nrrd", ARRAY, [("a", 1), ("b", 2)])
    assert np.array_equal(read_labels(file).array[0], ARRAY)


def test_older_files_state_no_value_and_no_layer(tmp_path: Path) -> None:
    file = write_header(
        tmp_path / "a.seg.nrrd",
        "Segment0_ID:=Segment_1",
        "Segment0_Name:=liver",
        "Segment1_ID:=only an id",
    )
    assert read_segments(file) == (
        Segment("liver", 1, 0),
        Segment("only an id", 1, 1),
    )


def test_other_files_have_no_segments(tmp_path: Path) -> None:
    plain = write_header(tmp_path / "a.nrrd", "Comment:=Segment0_Name")
    other = tmp_path / "a.nii.gz"
    other.write_bytes(b"NRRD0004\nSegment0_Name:=liver\n\n")
    broken = tmp_path / "b.nrrd"
    broken.write_bytes(b"nonsense")
    for file in (plain, other, broken):
        assert read_segments(file) == ()


def test_segments_that_nobody_can_tell_apart_are_refused(
    tmp_path: Path,
) -> None:
    same = write_seg_nrrd(tmp_path / "a.nrrd", ARRAY, [("a", 1), ("b", 1)])
    with pytest.raises(ScanError, match="two segments one value"):
        read_segments(same)
    no_number = write_header(
        tmp_path / "b.nrrd", "Segment0_Name:=Hans", "Segment0_LabelValue:=-1"
    )
    with pytest.raises(ScanError, match="whole numbers") as refused:
        read_segments(no_number)
    assert "Hans" not in refused.value.message
    with pytest.raises(ScanError, match="cannot be read"):
        read_segments(tmp_path / "absent.nrrd")


def test_a_header_of_many_segments_is_read_to_its_end(tmp_path: Path) -> None:
    many = [
        (f"structure {'x' * 600} {value}", value) for value in range(1, 200)
    ]
    file = write_seg_nrrd(tmp_path / "a.seg.nrrd", ARRAY, many)
    assert len(read_segments(file)) == 199
    assert np.array_equal(read_labels(file).array[0], ARRAY)
