"""Previews: labels stand where they are, in their colours, and the sheet holds all of it."""

from __future__ import annotations

import math
import warnings

import nibabel
import numpy as np
import pytest
from support.pictures import (
    NASTY_NAMES,
    find_colour,
    marked_volume,
    read_pixels,
)

from medseg.errors import OutputError
from medseg.labels import Label, LabelSet
from medseg.plots.previews import PreviewCase, draw_cases, draw_overview
from medseg.volume import Volume

RED, BLUE = (255, 0, 0), (0, 0, 255)
LABELS = LabelSet([Label(1, "liver", 1, RED), Label(2, "tumour", 2, BLUE)])

pytestmark = pytest.mark.filterwarnings("error")


def case(
    shape=(24, 20, 12), affine=None, dice=0.8, name="case_1"
) -> PreviewCase:
    image = (
        np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    )
    labels = np.zeros(shape, np.uint8)
    labels[4:12, 5:12, : max(1, shape[2] // 2)] = 1
    labels[6:9, 7:10, : max(1, shape[2] // 4)] = 2
    return PreviewCase(
        name,
        image,
        labels,
        np.roll(labels, 2, 0),
        np.eye(4) if affine is None else affine,
        dice,
    )


def test_cases_show_reference_and_prediction_in_the_labels_colours(tmp_path):
    draw_cases(
        tmp_path / "a.png", [case(), case(name="case_2", dice=math.nan)], LABELS
    )
    width = read_pixels(tmp_path / "a.png").shape[1]
    for colour in (RED, BLUE):
        found = find_colour(tmp_path / "a.png", colour)
        # Lines on reference and prediction, none on the image.
        assert len(found) > 100
        assert found[:, 1].min() > width * 0.15
    # The other planes cut the liver beside the tumour.
    assert find_colour(tmp_path / "a.png", RED)[:, 1].max() > width * 0.7


def test_right_of_the_patient_is_left_in_the_picture(tmp_path):
    array, affine = marked_volume("LPS")
    volume = Volume(np.zeros((1, *array.shape), np.float32), affine)
    draw_overview(tmp_path / "a.png", volume, array, LABELS, title="scan")
    rows, columns = find_colour(tmp_path / "a.png", RED).T
    height, width = read_pixels(tmp_path / "a.png").shape[:2]
    in_axial = (columns < width / 3) & (rows < height * 0.8)
    centre = columns[in_axial].mean()
    assert centre < width / 6
    assert rows[in_axial].mean() < height / 2


def test_pixels_keep_their_proportions(tmp_path):
    labels = np.zeros((20, 20, 6), np.uint8)
    labels[5:15, 5:15, 1:5] = 1
    volume = Volume(
        np.zeros((1, 20, 20, 6), np.float32), np.diag([1.0, 1.0, 5.0, 1.0])
    )
    draw_overview(tmp_path / "a.png", volume, labels, LABELS)
    rows, columns = find_colour(tmp_path / "a.png", RED).T
    height, width = read_pixels(tmp_path / "a.png").shape[:2]
    for third in range(3):
        inside = (columns // (width / 3) == third) & (rows < height * 0.75)
        high, wide = np.ptp(rows[inside]), np.ptp(columns[inside])
        # 10 × 10 mm in the axial plane, 10 × 20 mm in the others.
        assert high / wide == pytest.approx(1 if third == 0 else 2, rel=0.1)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 9, 7), (40, 2, 3), (64, 48, 1), (2, 200, 3), (5, 1, 5)],
)
def test_labels_of_odd_shapes_are_drawn_where_they_are(tmp_path, shape):
    image = np.zeros((1, *shape), np.float32)
    full = np.ones(shape, np.uint16)
    affine = np.diag([0.3, 1, 9, 1])
    draw_cases(
        tmp_path / "full.png",
        [PreviewCase("x", image, full, full * 0, affine, 0.0)],
        LABELS,
    )
    draw_cases(
        tmp_path / "none.png",
        [PreviewCase("x", image, full * 0, full * 0, affine, 0.0)],
        LABELS,
    )
    assert len(find_colour(tmp_path / "none.png", RED)) == 0
    line = find_colour(tmp_path / "full.png", RED)
    height, width = read_pixels(tmp_path / "full.png").shape[:2]
    # The reference is the second panel of the row: its outline and its colour in the legend.
    panels = 3 if shape[2] == 1 else 5
    columns = line[line[:, 0] < height * 0.8][:, 1]
    assert width / panels * 0.5 < columns.min() < width / panels * 2
    assert (line[:, 0] > height * 0.8).any()


def test_pictures_and_volumes_share_a_sheet_each_in_its_row(tmp_path):
    colours = np.zeros((3, 30, 20, 1))
    colours[1] = np.linspace(0, 255, 30)[:, None, None]
    reference = np.zeros((30, 20, 1), int)
    reference[5:15, 5:15] = 2
    picture = PreviewCase(
        "colour", colours, reference, reference * 0, np.eye(4), 0.0
    )
    draw_cases(tmp_path / "volume.png", [case()], LABELS)
    draw_cases(tmp_path / "both.png", [case(), picture], LABELS)
    one, both = (
        read_pixels(tmp_path / name) for name in ("volume.png", "both.png")
    )
    row = 357  # pixels: a panel and its title
    assert both.shape[0] - one.shape[0] == pytest.approx(row, abs=2)
    second = both[row : 2 * row]
    is_green = (second[..., 1] > second[..., 0] + 60) & (
        second[..., 1] > second[..., 2] + 60
    )
    green = np.argwhere(is_green)
    # Three panels of the picture, none of it in the volume's fourth and fifth column.
    assert len(green) > 5000
    assert green[:, 1].max() < both.shape[1] * 0.65
    outline = find_colour(tmp_path / "both.png", BLUE)
    assert len(outline[(outline[:, 0] > row) & (outline[:, 0] < 2 * row)]) > 100


def test_labels_the_set_does_not_know_are_not_drawn(tmp_path):
    labels = np.full((9, 9, 3), 7, np.int16)
    draw_overview(
        tmp_path / "a.png",
        Volume(np.zeros((1, 9, 9, 3)), np.eye(4)),
        labels,
        LABELS,
    )
    assert not len(find_colour(tmp_path / "a.png", RED))


@pytest.mark.parametrize("name", ["n", "a rather long name of a structure"])
def test_the_legend_of_many_labels_fits_on_the_sheet(tmp_path, name):
    labels = LabelSet(
        [Label(n, f"{name} {n}", n, (9, n, 9)) for n in range(1, 61)]
    )
    every = np.arange(61, dtype=np.uint8).repeat(9).reshape(61, 9, 1)
    draw_overview(
        tmp_path / "a.png", Volume(every[None], np.eye(4)), every, labels
    )
    sheet = read_pixels(tmp_path / "a.png")
    foot = sheet[320:]
    assert (foot < 255).any()
    assert (foot[:, :3] == 255).all()
    assert (foot[:, -3:] == 255).all()
    assert (sheet[-2:] == 255).all()


def test_names_of_any_kind_are_drawn_as_text(tmp_path):
    labels = LabelSet(
        [Label(n, name, n, (n, 9, 9)) for n, name in enumerate(NASTY_NAMES, 1)]
    )
    every = np.arange(10, dtype=np.uint8).repeat(20).reshape(20, 10, 1)
    image = every[None].astype(float)
    cases = [
        PreviewCase(name, image, every, every, np.eye(4), 1.0)
        for name in NASTY_NAMES
    ]
    draw_cases(tmp_path / "a.png", cases, labels)
    for label in labels:
        assert len(find_colour(tmp_path / "a.png", label.colour)) > 0


def test_nothing_is_left_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_cases(tmp_path / "file" / "a.png", [case()], LABELS)
    with pytest.raises(ValueError, match="at least one case"):
        draw_cases(tmp_path / "a.png", [], LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_real_cases(shared_data, tmp_path):
    folder = shared_data / "hippocampus"
    cases = []
    for path in sorted((folder / "labelsTr").glob("*.nii.gz"))[:2]:
        reference = nibabel.load(path)
        image = nibabel.load(folder / "imagesTr" / path.name).get_fdata(
            dtype=np.float32
        )
        labels = np.asarray(reference.dataobj).astype(np.uint8)
        cases.append(
            PreviewCase(
                path.name, image[None], labels, labels, reference.affine, 1.0
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_cases(tmp_path / "a.png", cases, LABELS)
    assert len(find_colour(tmp_path / "a.png", RED)) > 200
