"""Tables of classes beside masks, and the palettes of public data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.datasets.colour_tables import (
    BACKGROUND,
    IGNORE,
    find_colour_table,
    interpret_name,
)
from medseg.datasets.known_palettes import (
    list_palettes,
    read_cityscapes_ids,
    read_voc,
)
from medseg.errors import DatasetError

EXPECTED = {(64, 128, 64): "Animal", (0, 0, 0): "Void"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nAnimal,64,128,64\nVoid,0,0,0\n"),
        ("class_dict.csv", "Animal,64,128,64\nVoid,0,0,0"),
        ("class_dict.csv", "\ufeffr,g,b,Class\n64, 128, 64,Animal\n0,0,0,Void\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nAnimal:64,128,64::\nVoid:0,0,0::\n"),
        ("label_colors.txt", "64 128 64\tAnimal\n0 0 0\t\tVoid\n"),
        ("label_colors.txt", "# r g b name\r\n64 128 64 Animal\r\n0 0 0 Void\r\n"),
    ],
)  # fmt: skip
def test_a_table_names_colours(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    table = find_colour_table([tmp_path / "none", tmp_path])

    assert table is not None
    assert table.origin == name
    assert table.by_colour == EXPECTED


def test_without_a_table_nothing_is_named(tmp_path: Path) -> None:
    assert find_colour_table([tmp_path]) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name,r,g,b\n", "names no class"),
        ("name,r,g,b\nAnimal,300,0,0\n", "names no class"),
        ("a,1,2,3\nb,1,2,3\n", r"two classes the colour \(1, 2, 3\)"),
        (b"\xff\xfe\x00a\x80", "cannot be read"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(
    tmp_path: Path, text: str | bytes, fault: str
) -> None:
    content = text.encode() if isinstance(text, str) else text
    (tmp_path / "class_dict.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=fault) as caught:
        find_colour_table([tmp_path])
    assert caught.value.source
    assert str(tmp_path) not in caught.value.message


def test_names_that_are_no_structures_are_told() -> None:
    assert interpret_name("_background_") == BACKGROUND
    for name in ("Void", "unlabeled", "Unlabelled", "ignore", "__ignore__"):
        assert interpret_name(name) == IGNORE
    assert interpret_name("border") == "border"


def test_public_palettes_are_as_published() -> None:
    cityscapes, voc, camvid = list_palettes()
    assert (len(voc.codes), len(camvid.codes)) == (22, 32)
    assert cityscapes.by_colour[128, 64, 128] == "road"
    assert cityscapes.by_colour[0, 0, 142] == "car"
    assert camvid.by_colour[192, 192, 128] == "Column_Pole"
    assert voc.by_value[15] == "person"
    for value in range(1, 21):
        # The colour map of the development kit counts the bits of the class.
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (value >> (3 * bit + channel) & 1) << 7 - bit
        assert voc.by_colour[tuple(colour)] == voc.by_value[value]


def test_the_ids_of_cityscapes_have_their_names() -> None:
    of_training = read_cityscapes_ids(for_training=True).by_value
    assert [of_training[number] for number in (0, 18)] == ["road", "bicycle"]
    assert of_training[255] == IGNORE
    assert len(of_training) == 20
    of_labels = read_cityscapes_ids(for_training=False).by_value
    assert of_labels[7] == "road"
    assert {of_labels[number] for number in (0, 4, 9, 255)} == {IGNORE}
    assert read_voc().by_value[255] == "void"
