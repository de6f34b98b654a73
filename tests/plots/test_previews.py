from __future__ import annotations

import math
import threading
import warnings
from pathlib import Path

import matplotlib.pyplot
import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from medseg.errors import OutputError
from medseg.labels import Label, LabelSet
from medseg.plots.canvas import to_drawable
from medseg.plots.planes import (
    DisplayOrientation,
    compute_intensity_window,
    select_display_channels,
)
from medseg.plots.previews import (
    PreviewCase,
    TrainingCurves,
    draw_cases,
    draw_curves,
    draw_overview,
)
from medseg.volume import Volume

RED, BLUE = (255, 0, 0), (0, 0, 255)
LABELS = LabelSet([Label(1, "liver", 1, RED), Label(2, "tumour", 2, BLUE)])

pytestmark = pytest.mark.filterwarnings("error")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def places(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """Return rows and columns of the pixels of this very colour (lines, legend)."""
    return np.argwhere((pixels(path) == colour).all(-1))


def case(shape=(24, 20, 12), affine=None, dice=0.8, name="case_1") -> PreviewCase:
    image = np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[4:12, 5:12, : max(1, shape[2] // 2)] = 1
    labels[6:9, 7:10, : max(1, shape[2] // 4)] = 2
    return PreviewCase(
        name, image, labels, np.roll(labels, 2, 0), np.eye(4) if affine is None else affine, dice
    )


def marked_volume(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume with a corner at right, anterior, superior, stored in any orientation."""
    array = np.zeros((8, 10, 12), np.uint8)
    array[5:, 6:, 7:] = 1
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SRA", "AIL"])
def test_volumes_are_shown_as_radiologists_see_them(codes):
    array, affine = marked_volume(codes)
    view = DisplayOrientation.of(affine, array.shape)
    turned = view.orient(array)
    axial, coronal, sagittal = view.planes(turned)
    assert [plane.name for plane in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert [plane.size for plane in (axial, coronal, sagittal)] == [(8, 20), (8, 36), (20, 36)]
    for plane in (axial, coronal, sagittal):
        shown = plane.cut(turned)
        # The mark is right, anterior and superior: on the left, and up, in each of them.
        assert shown[0, 0] == 1
        assert shown[-1, 0] == shown[0, -1] == shown[-1, -1] == 0


def test_an_oblique_volume_is_shown_in_its_own_planes():
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]]
    array, affine = marked_volume("LPS")
    view = DisplayOrientation.of(turn @ affine, array.shape)
    assert view.spacing == pytest.approx((1, 2, 3))
    assert view.planes(view.orient(array))[0].cut(view.orient(array))[0, 0] == 1


def test_a_picture_is_shown_as_people_see_it():
    array = np.zeros((6, 4, 1), np.uint8)
    array[5, 0] = 1
    view = DisplayOrientation.of(np.eye(4), array.shape)
    (plane,) = view.planes(array)
    shown = plane.cut(view.orient(array))
    assert shown.shape == (4, 6)
    assert shown[0, 5] == 1
    assert plane.name == ""


def test_the_slice_with_most_reference_is_shown():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:4, 2:4, 1] = 1
    labels[4:8, 3:8, 6] = 1
    view = DisplayOrientation.of(np.eye(4), labels.shape)
    assert view.planes(labels)[0].index == 6
    assert [plane.index for plane in view.planes(labels * 0)] == [4, 4, 4]


def test_window_holds_out_against_outliers_and_nothing():
    image = np.random.default_rng(0).normal(100, 10, (30, 30, 30))
    image[0, 0, 0] = 1e9
    image[1, 1, 1] = np.nan
    low, high = compute_intensity_window(image)
    assert 60 < low < 100 < high < 140
    for flat in (np.zeros((4, 4, 4)), np.full((4, 4, 4), np.nan), np.full((4, 4, 4), np.inf)):
        low, high = compute_intensity_window(flat)
        assert low < high


def test_colour_pictures_keep_their_colours():
    assert select_display_channels(np.zeros((3, 5, 4, 1))).shape == (5, 4, 1, 3)
    assert select_display_channels(np.zeros((3, 5, 4, 2))).shape == (5, 4, 2)


def test_cases_show_reference_and_prediction_in_the_labels_colours(tmp_path):
    draw_cases(tmp_path / "a.png", [case(), case(name="case_2", dice=math.nan)], LABELS)
    width = pixels(tmp_path / "a.png").shape[1]
    for colour in (RED, BLUE):
        found = places(tmp_path / "a.png", colour)
        # Lines on reference and prediction, none on the image.
        assert len(found) > 100
        assert found[:, 1].min() > width * 0.15
    # The other planes cut the liver beside the tumour.
    assert places(tmp_path / "a.png", RED)[:, 1].max() > width * 0.7


def test_right_of_the_patient_is_left_in_the_picture(tmp_path):
    array, affine = marked_volume("LPS")
    volume = Volume(np.zeros((1, *array.shape), np.float32), affine)
    draw_overview(tmp_path / "a.png", volume, array, LABELS, title="scan")
    rows, columns = places(tmp_path / "a.png", RED).T
    height, width = pixels(tmp_path / "a.png").shape[:2]
    in_axial = (columns < width / 3) & (rows < height * 0.8)
    centre = columns[in_axial].mean()
    assert centre < width / 6
    assert rows[in_axial].mean() < height / 2


def test_pixels_keep_their_proportions(tmp_path):
    labels = np.zeros((20, 20, 6), np.uint8)
    labels[5:15, 5:15, 1:5] = 1
    volume = Volume(np.zeros((1, 20, 20, 6), np.float32), np.diag([1.0, 1.0, 5.0, 1.0]))
    draw_overview(tmp_path / "a.png", volume, labels, LABELS)
    rows, columns = places(tmp_path / "a.png", RED).T
    height, width = pixels(tmp_path / "a.png").shape[:2]
    for third in range(3):
        inside = (columns // (width / 3) == third) & (rows < height * 0.75)
        high, wide = np.ptp(rows[inside]), np.ptp(columns[inside])
        # 10 × 10 mm in the axial plane, 10 × 20 mm in the others.
        assert high / wide == pytest.approx(1 if third == 0 else 2, rel=0.1)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 9, 7), (40, 2, 3), (64, 48, 1), (2, 200, 3), (5, 1, 5)]
)
def test_odd_shapes(tmp_path, shape):
    image = np.zeros((1, *shape), np.float32)
    full = np.ones(shape, np.uint16)
    odd = [
        PreviewCase("odd", image, *labels, np.diag([0.3, 1, 9, 1]), 0.0)
        for labels in ((full, full * 0), (full * 0, full * 0))
    ]
    draw_cases(tmp_path / "a.png", odd, LABELS)


def test_pictures_and_volumes_on_one_sheet(tmp_path):
    colour = PreviewCase(
        "colour", np.random.default_rng(0).uniform(0, 255, (3, 30, 20, 1)),
        np.ones((30, 20, 1), int), np.zeros((30, 20, 1), int), np.eye(4), 0.0,
    )  # fmt: skip
    draw_cases(tmp_path / "a.png", [case(), colour], LABELS)


def test_labels_the_set_does_not_know_are_not_drawn(tmp_path):
    labels = np.full((9, 9, 3), 7, np.int16)
    draw_overview(tmp_path / "a.png", Volume(np.zeros((1, 9, 9, 3)), np.eye(4)), labels, LABELS)
    assert not len(places(tmp_path / "a.png", RED))


@pytest.mark.parametrize("name", ["n", "a rather long name of a structure"])
def test_the_legend_of_many_labels_fits_on_the_sheet(tmp_path, name):
    labels = LabelSet([Label(n, f"{name} {n}", n, (9, n, 9)) for n in range(1, 61)])
    every = np.arange(61, dtype=np.uint8).repeat(9).reshape(61, 9, 1)
    draw_overview(tmp_path / "a.png", Volume(every[None], np.eye(4)), every, labels)
    sheet = pixels(tmp_path / "a.png")
    foot = sheet[320:]
    assert (foot < 255).any()
    assert (foot[:, :3] == 255).all()
    assert (foot[:, -3:] == 255).all()
    assert (sheet[-2:] == 255).all()


NASTY = ["$x_{$", "a$b$c", "\\frac{1}", "_hidden", "肝臓", "line\nbreak", "x" * 500, "", "%s {}"]


def test_names_of_any_kind_are_drawn_as_text(tmp_path):
    labels = LabelSet([Label(n, name, n, (n, 9, 9)) for n, name in enumerate(NASTY, 1)])
    every = np.arange(10, dtype=np.uint8).repeat(20).reshape(20, 10, 1)
    image = every[None].astype(float)
    cases = [PreviewCase(name, image, every, every, np.eye(4), 1.0) for name in NASTY]
    draw_cases(tmp_path / "a.png", cases, labels)
    scores = {"dice": dict.fromkeys(NASTY[:4], 0.5) | {"mean": 0.5}}
    draw_curves(
        tmp_path / "b.png",
        TrainingCurves(NASTY[0], [(1, 1.0)], {NASTY[2]: [(1, 1.0)]}, [], [(1, scores)]),
    )
    assert to_drawable("肝 x") == "? x"
    assert len(to_drawable("x" * 500)) == 60


def history(steps: int = 400, **changes) -> TrainingCurves:
    rng = np.random.default_rng(0)
    losses = [(n, float(math.exp(-n / 100) + 0.2 + rng.normal(0, 0.02))) for n in range(1, steps)]
    validations = [
        (n, {"dice": {"liver": 1 - 50 / n, "tumour": 0.9 - 50 / n, "mean": 0.95 - 50 / n}})
        for n in range(100, steps, 50)
    ]
    rates = [(n, 0.01 * (1 - n / steps)) for n in range(1, steps)]
    given = {
        "losses": losses,
        "parts": {"dice": losses, "ce": losses},
        "learning_rates": rates,
        "validations": validations,
    }
    return TrainingCurves("liver_ct", **(given | changes))


def test_curves_mark_the_best_validation(tmp_path):
    draw_curves(tmp_path / "a.png", history())
    star = places(tmp_path / "a.png", (0xE6, 0x9F, 0x00))
    width = pixels(tmp_path / "a.png").shape[1]
    assert star[:, 1].max() > width * 0.7
    peak = [(n, {"dice": {"mean": 0.9 if n == 3 else 0.5}}) for n in range(1, 20)]
    draw_curves(tmp_path / "b.png", TrainingCurves("early", [(1, 1.0)], validations=peak))
    star = places(tmp_path / "b.png", (0xE6, 0x9F, 0x00))
    assert star[:, 1].min() < width * 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": [], "parts": {}, "learning_rates": [], "validations": []},
        {"losses": [(1, 0.7)], "parts": {"dice": [(1, 0.7)]}, "learning_rates": [(1, 0.0)]},
        {"losses": [(1, math.nan), (2, math.inf), (3, 0.5)]},
        {"losses": [(1, -0.5), (2, 0.0), (3, 1.0)]},
        {"losses": [(1, 0.5), (2, 0.5)], "parts": {"dice": [(1, 0.0), (2, 0.0)]}},
        {"losses": [(1, 1e-12), (2, 1e12)]},
        {"parts": {"dice": []}},
        {"validations": [(100, {"dice": {"liver": 0.2, "mean": 0.2}})]},
        {"validations": [(100, {"dice": {"liver": math.nan, "mean": math.nan}})]},
        {"validations": [(100, {}), (200, {"dice": {"mean": 0.0}})]},
        {"validations": [(100, {"dice": {"mean": 1.0}}), (200, {"dice": {"mean": math.nan}})]},
        {"validations": [(1, {"dice": {f"l{n}": n / 60 for n in range(60)} | {"mean": 0.5}})]},
        {"parts": {f"part {n}": [(1, 1.0), (2, 0.5)] for n in range(12)}},
    ],
)
def test_odd_histories(tmp_path, changes):
    draw_curves(tmp_path / "a.png", history(**changes))
    assert pixels(tmp_path / "a.png").std() > 5


def test_a_long_training_is_drawn_at_once(tmp_path):
    steps = 300_000
    losses = list(enumerate(np.random.default_rng(0).uniform(0.1, 1, steps).tolist(), 1))
    draw_curves(tmp_path / "a.png", TrainingCurves("long", losses, {"dice": losses}, losses))


def test_equal_input_gives_equal_bytes_and_threads_do_not_disturb_each_other(tmp_path):
    threads = [
        threading.Thread(target=draw_curves, args=(tmp_path / f"{n}.png", history()))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / f"{n}.png").read_bytes() for n in range(3)}) == 1
    assert matplotlib.pyplot.get_fignums() == []


def test_nothing_is_left_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_curves(tmp_path / "file" / "a.png", history())
    with pytest.raises(ValueError, match="at least one case"):
        draw_cases(tmp_path / "a.png", [], LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_real_cases(shared_data, tmp_path):
    folder = shared_data / "hippocampus"
    cases = []
    for path in sorted((folder / "labelsTr").glob("*.nii.gz"))[:2]:
        reference = nibabel.load(path)
        image = nibabel.load(folder / "imagesTr" / path.name).get_fdata(dtype=np.float32)
        labels = np.asarray(reference.dataobj).astype(np.uint8)
        cases.append(PreviewCase(path.name, image[None], labels, labels, reference.affine, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_cases(tmp_path / "a.png", cases, LABELS)
    assert len(places(tmp_path / "a.png", RED)) > 200
